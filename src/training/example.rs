//! Judged crops with their features, and the two sides that they are divided into.
//!
//! A group is what crops have in common: the person, or the photo. All crops of a group are on one side. The side
//! follows from a hash of the group alone, so a later verdict moves no crop to the other side, and all models of a
//! collection are measured on pictures that none of them was trained on.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sha2::Digest;

use facemill_classifier::model::MIRRORS;
use facemill_domain::hash::hex;
use facemill_domain::{ContentHash, RunName};

/// A judged crop.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    pub crop: ContentHash,
    /// The person, or another reason why crops are alike.
    pub group: String,
    /// The number of its group of near-duplicates, which may be of several people.
    pub duplicates: Option<u32>,
    pub ok: bool,
    pub mirrors: [f32; MIRRORS],
    /// How much it counts in the calibration, as [`importance`](super::importance) says.
    pub importance: f64,
}

/// What the crops of a group are used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Training,
    Test,
}

impl Side {
    /// Name of this division. Another rule needs another name.
    pub const RULE: &'static str = "sha256-of-group-1";
    /// Share of the groups that are on the test side.
    const TEST: f64 = 0.25;

    pub fn of(group: &str) -> Self {
        match position("side", group) < Self::TEST {
            true => Self::Test,
            false => Self::Training,
        }
    }
}

/// A number in [0, 1) that belongs to a group, another for each purpose.
fn position(purpose: &str, group: &str) -> f64 {
    let hash = ContentHash::of(format!("{purpose}/{group}").as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash.as_bytes()[..8]);
    (u64::from_be_bytes(bytes) >> 11) as f64 / (1u64 << 53) as f64
}

/// The number of the fold of each group, from 0 to `folds` - 1. Each fold has as many groups, to one.
pub fn folds<'a>(groups: impl Iterator<Item = &'a str>, folds: usize, seed: u64) -> HashMap<&'a str, usize> {
    let groups: BTreeSet<&str> = groups.collect();
    let mut shuffled: Vec<(ContentHash, &str)> =
        groups.into_iter().map(|group| (ContentHash::of(format!("fold {seed}/{group}").as_bytes()), group)).collect();
    shuffled.sort_unstable();
    shuffled.into_iter().enumerate().map(|(i, (_, group))| (group, i % folds.max(1))).collect()
}

/// Judged crops with their features, in the order of the crops' hashes. Each crop is there once.
#[derive(Debug, Clone, Default)]
pub struct TrainingSet {
    examples: Vec<Example>,
    features: Vec<Vec<f32>>,
    /// The run whose verdicts these are, if they are of one.
    run: Option<String>,
}

impl TrainingSet {
    /// Crops that are given with both labels, or with two groups, are left out: nothing is known of them.
    pub fn new(judged: impl IntoIterator<Item = (Example, Vec<f32>)>) -> Self {
        let mut by_crop: BTreeMap<ContentHash, Option<(Example, Vec<f32>)>> = BTreeMap::new();
        for (example, features) in judged {
            let crop = example.crop;
            match by_crop.get_mut(&crop) {
                None => drop(by_crop.insert(crop, Some((example, features)))),
                Some(Some((known, _))) if known.ok == example.ok && known.group == example.group => {}
                Some(contradiction) => *contradiction = None,
            }
        }
        let (examples, features) = by_crop.into_values().flatten().unzip();
        Self { examples, features, run: None }
    }

    /// The set of the verdicts of a run.
    #[must_use]
    pub fn of_run(self, run: Option<&RunName>) -> Self {
        Self { run: run.map(RunName::to_string), ..self }
    }

    pub fn run(&self) -> Option<&str> {
        self.run.as_deref()
    }

    /// Puts the crops into other groups, in their order.
    pub fn regroup(&mut self, groups: &[String]) {
        self.examples.iter_mut().zip(groups).for_each(|(example, group)| example.group.clone_from(group));
    }

    pub fn examples(&self) -> &[Example] {
        &self.examples
    }

    pub fn features(&self, i: usize) -> &[f32] {
        &self.features[i]
    }

    /// The places of the crops of a side, in order.
    pub fn side(&self, side: Side) -> Vec<usize> {
        (0..self.examples.len()).filter(|&i| Side::of(&self.examples[i].group) == side).collect()
    }

    /// SHA-256 over all crops, labels, groups, and what is not as usual in their importance.
    pub fn digest(&self) -> String {
        let mut hash = sha2::Sha256::new();
        for Example { crop, ok, group, duplicates, importance, .. } in &self.examples {
            hash.update(format!("{crop} {ok} {group}"));
            duplicates.iter().for_each(|number| hash.update(format!(" {number}")));
            if *importance != 1.0 {
                hash.update(format!(" x{importance}"));
            }
            hash.update("\n");
        }
        hex(&hash.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(crop: u8, group: &str, ok: bool) -> Example {
        Example {
            crop: ContentHash::of(&[crop]),
            group: group.into(),
            duplicates: None,
            ok,
            mirrors: [0.0; MIRRORS],
            importance: 1.0,
        }
    }

    #[test]
    fn a_group_has_one_side_that_later_groups_do_not_change() {
        let groups: Vec<String> = (0..4000).map(|i| format!("person {i}")).collect();
        let test = groups.iter().filter(|group| Side::of(group) == Side::Test).count();
        assert!((900..1100).contains(&test), "{test}");
        assert_eq!(Side::of("person 7"), Side::of("person 7"));
        // The rule is part of the format: models that exist were measured on these sides.
        let sides = ["anna", "ada", "grace", "mary", "emmy"].map(Side::of);
        assert_eq!(sides, [Side::Test, Side::Training, Side::Test, Side::Training, Side::Test]);
    }

    #[test]
    fn folds_have_whole_groups_and_equal_numbers() {
        let groups: Vec<String> = (0..23).map(|i| format!("person {i}")).collect();
        let of = folds(groups.iter().chain(&groups).map(String::as_str), 5, 1);
        let mut sizes = [0; 5];
        of.values().for_each(|&fold| sizes[fold] += 1);
        sizes.sort_unstable();
        assert_eq!(sizes, [4, 4, 5, 5, 5]);
        assert_ne!(of, folds(groups.iter().map(String::as_str), 5, 2));
    }

    #[test]
    fn a_crop_is_there_once_and_contradictions_are_left_out() {
        let judged = [
            (example(1, "a", true), vec![1.0]),
            (example(2, "a", true), vec![2.0]),
            (example(1, "a", true), vec![1.0]),
            (example(3, "b", true), vec![3.0]),
            (example(3, "b", false), vec![3.0]),
            (example(4, "b", true), vec![4.0]),
            (example(4, "c", true), vec![4.0]),
        ];
        let set = TrainingSet::new(judged.clone());
        let mut crops: Vec<ContentHash> = set.examples().iter().map(|example| example.crop).collect();
        let mut expected = [1, 2].map(|crop| ContentHash::of(&[crop]));
        expected.sort_unstable();
        assert_eq!(crops, expected);
        assert_eq!(set.features(crops.iter().position(|crop| *crop == ContentHash::of(&[2])).unwrap()), [2.0]);
        crops.reverse();
        let reversed = TrainingSet::new(judged.into_iter().rev());
        assert_eq!(set.digest(), reversed.digest());
        assert_ne!(set.digest(), TrainingSet::new([(example(1, "a", false), vec![1.0])]).digest());
    }
}
