//! All pairs of fingerprints within a distance, without comparing all pairs (Norouzi, Punjani, Fleet: Fast Search in
//! Hamming Space with Multi-Index Hashing, CVPR 2012).
//!
//! A fingerprint has [`CHUNKS`] chunks of [`CHUNK_BITS`] bits. Two fingerprints that differ by at most [`MAX_DISTANCE`]
//! bits have a chunk in which they differ by at most one bit, since 8 chunks with two bits each would be 16. So
//! fingerprints are sorted by one chunk after the other, and only those of the same bucket, and of the 16 buckets that
//! differ by one bit, are compared. A million fingerprints that look random share a bucket with 15 others. Of a bucket
//! that many similar crops flood, [`MOST_COMPARED`] are compared with each: pairs can be missed there.
//!
//! Memory: 20 bytes for each fingerprint and orientation in each thread, and the pairs found: a thread keeps at most
//! [`PAIRS_OF_ITEM`] for each item.

use std::ops::Range;

use facemill_domain::Fingerprint;

/// The largest distance of a pair that is found.
pub const MAX_DISTANCE: u32 = 2 * CHUNKS - 1;
const _: () = assert!(MAX_DISTANCE == Fingerprint::MAX_DISTANCE);
const CHUNKS: u32 = Fingerprint::BITS / CHUNK_BITS;
const CHUNK_BITS: u32 = 16;
const BUCKETS: usize = 1 << CHUNK_BITS;
/// A pair of two items that have so many pairs already is left out: these connect them with the others.
pub const PAIRS_OF_ITEM: u8 = 16;
/// Items of another bucket that one is compared with at most, so that a bucket that is flooded does not take for ever.
const MOST_COMPARED: usize = 2000;

/// A fingerprint, and that of the mirrored crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    pub upright: Fingerprint,
    pub mirrored: Fingerprint,
}

/// Two items that are close to each other, by their places, the smaller place first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    pub distance: u32,
    pub first: u32,
    pub second: u32,
    /// Whether one is close to the mirrored other one.
    pub is_mirrored: bool,
}

/// What a search goes through, for the numbers of a progress bar.
pub const STEPS: u64 = 2 * CHUNKS as u64;

/// All pairs of items within a distance of at most [`MAX_DISTANCE`], the closest first. Of several items with the same
/// fingerprints, the first stands for all in pairs with others: each of them is a pair with it, at distance 0.
/// `progress` is called after each of the [`STEPS`].
pub fn close_pairs(items: &[Item], max_distance: u32, progress: &(dyn Fn() + Sync)) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let distinct = distinct(items, &mut pairs);
    let steps = (0..CHUNKS).flat_map(|chunk| [(chunk, false), (chunk, true)]).collect::<Vec<_>>();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(steps.len()));
    let found = std::thread::scope(|scope| {
        let work = || {
            let mut found = Found::new(items.len());
            while let Some((chunk, is_mirrored)) = steps.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                search(items, &distinct, *chunk, *is_mirrored, max_distance.min(MAX_DISTANCE), &mut found);
                progress();
            }
            found.pairs
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Vec<_>>()
    });
    pairs.extend(found);
    pairs.sort_unstable();
    pairs.dedup_by_key(|pair| (pair.distance, pair.first, pair.second));
    pairs
}

/// The places of the first items with each fingerprint. The others become pairs with them.
fn distinct(items: &[Item], pairs: &mut Vec<Pair>) -> Vec<u32> {
    let mut places: Vec<u32> = (0..items.len() as u32).collect();
    let key = |place: u32| items[place as usize].upright.bits();
    places.sort_unstable_by_key(|place| (key(*place), *place));
    let mut distinct: Vec<u32> = Vec::new();
    for place in places {
        match distinct.last() {
            Some(&first) if key(first) == key(place) => {
                pairs.push(Pair { distance: 0, first, second: place, is_mirrored: false });
            }
            _ => distinct.push(place),
        }
    }
    distinct
}

/// Pairs that a thread has found.
struct Found {
    pairs: Vec<Pair>,
    of_item: Vec<u8>,
}

impl Found {
    fn new(items: usize) -> Self {
        Self { pairs: Vec::new(), of_item: vec![0; items] }
    }

    fn add(&mut self, (a, b): (u32, u32), distance: u32, is_mirrored: bool) {
        let (first, second) = (a.min(b), a.max(b));
        let counts = [first, second].map(|place| self.of_item[place as usize]);
        if counts.iter().any(|count| *count < PAIRS_OF_ITEM) {
            for (place, count) in [first, second].into_iter().zip(counts) {
                self.of_item[place as usize] = count.saturating_add(1);
            }
            self.pairs.push(Pair { distance, first, second, is_mirrored });
        }
    }
}

/// Fingerprints sorted by one chunk.
struct Table {
    /// Where the fingerprints of each value of the chunk begin, and the end.
    starts: Vec<u32>,
    fingerprints: Vec<u128>,
    places: Vec<u32>,
}

impl Table {
    fn new(fingerprints: impl Iterator<Item = (u128, u32)> + Clone, count: usize, chunk: u32) -> Self {
        let mut starts = vec![0; BUCKETS + 1];
        for (bits, _) in fingerprints.clone() {
            starts[value(bits, chunk) + 1] += 1;
        }
        for bucket in 0..BUCKETS {
            starts[bucket + 1] += starts[bucket];
        }
        let mut next = starts.clone();
        let mut table = Self { starts, fingerprints: vec![0; count], places: vec![0; count] };
        for (bits, place) in fingerprints {
            let at = &mut next[value(bits, chunk)];
            (table.fingerprints[*at as usize], table.places[*at as usize]) = (bits, place);
            *at += 1;
        }
        table
    }

