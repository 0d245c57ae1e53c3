//! Groups of faces that look like one person.
//!
//! Two groups become one if their means lie close together: for single faces within the given distance T, for large
//! groups within 0.63 T, since the mean of many faces of a person is known better than one face. With m and n faces, the
//! squared distance of the means is at most T² (0.4 + 0.3 (1/m + 1/n)). And a group keeps to a ball: the mean squared
//! distance of its faces from their mean is at most 0.875 T². Faces of different people are further apart than that, so
//! a chain of look-alikes does not become one group, however long it is.
//!
//! Close pairs are joined, the closest first; then the means of the groups are looked at in the same way, until nearly
//! nothing is joined any more.

use super::neighbours::close_pairs;
use super::parents::Parents;
use super::points::{Point, mean, squared_steps};
use facemill_vision::embedding::DIMENSIONS;

/// The distance of single faces within which they count as one person: see docs/decisions/8-identities.md.
pub const DISTANCE: f64 = 0.4;
/// Parts of the squared distance: for the means of large groups, for each face in one of them, and for the ball.
const OF_MEANS: f64 = 0.4;
const OF_FACES: f64 = 0.3;
const OF_BALL: f64 = 0.875;
/// Rounds in which the means of groups are compared.
const MOST_ROUNDS: usize = 8;
/// A round that joins fewer than one in so many is the last one.
const LEAST_JOINED: usize = 1000;

/// A group: its faces' sum, their number, and the sum of their squared distances from the mean.
struct Group {
    sum: Box<[i32; DIMENSIONS]>,
    count: u32,
    scatter: f64,
}

impl Group {
    fn of(point: &Point) -> Self {
        Self { sum: Box::new(point.map(i32::from)), count: 1, scatter: 0.0 }
    }
}

/// Faces on their way into groups.
struct Grouping<'a> {
    points: &'a [Point],
    parents: Parents,
    /// Of groups with two faces and more, at their roots.
    groups: Vec<Option<Group>>,
    /// Squared steps.
    limit: f64,
}

/// The groups of two faces and more, the largest first; the faces of each in their order. `distance`: of embeddings,
/// [`DISTANCE`] without a reason for another one. `progress` is called with the number of points of each step, and
/// beforehand with that of each round.
pub fn identities(points: &[Point], distance: f64, progress: &(dyn Fn(RoundProgress) + Sync)) -> Vec<Vec<u32>> {
    let mut grouping = Grouping::new(points, f64::from(squared_steps(distance)));
    for _ in 0..MOST_ROUNDS {
        let (roots, means) = grouping.means();
        progress(RoundProgress::Begins(means.len() as u64));
        let pairs = close_pairs(&means, squared_steps(distance), &|points| progress(RoundProgress::Done(points)));
        let joined = pairs.iter().filter(|pair| grouping.join(roots[pair.first as usize], roots[pair.second as usize]));
        // A round that joins nearly nothing is the last one: each takes as long as the first.
        if joined.count() * LEAST_JOINED <= means.len() {
            break;
        }
    }
    grouping.all()
}

/// How far a search is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoundProgress {
    /// A round begins, with so many points.
    Begins(u64),
    /// So many more are done.
    Done(u64),
}

impl<'a> Grouping<'a> {
    fn new(points: &'a [Point], limit: f64) -> Self {
        let mut groups = Vec::new();
        groups.resize_with(points.len(), || None);
        Self { points, parents: Parents::new(points.len() as u32), groups, limit }
    }

    /// All groups and single faces: their roots and means.
    fn means(&mut self) -> (Vec<u32>, Vec<Point>) {
        let roots: Vec<u32> = self.parents.items().filter(|item| self.parents.is_root(*item)).collect();
        let of_root = |root: &u32| match &self.groups[*root as usize] {
            Some(group) => mean(&group.sum, group.count),
            None => self.points[*root as usize],
        };
        let means = roots.iter().map(of_root).collect();
        (roots, means)
    }

    /// Makes the groups of two items one, if they look like one person. False: they do not, or are one already.
    fn join(&mut self, a: u32, b: u32) -> bool {
        // The first item of a group is its root, so that roots do not depend on the order of joining.
        let (a, b) = (self.parents.root(a), self.parents.root(b));
        let (first, second) = (a.min(b), a.max(b));
        if first == second {
            return false;
        }
        let take = |groups: &mut Vec<Option<Group>>, root: u32| {
            groups[root as usize].take().unwrap_or_else(|| Group::of(&self.points[root as usize]))
        };
        let (mut left, right) = (take(&mut self.groups, first), take(&mut self.groups, second));
        let (m, n) = (f64::from(left.count), f64::from(right.count));
        let between = |(a, b): (&i32, &i32)| (f64::from(*a) / m - f64::from(*b) / n).powi(2);
        let squared: f64 = left.sum.iter().zip(right.sum.iter()).map(between).sum();
        let scatter = left.scatter + right.scatter + m * n / (m + n) * squared;
        let is_one = squared <= self.limit * (OF_MEANS + OF_FACES * (1.0 / m + 1.0 / n))
            && scatter / (m + n) <= self.limit * OF_BALL;
        if is_one {
            left.sum.iter_mut().zip(right.sum.iter()).for_each(|(sum, value)| *sum += value);
            (left.count, left.scatter) = (left.count + right.count, scatter);
            self.parents.attach(second, first);
        } else if right.count > 1 {
            self.groups[second as usize] = Some(right);
        }
        if left.count > 1 {
            self.groups[first as usize] = Some(left);
        }
        is_one
    }

