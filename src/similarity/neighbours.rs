//! Pairs of points that are close to each other, without comparing all pairs: inverted lists (Jegou, Douze, Schmid:
//! Product Quantization for Nearest Neighbor Search, IEEE TPAMI 2011, section IV), without the quantization.
//!
//! Points are divided into about 2 sqrt(n) lists, each around a centre that k-means finds on a sample. A point is
//! compared with the points of the [`PROBES`] lists whose centres are nearest to it, so the work grows with n^1.5. Up to
//! [`EXACT`] points all are compared. The same points in the same order give the same pairs: nothing is drawn by chance,
//! and all numbers are whole.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::points::{Point, mean, squared_distance};
use facemill_vision::embedding::DIMENSIONS;

/// Up to so many points, all pairs are compared.
pub const EXACT: usize = 4096;
/// A point has at most so many neighbours: its nearest.
pub const NEIGHBOURS: usize = 16;
/// Lists that a point is compared with.
const PROBES: usize = 8;
/// Points of the sample for each list, and rounds of k-means.
const SAMPLE: usize = 24;
const ROUNDS: usize = 5;
/// Points of one list that a point is compared with at most, so that a list that is flooded does not take for ever.
const MOST_COMPARED: usize = 8192;
/// Points in a part of the work of a thread.
const PART: usize = 1024;

/// Two points, the smaller place first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClosePair {
    /// In squared steps.
    pub squared_distance: i32,
    pub first: u32,
    pub second: u32,
}

/// The points of a search, by list.
struct Lists {
    /// The places of the points of all lists, and where each list begins, and the end.
    places: Vec<u32>,
    starts: Vec<usize>,
    /// The nearest lists of each point, the nearest first. Points have the same number of them.
    probes: Vec<u16>,
    probes_of_point: usize,
}

