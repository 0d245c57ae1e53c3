//! Whether the suggested order saves verdicts, and whether wrong verdicts are found: simulated on labelled crops.
//!
//! `FACEMILL_BENCH_CROPS=CROPS cargo bench --bench suggestions`, where CROPS is a folder of `facemill synthetic`
//! (models/synthetic/README.md) or another one with `labels.jsonl`. The person of the simulation judges as the labels
//! say, but for a share of verdicts that are wrong (`FACEMILL_BENCH_NOISE`, 0.03). `FACEMILL_BENCH_SEEDS`: 20.
//!
//! All heads are measured on the people of the test side, whom no simulated person judges.

use std::collections::BTreeSet;
use std::sync::Arc;

use facemill::classifier::feature_store::FeatureStore;
use facemill::config::Models;
use facemill::services::training::Trainer;
use facemill::training::example::{Example, Side, TrainingSet};
use facemill::training::labels;
use facemill::training::learner::{LearnSettings, Learned, learn};
use facemill::training::random::Random;
use facemill::training::suggestion::{Directions, typical_first, uncertain_first};
use facemill::training::suspicion::suspicious;
use facemill::training::train::TrainingSettings;

/// Verdicts after which the head is trained and measured.
const STEPS: [usize; 8] = [50, 100, 150, 200, 300, 400, 600, 800];
/// Of the verdicts in the suggested order, so many in a hundred are random.
const RANDOM: f64 = 0.1;
const WRONG: f64 = 0.05;
/// Suspicious verdicts that a person looks at first.
const FIRST: usize = 50;

fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(name: &str, default: T) -> T {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn main() {
    let Some(set) = crops() else {
        println!("FACEMILL_BENCH_CROPS is not set: no crops to simulate on");
        return;
    };
    let (seeds, noise) = (number("FACEMILL_BENCH_SEEDS", 20u64), number("FACEMILL_BENCH_NOISE", 0.03f64));
    let ok = set.examples().iter().filter(|example| example.ok).count();
    let [training, test] = [Side::Training, Side::Test].map(|side| set.side(side).len());
    println!("{} crops, {ok} of them OK; {training} to judge, {test} to measure on; {seeds} seeds", training + test);
    println!("share of verdicts that are wrong: {noise}");
    orders(&set, seeds, noise);
    wrong_verdicts(&set, seeds);
}

/// The crops of a folder, with their features.
fn crops() -> Option<TrainingSet> {
    let labels = labels::read(std::env::var_os("FACEMILL_BENCH_CROPS")?.as_ref()).expect("labelled crops");
    let file = std::env::temp_dir().join("facemill-bench-features.sqlite");
    let features = FeatureStore::open(&file, FeatureStore::MOST_BYTES).expect("a store of features");
    let settings = TrainingSettings { seed: 1, precision: 0.9, threads: threads(), created_from: String::new() };
    let models = Models::find(std::env::var_os(Models::ENV).map(Into::into));
    let mut trainer = Trainer::open(&models, features, settings, Arc::new(|_| ())).expect("models");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    Some(runtime.block_on(trainer.from_files(&labels)).expect("features"))
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Order {
    Random,
    /// The most uncertain first, copies or not, after a random start.
    Uncertain,
    /// Typical first, then at random.
    Typical,
    /// As `facemill suggest` does.
    Suggested,
}

/// A simulated person who judges crops in an order.
struct Session<'a> {
    set: &'a TrainingSet,
    /// The crops to judge, by their places in the set, and where their features point to.
    pool: &'a [usize],
    directions: &'a Directions,
    random: Random,
    /// What the person says about each crop of the pool.
    said: Vec<bool>,
    judged: Vec<bool>,
}

impl<'a> Session<'a> {
    fn new(set: &'a TrainingSet, pool: &'a [usize], directions: &'a Directions, seed: u64, noise: f64) -> Self {
        let mut random = Random::seeded(seed);
        let said = pool.iter().map(|&i| set.examples()[i].ok ^ (random.unit() < noise)).collect();
        Self { set, pool, directions, random, said, judged: vec![false; pool.len()] }
    }

    fn learned(&self) -> Option<Learned> {
        let judged = (0..self.pool.len()).filter(|&i| self.judged[i]);
        let verdicts = TrainingSet::new(judged.map(|i| {
            let example = Example { ok: self.said[i], ..self.set.examples()[self.pool[i]].clone() };
            (example, self.set.features(self.pool[i]).to_vec())
        }));
        let places: Vec<usize> = (0..verdicts.examples().len()).collect();
        learn(&verdicts, &places, LearnSettings { seed: 1, threads: 1 }, &|_, _| {}).ok()
    }

    /// Judges crops until so many are judged.
    fn judge_to(&mut self, count: usize, order: Order, head: Option<&Learned>) {
        let mut random: Vec<usize> = (0..self.pool.len()).collect();
        self.random.shuffle(&mut random);
        let distance = |i: usize| {
            let example = &self.set.examples()[self.pool[i]];
            head.map_or(0.0, |head| (head.p_ok(self.set.features(self.pool[i]), &example.mirrors) - 0.5).abs())
        };
        let by_distance = || {
            let mut order: Vec<(f64, usize)> = (0..self.pool.len()).map(|i| (distance(i), i)).collect();
            order.sort_by(|a, b| a.0.total_cmp(&b.0));
            order.into_iter().map(|(_, i)| i).collect::<Vec<_>>()
        };
        let in_order: Vec<usize> = match (order, head) {
            (Order::Random, _) | (Order::Uncertain, None) | (Order::Typical, Some(_)) => random.clone(),
            (Order::Uncertain, Some(_)) => by_distance(),
            (Order::Typical | Order::Suggested, None) => typical_first(self.directions, &self.judged),
            (Order::Suggested, Some(_)) => {
                let distance: Vec<f64> =
                    (0..self.pool.len()).map(|i| if self.judged[i] { f64::INFINITY } else { distance(i) }).collect();
                uncertain_first(self.directions, &distance)
            }
        };
        let (mut in_order, mut random) = (in_order.into_iter(), random.into_iter());
        let mut left = count.saturating_sub(self.judged.iter().filter(|judged| **judged).count());
        while left > 0 {
            let is_random = self.random.unit() < RANDOM;
            let next = if is_random { &mut random } else { &mut in_order };
            let judged = &self.judged;
            let Some(i) = next.find(|&i| !judged[i]) else { return };
            self.judged[i] = true;
            left -= 1;
        }
    }
}

/// The area under the curve of precision over recall on the test side.
fn average_precision(set: &TrainingSet, test: &[usize], head: &Learned) -> f64 {
    let mut scored: Vec<(f64, bool)> =
        test.iter().map(|&i| (head.p_ok(set.features(i), &set.examples()[i].mirrors), set.examples()[i].ok)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut ok, mut sum) = (0.0, 0.0);
    for (at, (_, is_ok)) in scored.iter().enumerate() {
        if *is_ok {
            ok += 1.0;
            sum += ok / (at + 1) as f64;
        }
    }
    sum / ok
}

/// Prints the mean average precision of each order after each step, with the 95 % interval of the mean.
fn orders(set: &TrainingSet, seeds: u64, noise: f64) {
    let (pool, test) = (set.side(Side::Training), set.side(Side::Test));
    let directions = Directions::of(&pool.iter().map(|&i| set.features(i)).collect::<Vec<_>>(), 1);
    println!("average precision on the test side after so many verdicts:");
    println!("{:<10}{}", "", STEPS.map(|step| format!("{step:>16}")).concat());
    for order in [Order::Random, Order::Uncertain, Order::Typical, Order::Suggested] {
        let areas: Vec<Vec<f64>> = in_parallel(seeds, &|seed| {
            let mut session = Session::new(set, &pool, &directions, seed, noise);
            let mut head = None;
            let step = |&step: &usize| {
                session.judge_to(step, order, head.as_ref());
                head = session.learned();
                // Without OK or without NG verdicts there is nothing to learn: the share of OK is the area of a guess.
                let guess = test.iter().filter(|&&i| set.examples()[i].ok).count() as f64 / test.len() as f64;
                head.as_ref().map_or(guess, |head| average_precision(set, &test, head))
            };
            STEPS.iter().map(step).collect()
        });
        let cell = |step: usize| shown(&areas.iter().map(|of_seed| of_seed[step]).collect::<Vec<_>>());
        println!("{:<10}{}", format!("{order:?}"), (0..STEPS.len()).map(cell).collect::<String>());
    }
}

/// Plants wrong verdicts, and prints how many of them are found.
fn wrong_verdicts(set: &TrainingSet, seeds: u64) {
    let found: Vec<[f64; 3]> = in_parallel(seeds, &|seed| {
        let mut random = Random::seeded(1000 + seed);
        let count = set.examples().len();
        let mut places: Vec<usize> = (0..count).collect();
        random.shuffle(&mut places);
        let wrong: BTreeSet<usize> = places[..(WRONG * count as f64) as usize].iter().copied().collect();
        let planted = TrainingSet::new((0..count).map(|i| {
            let example = set.examples()[i].clone();
            (Example { ok: example.ok ^ wrong.contains(&i), ..example }, set.features(i).to_vec())
        }));
        let list = suspicious(&planted, LearnSettings { seed, threads: 1 }, &|_, _| {}).expect("enough verdicts");
        let right = |most: usize| list.iter().take(most).filter(|one| wrong.contains(&one.place)).count() as f64;
        let first = list.len().min(FIRST);
        [right(usize::MAX) / wrong.len() as f64, right(FIRST) / first as f64, list.len() as f64 / count as f64]
    });
    let cell = |at: usize| shown(&found.iter().map(|of_seed| of_seed[at]).collect::<Vec<_>>());
    println!("of {:.0} % planted wrong verdicts are suspicious:{}", 100.0 * WRONG, cell(0));
    println!("of the first {FIRST} suspicious ones are wrong:{}", cell(1));
    println!("share of all verdicts that is suspicious:{}", cell(2));
}

/// The mean, and half the width of its 95 % interval.
fn shown(values: &[f64]) -> String {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    format!("  {mean:>7.4} ±{:.4}", 1.96 * (variance / n).sqrt())
}

fn in_parallel<T: Send>(seeds: u64, work: &(dyn Fn(u64) -> T + Sync)) -> Vec<T> {
    let next = std::sync::atomic::AtomicU64::new(1);
    let found = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed > seeds {
                        return;
                    }
                    let one = work(seed);
                    found.lock().expect("no panic").push((seed, one));
                }
            });
        }
    });
    let mut found = found.into_inner().expect("no panic");
    found.sort_by_key(|(seed, _)| *seed);
    found.into_iter().map(|(_, one)| one).collect()
}