    fn all(mut self) -> Vec<Vec<u32>> {
        let mut groups: Vec<Vec<u32>> = vec![Vec::new(); self.points.len()];
        for item in self.parents.items() {
            let root = self.parents.root(item);
            groups[root as usize].push(item);
        }
        groups.retain(|group| group.len() > 1);
        groups.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        groups
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::neighbours::EXACT;
    use crate::points::point;

    /// Numbers that look random (SplitMix64).
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        /// About normal, with variance 1.
        fn normal(&mut self) -> f32 {
            (0..12).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32).sum::<f32>() - 6.0
        }

        /// A vector whose length is `length` on average.
        fn vector(&mut self, length: f32) -> [f32; DIMENSIONS] {
            std::array::from_fn(|_| self.normal() * length / (DIMENSIONS as f32).sqrt())
        }
    }

    /// Faces of people, in the order of their numbers in `people`: means 0.85 apart, faces 0.3 from their mean.
    fn faces(people: &[u32], seed: u64) -> Vec<Point> {
        let mut random = Random(seed);
        let mut means: HashMap<u32, [f32; DIMENSIONS]> = HashMap::new();
        let face = |person: &u32| {
            let mean = *means.entry(*person).or_insert_with(|| random.vector(0.6));
            let noise = random.vector(if *person == u32::MAX { 0.0 } else { 0.25 });
            point(&std::array::from_fn::<f32, DIMENSIONS, _>(|at| mean[at] + noise[at])).unwrap()
        };
        people.iter().map(face).collect()
    }

    #[test]
    fn faces_of_one_person_are_one_group() {
        let people: Vec<u32> = (0..600).map(|at| at % 50).collect();
        let groups = identities(&faces(&people, 1), DISTANCE, &|_| {});
        assert!(
            groups.iter().all(|group| group.iter().all(|face| people[*face as usize] == people[group[0] as usize]))
        );
        assert_eq!(groups.len(), 50, "{:?}", groups.iter().map(Vec::len).collect::<Vec<_>>());
    }

    #[test]
    fn a_chain_of_look_alikes_is_no_group() {
        // From each to the next is a quarter of what two faces of one person may differ; from end to end it is 10 times.
        let mut random = Random(2);
        let (start, way) = (random.vector(0.6), random.vector(1.0));
        let step = 0.25 * DISTANCE as f32;
        let chain: Vec<Point> = (0..40)
            .map(|at| {
                point(&std::array::from_fn::<f32, DIMENSIONS, _>(|i| start[i] + at as f32 * step * way[i])).unwrap()
            })
            .collect();
        let groups = identities(&chain, DISTANCE, &|_| {});
        let longest = groups.iter().map(|group| group.last().unwrap() - group[0]).max().unwrap();
        assert!(f64::from(longest) * f64::from(step) < 2.0 * 3.5f64.sqrt() * DISTANCE, "{longest} steps are one group");
        assert!(groups.len() >= 3);
    }

    #[test]
    fn people_who_fill_the_space_do_not_become_one_group() {
        // Everybody is near somebody: 1,000 single faces around one mean.
        let people: Vec<u32> = (0..1000).collect();
        let mut crowd = faces(&people, 3);
        let middle = faces(&[u32::MAX], 4)[0];
        for (at, face) in crowd.iter_mut().enumerate() {
            let share = 0.2 + 0.8 * (at as f32 / 1000.0);
            *face = std::array::from_fn(|i| (f32::from(middle[i]) + share * f32::from(face[i] - middle[i])) as i16);
        }
        let groups = identities(&crowd, DISTANCE, &|_| {});
        let ball = f64::from(squared_steps(DISTANCE)) * OF_BALL;
        for group in &groups {
            let all: Vec<Group> = group.iter().map(|face| Group::of(&crowd[*face as usize])).collect();
            let mut sum = [0i32; DIMENSIONS];
            all.iter().for_each(|face| sum.iter_mut().zip(face.sum.iter()).for_each(|(sum, value)| *sum += value));
            let squares: f64 = all.iter().flat_map(|face| face.sum.iter()).map(|value| f64::from(*value).powi(2)).sum();
            let length: f64 = sum.iter().map(|value| f64::from(*value).powi(2)).sum();
            let count = group.len() as f64;
            assert!((squares - length / count) / count <= ball * 1.0001, "a group of {count} leaves its ball");
        }
    }

    #[test]
    fn many_faces_are_found_by_lists_and_the_same_way_each_time() {
        let count = EXACT as u32 + 400;
        let people: Vec<u32> = (0..count).map(|at| (at * 7919 % count) / 4).collect();
        let points = faces(&people, 5);
        let groups = identities(&points, DISTANCE, &|_| {});
        let (mut right, mut wrong) = (0, 0);
        for group in &groups {
            for (at, first) in group.iter().enumerate() {
                for second in &group[at + 1..] {
                    *(if people[*first as usize] == people[*second as usize] { &mut right } else { &mut wrong }) += 1;
                }
            }
        }
        let pairs = count / 4 * 6;
        assert!(wrong == 0 && right > pairs * 9 / 10, "{right} of {pairs} pairs, {wrong} wrong");
        assert_eq!(identities(&points, DISTANCE, &|_| {}), groups);
    }
}
