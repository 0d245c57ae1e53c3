//! What to judge next: crops that stand for many others, or those that a classifier is least sure of.

use std::collections::BinaryHeap;

use super::head::Projection;
use super::matrix::dot_narrow;

/// From this cosine on, two crops are nearly the same. Measured on 2,900 portraits: crops that were moved by 3 % of their
/// width, turned by 2 degrees, brightened or stored as JPEG of quality 80 have 0.93 or more in nine cases of ten; 5 of
/// 4.2 million pairs of different people do.
pub const ALIKE: f32 = 0.9;
/// The most crops that the principal components are fitted on.
const FITTED: usize = 1000;

/// Where the features of crops point to, seen from their mean: unit vectors on the main components. The cosine of two
/// crops is 1 for copies, and near 0 for crops that have nothing in common.
#[derive(Debug, Clone, Default)]
pub struct Directions(Vec<Vec<f32>>);

impl Directions {
    /// Of crops with these features; all have the same length.
    pub fn of(features: &[&[f32]], seed: u64) -> Self {
        let sample: Vec<&[f32]> = features.iter().step_by(features.len().div_ceil(FITTED).max(1)).copied().collect();
        if sample.is_empty() {
            return Self::default();
        }
        let projection = Projection::fit(&sample, seed);
        let unit = |row: &&[f32]| {
            let row = projection.apply(row);
            let length = row.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
            row.iter().map(|x| (x / length) as f32).collect()
        };
        Self(features.iter().map(unit).collect())
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The cosine of two crops, -1 to 1.
    pub fn cosine(&self, a: usize, b: usize) -> f32 {
        dot_narrow(&self.0[a], &self.0[b])
    }

    pub fn are_alike(&self, a: usize, b: usize) -> bool {
        self.cosine(a, b) >= ALIKE
    }
}

/// The order in which crops stand for all: each next one is nearest to most of those that no judged or earlier crop is
/// near to. So typical crops come first, different kinds in turn, and copies last.
///
/// This is greedy facility location (Nemhauser, Wolsey, Fisher 1978), with the gains looked up lazily (Minoux 1978).
/// `is_judged`: for each crop; judged ones are not in the result. Takes the memory of the squared number of crops.
pub fn typical_first(crops: &Directions, is_judged: &[bool]) -> Vec<usize> {
    let count = crops.count();
    let near: Vec<Vec<f32>> = (0..count).map(|i| (0..count).map(|j| crops.cosine(i, j).max(0.0)).collect()).collect();
    let mut covered = vec![0.0; count];
    let cover = |covered: &mut Vec<f32>, i: usize| {
        covered.iter_mut().zip(&near[i]).for_each(|(covered, near)| *covered = covered.max(*near));
    };
    (0..count).filter(|&i| is_judged[i]).for_each(|i| cover(&mut covered, i));
    let gain = |covered: &[f32], i: usize| {
        near[i].iter().zip(covered).map(|(near, covered)| (near - covered).max(0.0)).sum::<f32>()
    };
    let mut queue: BinaryHeap<Gain> =
        (0..count).filter(|&i| !is_judged[i]).map(|i| Gain { gain: gain(&covered, i), crop: i, as_of: 0 }).collect();
    let mut order = Vec::with_capacity(queue.len());
    while let Some(best) = queue.pop() {
        // A gain only shrinks while others are chosen: the largest that is up to date is the largest of all.
        if best.as_of == order.len() {
            cover(&mut covered, best.crop);
            order.push(best.crop);
        } else {
            queue.push(Gain { gain: gain(&covered, best.crop), as_of: order.len(), ..best });
        }
    }
    order
}

/// How much nearer all crops get to a chosen one if this one is chosen, too.
struct Gain {
    gain: f32,
    crop: usize,
    /// How many crops were chosen when it was computed.
    as_of: usize,
}

impl Ord for Gain {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.gain.total_cmp(&other.gain).then(other.crop.cmp(&self.crop))
    }
}

