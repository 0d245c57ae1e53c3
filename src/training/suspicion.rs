//! Verdicts that a classifier disagrees with, although it has seen neither the crop, nor its person, nor crops like it.

use std::collections::HashMap;
use std::sync::Mutex;

use super::example::TrainingSet;
use super::joined::Joined;
use super::learner::{LearnError, LearnSettings, learn};
use super::suggestion::{ALIKE, Directions};
use facemill_classifier::coarse::coarse;

/// Heads whose scores are averaged: each has other folds.
const HEADS: u64 = 3;
/// From this cosine on, crops are copies, but for their compression.
const NEARLY_EQUAL: f32 = 0.99;
/// A verdict is suspicious if P(OK) gives the other one at least this probability.
pub const SUSPICIOUS: f64 = 0.5;

/// A verdict that the classifier disagrees with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Suspicion {
    /// The place of the crop in the set.
    pub place: usize,
    /// P(OK) by heads that have not seen the crop's group.
    pub p_ok: f64,
    /// The probability of the other verdict.
    pub disagreement: f64,
}

/// The suspicious verdicts of a set, those with the strongest disagreement first.
///
/// # Errors
/// The verdicts are too few to learn from.
pub fn suspicious(
    set: &TrainingSet,
    settings: LearnSettings,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<Suspicion>, LearnError> {
    let mut set = set.clone();
    set.regroup(&groups_of_alike(&set, settings.seed));
    let places: Vec<usize> = (0..set.examples().len()).collect();
    let mut p_ok = vec![0.0; places.len()];
    for head in 0..HEADS {
        let done = Mutex::new(());
        let report = |fits: usize, of: usize| {
            let _one_at_a_time = done.lock();
            progress(head as usize * of + fits, HEADS as usize * of);
        };
        let settings = LearnSettings { seed: settings.seed.wrapping_add(head), ..settings };
        let learned = learn(&set, &places, settings, &report)?;
        p_ok.iter_mut().zip(&learned.out_of_sample).for_each(|(sum, p_ok)| *sum += p_ok / HEADS as f64);
    }
    let suspicion = |place: usize| {
        let p_ok = p_ok[place];
        let disagreement = if set.examples()[place].ok { 1.0 - p_ok } else { p_ok };
        Suspicion { place, p_ok, disagreement }
    };
    let mut found: Vec<Suspicion> =
        places.iter().map(|&place| suspicion(place)).filter(|one| one.disagreement >= SUSPICIOUS).collect();
    found.sort_by(|a, b| b.disagreement.total_cmp(&a.disagreement).then(a.place.cmp(&b.place)));
    Ok(found)
}

/// The groups of a set, joined where crops of two are nearly the same. Compares all pairs of crops. A joined group has at
/// most a tenth of all crops: where many crops are much alike, they would become one group, and nothing could be learnt.
fn groups_of_alike(set: &TrainingSet, seed: u64) -> Vec<String> {
    let count = set.examples().len();
    let features: Vec<Vec<f32>> = (0..count).map(|i| coarse(set.features(i))).collect();
    let crops = Directions::of(&features.iter().map(|row| &row[..]).collect::<Vec<_>>(), seed);
    let mut joined = Joined::new(count);
    let mut first = HashMap::new();
    for (i, example) in set.examples().iter().enumerate() {
        joined.join(*first.entry(example.group.as_str()).or_insert(i), i, count);
    }
    // The most alike first.
    for least in [NEARLY_EQUAL, ALIKE] {
        for i in 0..count {
            for j in 0..i {
                if crops.cosine(i, j) >= least {
                    joined.join(i, j, count / 10);
                }
            }
        }
    }
    (0..count).map(|i| set.examples()[joined.root(i)].group.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::example::Example;
    use crate::learner::tests::drawn;
    use crate::random::Random;
    use facemill_classifier::backbone::FEATURES;
    use facemill_classifier::model::MIRRORS;
    use facemill_domain::ContentHash;

    #[test]
    fn wrong_verdicts_are_suspicious_and_most_others_are_not() {
        let set = drawn(360, 0.0, 11);
        let is_wrong = |i: usize| i.is_multiple_of(20);
        let planted = TrainingSet::new((0..360).map(|i| {
            let example = set.examples()[i].clone();
            (Example { ok: example.ok ^ is_wrong(i), ..example }, set.features(i).to_vec())
        }));
        let found = suspicious(&planted, LearnSettings { seed: 1, threads: 2 }, &|_, _| {}).unwrap();
        let right = found.iter().filter(|one| is_wrong(one.place)).count();
        assert!(right >= 15, "{right} of 18 found");
        assert!(found[..10].iter().filter(|one| is_wrong(one.place)).count() >= 8, "{found:?}");
        assert!(found.windows(2).all(|pair| pair[0].disagreement >= pair[1].disagreement));
        assert!(found.iter().all(|one| {
            let said = planted.examples()[one.place].ok;
            (one.disagreement - if said { 1.0 - one.p_ok } else { one.p_ok }).abs() < 1e-12
        }));
    }

    #[test]
    fn copies_of_a_crop_under_other_names_are_in_one_group() {
        let mut random = Random::seeded(12);
        let example = |name: String, group: String| Example {
            crop: ContentHash::of(name.as_bytes()),
            group,
            duplicates: None,
            ok: true,
            mirrors: [0.0; MIRRORS],
            importance: 1.0,
        };
        let features: Vec<Vec<f32>> =
            (0..60).map(|_| (0..FEATURES).map(|_| random.normal() as f32).collect()).collect();
        let crops = features.iter().zip(0..).map(|(row, i)| (example(format!("{i}"), format!("{i}")), row.clone()));
        // A third of the crops come again, slightly changed, as crops of somebody else.
        let copies = features[..20].iter().zip(0..).map(|(row, i)| {
            let row = row.iter().map(|x| x + 0.02 * random.normal() as f32).collect();
            (example(format!("copy {i}"), format!("other {i}")), row)
        });
        let set = TrainingSet::new(crops.chain(copies));
        let groups = groups_of_alike(&set, 1);
        let of = |name: String| {
            let crop = ContentHash::of(name.as_bytes());
            &groups[set.examples().iter().position(|example| example.crop == crop).unwrap()]
        };
        (0..20).for_each(|i| assert_eq!(of(format!("copy {i}")), of(format!("{i}"))));
        assert_eq!(groups.iter().collect::<BTreeSet<_>>().len(), 60, "different people stay apart");
    }

    #[test]
    fn crops_that_are_all_alike_do_not_become_one_group() {
        let set = drawn(200, 0.0, 13);
        let groups = groups_of_alike(&set, 1);
        let largest = groups.iter().map(|group| groups.iter().filter(|other| *other == group).count()).max();
        assert!((6..=20).contains(&largest.unwrap()), "{largest:?}");
    }
}
