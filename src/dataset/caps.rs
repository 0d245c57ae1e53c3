//! Caps: the most faces of one label and of one identity.

use std::collections::HashMap;
use std::hash::Hash;

/// The most faces of one label and of one identity; none: any number. Faces in no identity are not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caps {
    pub per_label: Option<usize>,
    pub per_identity: Option<usize>,
}

impl Caps {
    pub fn are_given(self) -> bool {
        self != Self::default()
    }
}

/// Which cap a face is beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beyond {
    Label,
    Identity,
}

/// Takes faces one after the other as long as the caps allow. `L` tells labels apart.
pub struct CappedFaces<L> {
    caps: Caps,
    of_label: HashMap<L, usize>,
    of_identity: HashMap<u32, usize>,
}

impl<L: Hash + Eq> CappedFaces<L> {
    pub fn new(caps: Caps) -> Self {
        Self { caps, of_label: HashMap::new(), of_identity: HashMap::new() }
    }

    /// Takes a face, unless it is beyond a cap.
    pub fn take(&mut self, label: L, identity: Option<u32>) -> Result<(), Beyond> {
        let labelled = self.of_label.entry(label).or_default();
        if self.caps.per_label.is_some_and(|most| *labelled >= most) {
            return Err(Beyond::Label);
        }
        if let (Some(most), Some(identity)) = (self.caps.per_identity, identity) {
            let alike = self.of_identity.entry(identity).or_default();
            if *alike >= most {
                return Err(Beyond::Identity);
            }
            *alike += 1;
        }
        *labelled += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_face_beyond_one_cap_counts_for_no_other() {
        let mut taken = CappedFaces::new(Caps { per_label: Some(2), per_identity: Some(1) });
        assert_eq!(taken.take("a", Some(1)), Ok(()));
        assert_eq!(taken.take("a", Some(1)), Err(Beyond::Identity));
        assert_eq!(taken.take("a", None), Ok(()));
        assert_eq!(taken.take("a", Some(2)), Err(Beyond::Label));
        assert_eq!(taken.take("b", Some(2)), Ok(()));
        let mut all = CappedFaces::new(Caps::default());
        assert!((0..9).all(|_| all.take("a", Some(1)).is_ok()));
    }
}