    fn bucket(&self, value: usize) -> Range<usize> {
        self.starts[value] as usize..self.starts[value + 1] as usize
    }
}

/// The value of a chunk of a fingerprint.
fn value(bits: u128, chunk: u32) -> usize {
    (bits >> (chunk * CHUNK_BITS)) as usize % BUCKETS
}

fn search(items: &[Item], distinct: &[u32], chunk: u32, is_mirrored: bool, max_distance: u32, found: &mut Found) {
    let upright = |place: &u32| (items[*place as usize].upright.bits(), *place);
    let mirrored = |place: &u32| (items[*place as usize].mirrored.bits(), *place);
    let table = Table::new(distinct.iter().map(upright), distinct.len(), chunk);
    let others = is_mirrored.then(|| Table::new(distinct.iter().map(mirrored), distinct.len(), chunk));
    for bucket in 0..BUCKETS {
        let range = table.bucket(bucket);
        if range.is_empty() {
            continue;
        }
        let flips = std::iter::once(0).chain((0..CHUNK_BITS).map(|bit| 1 << bit));
        for other in flips.map(|flip| bucket ^ flip) {
            for at in range.clone() {
                let (bits, place) = (table.fingerprints[at], table.places[at]);
                let (compared, candidates) = match &others {
                    Some(others) => (others, others.bucket(other)),
                    // Each pair of upright fingerprints is compared once.
                    None if other < bucket => continue,
                    None if other == bucket => (&table, at + 1..range.end),
                    None => (&table, table.bucket(other)),
                };
                let candidates = candidates.start..candidates.end.min(candidates.start + MOST_COMPARED);
                let close = compared.fingerprints[candidates.clone()].iter().zip(&compared.places[candidates]);
                for (candidate, candidate_place) in close {
                    let distance = (bits ^ candidate).count_ones();
                    // A mirrored pair is seen from both sides; a symmetrical face is no pair with itself.
                    if distance <= max_distance && !(is_mirrored && place >= *candidate_place) {
                        found.add((place, *candidate_place), distance, is_mirrored);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Numbers that look random (SplitMix64).
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        fn bits(&mut self) -> u128 {
            u128::from(self.next()) << 64 | u128::from(self.next())
        }

        fn flipped(&mut self, mut bits: u128, count: u32) -> u128 {
            let wanted = bits;
            while (bits ^ wanted).count_ones() < count {
                bits ^= 1 << (self.next() % 128);
            }
            bits
        }
    }

    /// The mirrored fingerprint is another function of the upright one than in crops; the search does not care.
    const MIRROR: u128 = 0xaaaa_5555_aaaa_5555_aaaa_5555_aaaa_5555;

    fn item(bits: u128) -> Item {
        let of = Fingerprint::from_bits;
        Item { upright: of(bits), mirrored: of(bits ^ MIRROR) }
    }

    #[test]
    fn the_search_finds_what_comparing_all_pairs_finds() {
        let mut random = Random(7);
        let mut items: Vec<Item> = (0..3000).map(|_| item(random.bits())).collect();
        for place in 0..400u32 {
            let bits = items[place as usize].upright.bits() ^ if place % 3 == 0 { MIRROR } else { 0 };
            let copy = random.flipped(bits, place % 20);
            items.push(item(copy));
        }
        let found: HashSet<(u32, u32)> =
            close_pairs(&items, MAX_DISTANCE, &|| ()).into_iter().map(|pair| (pair.first, pair.second)).collect();
        let mut expected = HashSet::new();
        for first in 0..items.len() {
            for second in first + 1..items.len() {
                let (a, b) = (items[first], items[second]);
                if a.upright.distance(b.upright).min(a.upright.distance(b.mirrored)) <= MAX_DISTANCE {
                    expected.insert((first as u32, second as u32));
                }
            }
        }
        assert_eq!(expected.len(), 320, "copies with 0 to 15 bits of 20");
        assert_eq!(found, expected);
    }

    #[test]
    fn pairs_come_closest_first_and_say_what_is_mirrored() {
        let mut random = Random(3);
        let bits = random.bits();
        let items = [item(bits), item(random.flipped(bits, 5)), item(bits ^ MIRROR ^ 1), item(random.bits())];
        let steps = std::sync::atomic::AtomicU64::new(0);
        let pairs = close_pairs(&items, 9, &|| {
            let _ = steps.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(steps.into_inner(), STEPS);
        assert_eq!(pairs[0], Pair { distance: 1, first: 0, second: 2, is_mirrored: true });
        assert!(pairs.contains(&Pair { distance: 5, first: 0, second: 1, is_mirrored: false }), "{pairs:?}");
        assert!(pairs.iter().all(|pair| pair.second < 3), "{pairs:?}");
        assert_eq!(close_pairs(&items[..2], 4, &|| ()), []);
        assert_eq!(close_pairs(&[], 9, &|| ()), []);
    }

    #[test]
    fn a_flood_of_equal_or_close_fingerprints_gives_few_pairs_of_each() {
        let mut random = Random(5);
        let bits = random.bits();
        let equal: Vec<Item> = (0..20_000).map(|_| item(bits)).collect();
        let pairs = close_pairs(&equal, MAX_DISTANCE, &|| ());
        assert_eq!(pairs.len(), 19_999);
        assert!(pairs.iter().all(|pair| pair.first == 0));
        let close: Vec<Item> = (0..3000)
            .map(|_| {
                let count = (random.next() % 5) as u32;
                item(random.flipped(bits, count))
            })
            .collect();
        let pairs = close_pairs(&close, MAX_DISTANCE, &|| ());
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
        assert!(pairs.len() <= close.len() * (1 + threads * usize::from(PAIRS_OF_ITEM)), "{}", pairs.len());
    }
}
