//! Faces whose label disagrees with their look.
//!
//! An identity is its label's if most of its faces have that label. The main identity of a label is the largest of those
//! that are its own. A face is suspected of showing the wrong person if it looks like another label's main identity, and
//! its own label has a main identity, too. So neither a second name for one person nor a person whose faces are split
//! over several identities makes suspects.

use std::collections::HashMap;

/// A face that is in an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabelledFace {
    pub row: usize,
    pub identity: u32,
    /// The number of its label.
    pub label: u64,
}

/// A face whose label is probably another person's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongPerson {
    pub row: usize,
    /// The label of the faces that it looks like.
    pub looks_like: u64,
}

/// The faces whose label disagrees with their look, in the order of `faces`.
pub fn wrong_persons(faces: &[LabelledFace]) -> Vec<WrongPerson> {
    let (mut in_identity, mut of_label) = (HashMap::<u32, u64>::new(), HashMap::<(u32, u64), u64>::new());
    for face in faces {
        *in_identity.entry(face.identity).or_default() += 1;
        *of_label.entry((face.identity, face.label)).or_default() += 1;
    }
    // The label that owns each identity, and the main identity of each label.
    let (mut owners, mut mains) = (HashMap::new(), HashMap::<u64, (u64, u32)>::new());
    for ((identity, label), count) in of_label {
        if 2 * count <= in_identity[&identity] {
            continue;
        }
        owners.insert(identity, label);
        let main = mains.entry(label).or_insert((count, identity));
        // Of identities of the same size, the first one counts.
        if (count, std::cmp::Reverse(identity)) > (main.0, std::cmp::Reverse(main.1)) {
            *main = (count, identity);
        }
    }
    let suspect = |face: &LabelledFace| {
        let owner = *owners.get(&face.identity)?;
        let is_main = |label: u64| mains.get(&label).map(|(_, identity)| *identity == face.identity);
        let is_suspect = owner != face.label && is_main(owner) == Some(true) && is_main(face.label) == Some(false);
        is_suspect.then_some(WrongPerson { row: face.row, looks_like: owner })
    };
    faces.iter().filter_map(suspect).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Faces in rows from 0 on: pairs of identity and label.
    fn found(faces: &[(u32, u64)]) -> Vec<(usize, u64)> {
        let face =
            |(row, (identity, label)): (usize, &(u32, u64))| LabelledFace { row, identity: *identity, label: *label };
        let faces: Vec<LabelledFace> = faces.iter().enumerate().map(face).collect();
        wrong_persons(&faces).into_iter().map(|wrong| (wrong.row, wrong.looks_like)).collect()
    }

    #[test]
    fn a_face_that_looks_like_another_label_is_found() {
        assert_eq!(found(&[(1, 7), (1, 7), (1, 8), (2, 8), (2, 8)]), [(2, 7)]);
        assert_eq!(found(&[(1, 7), (1, 7), (2, 8), (2, 8)]), []);
    }

    #[test]
    fn a_second_name_of_one_person_is_no_suspect() {
        assert_eq!(found(&[(1, 7), (1, 7), (1, 7), (1, 8), (1, 8)]), []);
    }

    #[test]
    fn split_identities_are_no_suspects() {
        // Label 7 has two identities; only the larger one is its main one.
        assert_eq!(found(&[(1, 7), (1, 7), (1, 7), (2, 7), (2, 7), (2, 8), (3, 8), (3, 8)]), []);
        // Label 8 has no identity of its own.
        assert_eq!(found(&[(1, 7), (1, 7), (1, 8)]), []);
    }

    #[test]
    fn an_identity_of_half_and_half_belongs_to_nobody() {
        assert_eq!(found(&[(1, 7), (1, 7), (1, 8), (1, 8), (2, 8), (2, 8), (2, 8), (3, 7), (3, 7), (3, 7)]), []);
    }
}
