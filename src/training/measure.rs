//! Figures of a classifier: accuracy, precision, recall, AUC. OK is the positive class.

use std::fmt;

use serde::Serialize;

/// The score and the label of a crop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    pub p_ok: f64,
    pub ok: bool,
}

/// Figures over crops. Shares are from 0 to 1, and `None` where the divisor is zero.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measures {
    pub threshold: f64,
    pub ok_as_ok: usize,
    pub ok_as_ng: usize,
    pub ng_as_ok: usize,
    pub ng_as_ng: usize,
    pub accuracy: Option<f64>,
    pub precision: Option<f64>,
    pub recall: Option<f64>,
    /// Harmonic mean of precision and recall.
    pub f1: Option<f64>,
    /// Area under the ROC curve: the probability that an OK crop has a higher score than an NG crop.
    pub auc: Option<f64>,
    /// The highest recall among thresholds with a precision of at least 0.9.
    pub recall_at_precision_90: Option<f64>,
}

impl Measures {
    /// Crops with a score of at least `threshold` are predicted OK.
    pub fn of(crops: &[Scored], threshold: f64) -> Self {
        let count = |ok: bool, predicted: bool| {
            crops.iter().filter(|crop| crop.ok == ok && (crop.p_ok >= threshold) == predicted).count()
        };
        let [ok_as_ok, ok_as_ng, ng_as_ok, ng_as_ng] =
            [count(true, true), count(true, false), count(false, true), count(false, false)];
        Self {
            threshold,
            ok_as_ok,
            ok_as_ng,
            ng_as_ok,
            ng_as_ng,
            accuracy: share(ok_as_ok + ng_as_ng, crops.len()),
            precision: share(ok_as_ok, ok_as_ok + ng_as_ok),
            recall: share(ok_as_ok, ok_as_ok + ok_as_ng),
            f1: share(2 * ok_as_ok, 2 * ok_as_ok + ok_as_ng + ng_as_ok),
            auc: auc(crops),
            recall_at_precision_90: best_recall(crops.iter().map(|crop| (*crop, 1.0)), 0.9).map(|(_, recall)| recall),
        }
    }
}

fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Pairs with equal scores count half.
fn auc(crops: &[Scored]) -> Option<f64> {
    let (mut wins, mut below) = (0.0, 0.0);
    let mut total = 0.0;
    for tied in descending(crops).chunk_by(|a, b| a.p_ok == b.p_ok).rev() {
        let ok = tied.iter().filter(|crop| crop.ok).count() as f64;
        let ng = tied.len() as f64 - ok;
        wins += ok * (below + ng / 2.0);
        below += ng;
        total += ok;
    }
    (total > 0.0 && below > 0.0).then(|| wins / (total * below))
}

/// The threshold with the highest recall among those with at least this precision. `weights`: how much each crop counts,
/// as [`importance`](super::importance) says.
///
/// It is half-way to the next lower score, so that a slightly lower score still passes.
pub fn best_threshold(crops: &[Scored], weights: &[f64], precision: f64) -> Option<f64> {
    best_recall(crops.iter().copied().zip(weights.iter().copied()), precision).map(|(threshold, _)| threshold)
}

/// The threshold and the recall. With each crop its weight.
fn best_recall(crops: impl Iterator<Item = (Scored, f64)>, precision: f64) -> Option<(f64, f64)> {
    let mut sorted: Vec<(Scored, f64)> = crops.collect();
    sorted.sort_by(|(a, _), (b, _)| b.p_ok.total_cmp(&a.p_ok));
    let all: f64 = sorted.iter().filter(|(crop, _)| crop.ok).map(|(_, weight)| weight).sum();
    let (mut ok, mut passed, mut found, mut best) = (0.0, 0.0, 0.0, None);
    for (i, (crop, weight)) in sorted.iter().enumerate() {
        passed += weight;
        ok += if crop.ok { *weight } else { 0.0 };
        let next = sorted.get(i + 1).map_or(0.0, |(next, _)| next.p_ok);
        // Crops with equal scores pass together.
        if next < crop.p_ok && ok > found && ok >= precision * passed {
            best = Some(((crop.p_ok + next) / 2.0, ok / all));
            found = ok;
        }
    }
    best
}

fn descending(crops: &[Scored]) -> Vec<Scored> {
    let mut sorted = crops.to_vec();
    sorted.sort_by(|a, b| b.p_ok.total_cmp(&a.p_ok));
    sorted
}

impl fmt::Display for Measures {
    /// One row below [`TABLE_HEADER`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for value in [self.accuracy, self.precision, self.recall, self.auc, self.recall_at_precision_90] {
            match value {
                Some(value) => write!(f, "{value:>10.3}")?,
                None => write!(f, "{:>10}", "-")?,
            }
        }
        write!(f, "{:>11.3}", self.threshold)
    }
}

pub const TABLE_HEADER: &str = "  accuracy precision    recall       AUC recall@.9  threshold";

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(scores: &[(f64, bool)]) -> Vec<Scored> {
        scores.iter().map(|&(p_ok, ok)| Scored { p_ok, ok }).collect()
    }

    #[test]
    fn figures_match_a_manual_count() {
        let crops = scored(&[(0.9, true), (0.8, true), (0.7, false), (0.6, true), (0.4, false), (0.2, false)]);
        let measures = Measures::of(&crops, 0.5);
        assert_eq!([measures.ok_as_ok, measures.ok_as_ng, measures.ng_as_ok, measures.ng_as_ng], [3, 0, 1, 2]);
        assert_eq!(measures.accuracy, Some(5.0 / 6.0));
        assert_eq!((measures.precision, measures.recall), (Some(0.75), Some(1.0)));
        assert_eq!(measures.auc, Some(8.0 / 9.0));
        assert_eq!(measures.recall_at_precision_90, Some(2.0 / 3.0));
    }

    #[test]
    fn equal_scores_have_an_auc_of_one_half() {
        let crops = scored(&[(0.5, true), (0.5, false), (0.5, false)]);
        assert_eq!(Measures::of(&crops, 0.5).auc, Some(0.5));
        assert_eq!(best_threshold(&crops, &[1.0; 3], 0.9), None);
    }

    #[test]
    fn the_threshold_is_between_the_scores() {
        let crops = scored(&[(0.9, true), (0.8, true), (0.4, false)]);
        let threshold = best_threshold(&crops, &[1.0; 3], 0.9).unwrap();
        assert!((threshold - 0.6).abs() < 1e-12, "{threshold}");
    }

    #[test]
    fn the_threshold_is_for_what_the_crops_stand_for() {
        // Of the crops that somebody chose to judge, more are difficult than of all.
        let crops = scored(&[(0.9, true), (0.8, false), (0.7, true), (0.6, true), (0.5, false)]);
        for (weights, expected) in [([1.0; 5], 0.85), ([6.0, 0.1, 2.0, 1.0, 1.0], 0.55)] {
            let threshold = best_threshold(&crops, &weights, 0.9).unwrap();
            assert!((threshold - expected).abs() < 1e-12, "{threshold}");
        }
    }

    #[test]
    fn figures_without_crops_are_none() {
        let measures = Measures::of(&scored(&[(0.1, false)]), 0.5);
        assert_eq!((measures.precision, measures.recall, measures.auc), (None, None, None));
    }
}
