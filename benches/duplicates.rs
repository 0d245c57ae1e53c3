//! The search for close pairs among the fingerprints of a run: `cargo bench --bench duplicates`.
//!
//! FACEMILL_BENCH_CROPS: how many fingerprints, a million without it. They look random; one in ten is a copy of another
//! one, mirrored or not, with up to 15 bits changed.

use std::time::Instant;

use facemill::domain::Fingerprint;
use facemill::similarity::multi_index::{Item, MAX_DISTANCE, close_pairs};
use facemill::training::random::Random;
use facemill::vision::fingerprint::mirrored;

fn main() {
    let count = std::env::var("FACEMILL_BENCH_CROPS").map_or(1_000_000, |text| text.parse().expect("a number"));
    let mut random = Random::seeded(1);
    let mut items: Vec<Item> = Vec::with_capacity(count);
    for at in 0..count {
        let bits = match at % 20 {
            9 | 19 => {
                let original = items[random.bits() as usize % at];
                let of = if at % 20 == 9 { original.upright } else { original.mirrored };
                (0..MAX_DISTANCE).fold(of.bits(), |bits, _| bits ^ 1 << (random.bits() % u64::from(Fingerprint::BITS)))
            }
            _ => u128::from(random.bits()) << 64 | u128::from(random.bits()),
        };
        let upright = Fingerprint::from_bits(bits);
        items.push(Item { upright, mirrored: mirrored(upright) });
    }
    let copies = count / 10;
    let began = Instant::now();
    let pairs = close_pairs(&items, MAX_DISTANCE, &|| {});
    let took = began.elapsed().as_secs_f64();
    println!("{count} fingerprints, {copies} copies: {} close pairs in {took:.1} s on all cores", pairs.len());
    assert!(pairs.len() >= copies, "a copy is within the distance and was not found");
}