/// Pairs of points within `limit` squared steps, the closest first: for each point those with its [`NEIGHBOURS`] nearest
/// ones. `progress` is called with the number of points of each step.
pub fn close_pairs(points: &[Point], limit: i32, progress: &(dyn Fn(u64) + Sync)) -> Vec<ClosePair> {
    let lists = Lists::new(points);
    let found = in_parts(lists.starts.len() - 1, |list| {
        let pairs = lists.search(points, list, limit);
        progress((lists.starts[list + 1] - lists.starts[list]) as u64);
        pairs
    });
    let mut pairs: Vec<ClosePair> = found.into_iter().flatten().collect();
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

/// Does parts of a work in all cores, and returns what each returned, in their order.
fn in_parts<T: Send>(parts: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(parts.max(1)));
    let mut done: Vec<(usize, T)> = std::thread::scope(|scope| {
        let run = || {
            let mut done = Vec::new();
            loop {
                let part = next.fetch_add(1, Ordering::Relaxed);
                if part >= parts {
                    return done;
                }
                done.push((part, work(part)));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let results = workers.into_iter().map(|worker| worker.join());
        results.flat_map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    done.sort_unstable_by_key(|(part, _)| *part);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The distances from `from` to all `to`, in squared steps. On processors that have wider instructions, with these.
fn distances(from: &Point, to: &[Point], found: &mut Vec<i32>) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn wide(from: &Point, to: &[Point], found: &mut Vec<i32>) {
            found.extend(to.iter().map(|to| squared_distance(from, to)));
        }
        found.clear();
        // SAFETY: the processor has AVX2.
        unsafe { wide(from, to, found) };
        return;
    }
    found.clear();
    found.extend(to.iter().map(|to| squared_distance(from, to)));
}

/// The nearest of `centres`, at most `most`, the nearest first; of two that are as near, the first.
fn nearest(point: &Point, centres: &[Point], most: usize, scratch: &mut Vec<i32>) -> Vec<u16> {
    distances(point, centres, scratch);
    let mut nearest = Nearest::new(most, i32::MAX);
    scratch.iter().enumerate().for_each(|(centre, distance)| nearest.add(*distance, centre as u32));
    nearest.kept.into_iter().map(|(_, centre)| centre as u16).collect()
}

/// The nearest points of one, the nearest first.
struct Nearest {
    most: usize,
    /// Further points are not added.
    limit: i32,
    kept: Vec<(i32, u32)>,
}

impl Nearest {
    fn new(most: usize, limit: i32) -> Self {
        Self { most, limit, kept: Vec::new() }
    }

    #[inline]
    fn add(&mut self, distance: i32, place: u32) {
        if distance > self.limit {
            return;
        }
        let at = self.kept.partition_point(|kept| *kept < (distance, place));
        if at >= self.most {
            return;
        }
        self.kept.insert(at, (distance, place));
        self.kept.truncate(self.most);
        if let Some((furthest, _)) = self.kept.get(self.most - 1) {
            self.limit = *furthest;
        }
    }
}

impl Lists {
    fn new(points: &[Point]) -> Self {
        let wanted = if points.len() <= EXACT { 1 } else { (2.0 * (points.len() as f64).sqrt()) as usize };
        let centres = centres(points, wanted.min(usize::from(u16::MAX)));
        let probes_of_point = PROBES.min(centres.len()).max(1);
        let probes = in_parts(points.len().div_ceil(PART), |part| {
            let mut scratch = Vec::new();
            let of_part = points[part * PART..].iter().take(PART);
            match centres.len() {
                0 | 1 => of_part.map(|_| 0).collect(),
                _ => of_part
                    .flat_map(|point| nearest(point, &centres, probes_of_point, &mut scratch))
                    .collect::<Vec<_>>(),
            }
        });
        let probes: Vec<u16> = probes.concat();
        let own = |place: usize| usize::from(probes[place * probes_of_point]);
        let mut starts = vec![0; centres.len().max(1) + 1];
        (0..points.len()).for_each(|place| starts[own(place) + 1] += 1);
        (1..starts.len()).for_each(|list| starts[list] += starts[list - 1]);
        let (mut next, mut places) = (starts.clone(), vec![0; points.len()]);
        for place in 0..points.len() {
            let at = &mut next[own(place)];
            places[*at] = place as u32;
            *at += 1;
        }
        Self { places, starts, probes, probes_of_point }
    }

    fn list(&self, list: usize) -> &[u32] {
        &self.places[self.starts[list]..self.starts[list + 1]]
    }

    /// The pairs of the points of a list with their nearest ones.
    fn search(&self, points: &[Point], list: usize, limit: i32) -> Vec<ClosePair> {
        let own = self.list(list);
        let mut found: Vec<Nearest> = own.iter().map(|_| Nearest::new(NEIGHBOURS, limit)).collect();
        // The points that look into each other list: the points of this one are copied only once for all of them.
        let mut looks: Vec<(u16, u32)> = Vec::with_capacity(own.len() * self.probes_of_point);
        for (at, place) in own.iter().enumerate() {
            let first = *place as usize * self.probes_of_point;
            looks.extend(self.probes[first..first + self.probes_of_point].iter().map(|probe| (*probe, at as u32)));
        }
        looks.sort_unstable();
        let (mut scratch, mut others) = (Vec::new(), Vec::new());
        for looks in looks.chunk_by(|a, b| a.0 == b.0) {
            let places = self.list(usize::from(looks[0].0));
            others.clear();
            others.extend(places.iter().map(|place| points[*place as usize]));
            for (_, at) in looks {
                let (place, found) = (own[*at as usize], &mut found[*at as usize]);
                for window in windows(places.len(), place as usize) {
                    distances(&points[place as usize], &others[window.clone()], &mut scratch);
                    for (distance, other) in scratch.iter().zip(&places[window]) {
                        if *distance <= found.limit && *other != place {
                            found.add(*distance, *other);
                        }
                    }
                }
            }
        }
        let pairs = own.iter().zip(found).flat_map(|(place, found)| {
            found.kept.into_iter().map(move |(squared_distance, other)| ClosePair {
                squared_distance,
                first: other.min(*place),
                second: other.max(*place),
            })
        });
        pairs.collect()
    }
}

/// The parts of a list of `length` points that a point is compared with: all, or [`MOST_COMPARED`] of them, which are
/// others for other points.
fn windows(length: usize, place: usize) -> [Range<usize>; 2] {
    if length <= MOST_COMPARED {
        return [0..length, 0..0];
    }
    let start = place % length;
    let end = start + MOST_COMPARED;
    [start..end.min(length), 0..end.saturating_sub(length)]
}

/// The centres of at most `wanted` lists.
fn centres(points: &[Point], wanted: usize) -> Vec<Point> {
    if wanted <= 1 {
        return points.first().copied().into_iter().collect();
    }
    let sample: Vec<Point> = spread(points, wanted * SAMPLE).collect();
    let mut centres: Vec<Point> = spread(&sample, wanted).collect();
    for _ in 0..ROUNDS {
        let own = in_parts(sample.len().div_ceil(PART), |part| {
            let mut scratch = Vec::new();
            let of_part = sample[part * PART..].iter().take(PART);
            of_part.flat_map(|point| nearest(point, &centres, 1, &mut scratch)).collect::<Vec<u16>>()
        });
        let (mut sums, mut counts) = (vec![[0i32; DIMENSIONS]; centres.len()], vec![0u32; centres.len()]);
        for (centre, point) in own.concat().into_iter().zip(&sample) {
            counts[usize::from(centre)] += 1;
            sums[usize::from(centre)].iter_mut().zip(point).for_each(|(sum, value)| *sum += i32::from(*value));
        }
        for (centre, (sum, count)) in centres.iter_mut().zip(sums.iter().zip(counts)) {
            if count > 0 {
                *centre = mean(sum, count);
            }
        }
    }
    centres
}

/// At most `most` of the points, evenly over all. They come in the order of hashes, so this is a random sample.
fn spread(points: &[Point], most: usize) -> impl Iterator<Item = Point> + '_ {
    let count = most.min(points.len());
    (0..count).map(move |at| points[at * points.len() / count])
}
