//! The grouping of faces by their embeddings: `cargo bench --bench identities`.
//!
//! FACEMILL_BENCH_CROPS: how many, a million without it. The embeddings are made up: people have 1 to 400 faces, most of
//! them few; the distances of two people are spread as in photographs (mean 0.84, standard deviation 0.09), and so is
//! the mean distance of two faces of one person (0.36); see docs/decisions/8-identities.md.

use std::time::Instant;

use facemill::similarity::identities::{DISTANCE, identities};
use facemill::similarity::points::{Point, point};
use facemill::training::random::Random;
use facemill::vision::embedding::DIMENSIONS;

/// How much less the next direction counts.
const DECAY: f32 = 0.977;

fn main() {
    let count = std::env::var("FACEMILL_BENCH_CROPS").map_or(1_000_000, |text| text.parse().expect("a number"));
    let mut random = Random::seeded(1);
    let weights: Vec<f32> = (0..DIMENSIONS).map(|at| DECAY.powi(at as i32)).collect();
    let all: f32 = weights.iter().map(|weight| weight * weight).sum();
    let mut vector = |length: f32| -> Vec<f32> {
        weights.iter().map(|weight| random.normal() as f32 * weight * length / all.sqrt()).collect()
    };
    let (mut faces, mut person): (Vec<(Point, u32)>, u32) = (Vec::with_capacity(count), 0);
    while faces.len() < count {
        let mean = vector(0.54);
        // One person in a thousand has 400 faces, one in two has one.
        let share = (f64::from(person % 1000) + 1.0) / 1000.0;
        for _ in 0..((0.4 / share) as usize + 1).min(count - faces.len()) {
            let noise = vector(0.255);
            let embedding: Vec<f32> = mean.iter().zip(noise).map(|(mean, noise)| mean + noise).collect();
            faces.push((point(&embedding).expect("128 numbers"), person));
        }
        person += 1;
    }
    // In the order of hashes.
    random.shuffle(&mut faces);
    let points: Vec<Point> = faces.iter().map(|(point, _)| *point).collect();
    let before = peak();
    let began = Instant::now();
    let groups = identities(&points, DISTANCE, &|_| {});
    let took = began.elapsed().as_secs_f64();
    println!(
        "{count} faces of {person} people: {} identities, the largest of {}, in {took:.1} s on all cores, with {} MB",
        groups.len(),
        groups.first().map_or(0, Vec::len),
        (peak() - before + points.len() as u64 * size_of::<Point>() as u64) >> 20
    );
    let (mut pairs, mut right) = (0, 0);
    for group in &groups {
        let mut people: Vec<u32> = group.iter().map(|face| faces[*face as usize].1).collect();
        people.sort_unstable();
        pairs += of(group.len());
        right += people.chunk_by(|a, b| a == b).map(|same| of(same.len())).sum::<u64>();
    }
    let mut people: Vec<u32> = faces.iter().map(|(_, person)| *person).collect();
    people.sort_unstable();
    let wanted: u64 = people.chunk_by(|a, b| a == b).map(|same| of(same.len())).sum();
    println!("pairs: precision {:.5}, recall {:.3}", right as f64 / pairs as f64, right as f64 / wanted as f64);
    assert!(right as f64 >= 0.99 * pairs as f64, "people are mixed");
}

/// Pairs among so many.
fn of(count: usize) -> u64 {
    let count = count as u64;
    count * (count - 1) / 2
}

/// The most memory that the process had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) << 10
}
