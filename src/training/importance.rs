//! Importance weights: how much a judged crop counts where the judged ones are to stand for all crops (Shimodaira,
//! Journal of Statistical Planning and Inference 90, 2000).
//!
//! Who judges uncertain crops first chooses, among the crops that a later head gives a high score, those that an earlier
//! one was wrong about. A calibration learnt from them alone is less certain than it should be.

/// Intervals of P(OK) with as many crops each.
const INTERVALS: usize = 100;
/// Verdicts that every interval is thought to have besides: a single one must not count for a hundredth of the crops.
const PRIOR: f64 = 2.0;

/// The weight of each judged crop, 1 in the mean. `all`: P(OK) of all crops, by the classifier in use while they were
/// judged. `judged`: that of each judged crop; one without counts as 1.
pub fn weights(all: &[f32], judged: &[Option<f32>]) -> Vec<f64> {
    let mut sorted: Vec<f32> = all.iter().copied().filter(|p_ok| !p_ok.is_nan()).collect();
    sorted.sort_unstable_by(f32::total_cmp);
    if sorted.is_empty() {
        return vec![1.0; judged.len()];
    }
    let bounds: Vec<f32> = (1..INTERVALS).map(|i| sorted[i * sorted.len() / INTERVALS]).collect();
    let interval = |p_ok: f32| bounds.partition_point(|bound| *bound <= p_ok);
    let mut verdicts = [PRIOR; INTERVALS];
    judged.iter().flatten().for_each(|&p_ok| verdicts[interval(p_ok)] += 1.0);
    let weight = |p_ok: f32| 1.0 / verdicts[interval(p_ok)];
    let known = judged.iter().flatten();
    let mean = known.clone().map(|&p_ok| weight(p_ok)).sum::<f64>() / known.count().max(1) as f64;
    judged.iter().map(|p_ok| p_ok.map_or(1.0, |p_ok| weight(p_ok) / mean)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::Platt;
    use crate::head::sigmoid;
    use crate::random::Random;

    #[test]
    fn what_was_judged_often_counts_less() {
        let mut random = Random::seeded(5);
        let all: Vec<f32> = (0..20_000).map(|_| random.unit() as f32).collect();
        // A tenth at random; the others are between .4 and .6.
        let judged: Vec<Option<f32>> = (0..4000)
            .map(|i| Some(if i % 10 == 0 { random.unit() as f32 } else { random.between(0.4, 0.6) as f32 }))
            .collect();
        let weights = weights(&all, &judged);
        assert!((weights.iter().sum::<f64>() / 4000.0 - 1.0).abs() < 1e-9);
        let mean = |of: &dyn Fn(f32) -> f64| {
            judged.iter().flatten().zip(&weights).map(|(&p_ok, weight)| weight * of(p_ok)).sum::<f64>() / 4000.0
        };
        let middle = mean(&|p_ok| f64::from(u8::from((0.4..0.6).contains(&p_ok))));
        assert!((middle - 0.2).abs() < 0.12, "of all crops, a fifth is there, of the judged ones .92: {middle}");
        let square = mean(&|p_ok| f64::from(p_ok * p_ok));
        assert!((square - 1.0 / 3.0).abs() < 0.02, "{square}");
    }

    #[test]
    fn a_calibration_on_uncertain_crops_is_as_certain_as_one_on_all() {
        let mut random = Random::seeded(6);
        // What a crop shows, and the scores of the classifier in use and of a new head, each with an error of its own.
        let crops: Vec<(bool, f64, f64)> = (0..40_000)
            .map(|_| {
                let shows = 3.0 * random.normal();
                (shows > 0.0, shows + random.normal(), shows + random.normal())
            })
            .collect();
        let in_use = |score: f64| sigmoid(score) as f32;
        let all: Vec<f32> = crops.iter().map(|crop| in_use(crop.1)).collect();
        let is_judged = |i: usize, score: f64| i.is_multiple_of(200) || score.abs() < 0.5;
        let judged: Vec<_> = crops.iter().enumerate().filter(|(i, crop)| is_judged(*i, crop.1)).collect();
        let scores: Vec<f64> = judged.iter().map(|(_, crop)| crop.2).collect();
        let ok: Vec<bool> = judged.iter().map(|(_, crop)| crop.0).collect();
        let weights = weights(&all, &judged.iter().map(|(_, crop)| Some(in_use(crop.1))).collect::<Vec<_>>());
        let (every_score, every_label): (Vec<f64>, Vec<bool>) = crops.iter().map(|crop| (crop.2, crop.0)).unzip();
        let of_all = Platt::fit(&every_score, &every_label, &vec![1.0; crops.len()]).slope;
        let [with, without] = [&weights, &vec![1.0; ok.len()]].map(|weights| Platt::fit(&scores, &ok, weights).slope);
        assert!(without < 0.8 * of_all, "{without} of {of_all}; {with}");
        assert!((with / of_all - 1.0).abs() < 0.15, "{with} of {of_all}");
    }

    #[test]
    fn without_scores_all_count_alike() {
        assert_eq!(weights(&[], &[Some(0.2), None]), [1.0, 1.0]);
        assert_eq!(weights(&[f32::NAN, 0.5], &[None, None]), [1.0, 1.0]);
        assert_eq!(weights(&[0.5; 300], &[Some(0.5), Some(0.5), None]), [1.0, 1.0, 1.0]);
    }
}