impl PartialOrd for Gain {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Gain {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Gain {}

/// The crops by their distance from the threshold, the nearest first, in rounds: of crops that are nearly the same, the
/// first round has one, the second round another. So copies do not follow each other, and teach something else first.
/// `distance`: for each crop.
pub fn uncertain_first(crops: &Directions, distance: &[f64]) -> Vec<usize> {
    let mut by_distance: Vec<usize> = (0..crops.count()).collect();
    by_distance.sort_by(|&a, &b| distance[a].total_cmp(&distance[b]).then(a.cmp(&b)));
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    for crop in by_distance {
        let has_none = |round: &Vec<usize>| !round.iter().any(|&other| crops.are_alike(crop, other));
        match rounds.iter().position(has_none) {
            Some(round) => rounds[round].push(crop),
            None => rounds.push(vec![crop]),
        }
    }
    let mut order: Vec<usize> = Vec::with_capacity(crops.count());
    for mut round in rounds {
        if let Some(&last) = order.last()
            && let Some(other) = round.iter().position(|&crop| !crops.are_alike(crop, last))
        {
            round[..=other].rotate_right(1);
        }
        order.extend(round);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Crops around these many points, of so many crops each, in turn; the first point has twice as many.
    fn clusters(points: usize, crops: usize, spread: f64) -> Vec<(usize, Vec<f32>)> {
        let mut random = Random::seeded(7);
        let centres: Vec<Vec<f64>> = (0..points).map(|_| (0..40).map(|_| random.normal()).collect()).collect();
        let numbers = (0..crops).flat_map(|_| 0..points).chain((0..crops).map(|_| 0));
        let crop =
            |point: usize| (point, centres[point].iter().map(|x| (x + spread * random.normal()) as f32).collect());
        numbers.map(crop).collect()
    }

    fn directions(crops: &[(usize, Vec<f32>)]) -> Directions {
        Directions::of(&crops.iter().map(|(_, crop)| &crop[..]).collect::<Vec<_>>(), 1)
    }

    #[test]
    fn typical_crops_of_each_kind_come_first_and_kinds_that_are_judged_later() {
        let crops = clusters(6, 10, 0.2);
        let all = directions(&crops);
        let order = typical_first(&all, &vec![false; crops.len()]);
        let mut kinds: Vec<usize> = order[..6].iter().map(|&i| crops[i].0).collect();
        assert_eq!(kinds[0], 0, "most crops are of this kind");
        kinds.sort_unstable();
        assert_eq!(kinds, [0, 1, 2, 3, 4, 5]);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..crops.len()).collect::<Vec<_>>());
        assert_eq!(order, typical_first(&all, &vec![false; crops.len()]));

        let is_judged: Vec<bool> = crops.iter().map(|(kind, _)| [0, 3].contains(kind)).collect();
        let order = typical_first(&all, &is_judged);
        let mut kinds: Vec<usize> = order[..4].iter().map(|&i| crops[i].0).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, [1, 2, 4, 5]);
        assert_eq!(order.len(), crops.len() - is_judged.iter().filter(|judged| **judged).count());
    }

    #[test]
    fn uncertain_crops_come_first_and_copies_do_not_follow_each_other() {
        let crops = clusters(5, 8, 0.01);
        let all = directions(&crops);
        // The first kind is the most uncertain.
        let distance: Vec<f64> =
            crops.iter().enumerate().map(|(i, (kind, _))| *kind as f64 + i as f64 / 1000.0).collect();
        let order = uncertain_first(&all, &distance);
        let kinds: Vec<usize> = order.iter().map(|&i| crops[i].0).collect();
        assert_eq!(kinds[..5], [0, 1, 2, 3, 4]);
        let others = crops.len() - 16 + 1;
        assert!(kinds[..others].windows(2).all(|pair| pair[0] != pair[1]), "{kinds:?}");
        assert_eq!(order[0], 0);
        // Crops that differ are by distance alone.
        let crops = clusters(30, 1, 0.0);
        let distance: Vec<f64> = (0..30).map(|i| f64::from((i * 7) % 30)).chain([99.0]).collect();
        let order = uncertain_first(&directions(&crops), &distance);
        assert!(order[..30].windows(2).all(|pair| distance[pair[0]] < distance[pair[1]]), "{order:?}");
        assert!(uncertain_first(&Directions::of(&[], 1), &[]).is_empty());
    }
}
