//! What more verdicts would bring: figures of heads that were trained on fewer.

use serde::Serialize;

use crate::evaluation::{EvaluatedCrop, Evaluation, Figure};
use crate::example::{Side, TrainingSet};
use crate::learner::{LearnSettings, learn};

/// Numbers of verdicts for training.
const SIZES: [usize; 4] = [100, 300, 1000, 3000];

/// Figures of a head that was trained on so many of the crops for training.
#[derive(Debug, Clone, Serialize)]
pub struct LearningPoint {
    pub verdicts: usize,
    pub accuracy: Figure,
    pub average_precision: Figure,
}

/// Trains on the first 100, 300, 1,000 and 3,000 crops of the training side, in the order of their hashes, which is
/// random, and on all. All are measured on the whole test side. Sizes with too few OK or NG crops are left out.
pub fn points(
    set: &TrainingSet,
    settings: LearnSettings,
    report: &(dyn Fn(usize, usize) + Sync),
) -> Vec<LearningPoint> {
    let (training, test) = (set.side(Side::Training), set.side(Side::Test));
    let sizes = SIZES.into_iter().filter(|size| *size < training.len()).chain([training.len()]);
    let point = |size: usize| {
        let learned = learn(set, &training[..size], settings, report).ok()?;
        let evaluated = |&i: &usize| {
            let example = &set.examples()[i];
            EvaluatedCrop {
                crop: example.crop,
                group: example.group.clone(),
                label: String::new(),
                ok: example.ok,
                p_ok: learned.p_ok(set.features(i), &example.mirrors),
                size: None,
                mirrored: 0.0,
                random: false,
            }
        };
        let found = Evaluation::of(&test.iter().map(evaluated).collect::<Vec<_>>(), 0.5, settings.seed);
        Some(LearningPoint { verdicts: size, accuracy: found.accuracy, average_precision: found.average_precision })
    };
    sizes.filter_map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learner::tests::drawn;

    #[test]
    fn more_verdicts_are_better() {
        let set = drawn(900, 0.3, 6);
        let points = points(&set, LearnSettings { seed: 1, threads: 2 }, &|_, _| {});
        let sizes: Vec<usize> = points.iter().map(|point| point.verdicts).collect();
        assert_eq!(sizes, [100, 300, set.side(Side::Training).len()]);
        let area = |i: usize| points[i].average_precision.value.unwrap();
        assert!(area(2) > area(0), "{points:?}");
    }
}
