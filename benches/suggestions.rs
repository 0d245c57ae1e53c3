//! Whether the suggested order saves verdicts, whether wrong verdicts are found, and whether P(OK), the threshold, the
//! slider of the page *Border* and the stop rule say what is true: simulated on labelled crops.
//!
//! `FACEMILL_BENCH_CROPS=CROPS cargo bench --bench suggestions`, where CROPS is a folder of `facemill synthetic`
//! (models/synthetic/README.md) or another one with `labels.jsonl`. The person of the simulation judges as the labels
//! say, but for a share of verdicts that are wrong (`FACEMILL_BENCH_NOISE`, 0.03). `FACEMILL_BENCH_SEEDS`: 20.
//! `FACEMILL_BENCH_PARTS="wrong saved"`: only these of `orders`, `wrong`, `saved` and `probabilities`.
//!
//! All heads are measured on the people of the test side, whom no simulated person judges.

use std::collections::BTreeSet;
use std::sync::Arc;

use facemill::classifier::coarse::coarse;
use facemill::classifier::feature_store::FeatureStore;
use facemill::dataset::interval::EstimatedShare;
use facemill::dataset::ok_left::{GOAL, OkLeft};
use facemill::inference::Models;
use facemill::services::training::Trainer;
use facemill::training::example::{Example, Side, TrainingSet};
use facemill::training::importance;
use facemill::training::labels;
use facemill::training::learner::{LearnSettings, Learned, learn};
use facemill::training::measure::{Scored, best_threshold};
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
/// After so many verdicts in the suggested order, a person judges best first, and trains again after each hundred.
const TAUGHT: usize = 200;
const BETWEEN_TRAININGS: usize = 100;
/// The precision that the threshold is chosen for.
const PRECISION: f64 = 0.9;
const CALIBRATION_BINS: usize = 10;
/// Random pictures behind the precision at the slider, and sessions of each seed for each number.
const RANDOM_PICTURES: [usize; 3] = [50, 100, 300];
const SESSIONS: usize = 50;

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
    let chosen = std::env::var("FACEMILL_BENCH_PARTS").ok();
    let is_chosen = |part: &str| chosen.as_ref().is_none_or(|parts| parts.split_whitespace().any(|one| one == part));
    let parts: [(&str, &dyn Fn()); 4] = [
        ("orders", &|| orders(&set, seeds, noise)),
        ("wrong", &|| wrong_verdicts(&set, seeds)),
        ("saved", &|| saved_verdicts(&set, seeds, noise)),
        ("probabilities", &|| probabilities(&set, seeds, noise)),
    ];
    parts.into_iter().filter(|(name, _)| is_chosen(name)).for_each(|(_, part)| part());
}

/// Where the features of these crops point to.
fn directions(set: &TrainingSet, places: &[usize]) -> Directions {
    let features: Vec<Vec<f32>> = places.iter().map(|&i| coarse(set.features(i))).collect();
    Directions::of(&features.iter().map(|row| &row[..]).collect::<Vec<_>>(), 1)
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
    /// The highest P(OK) first.
    Best,
}

/// What was learnt from verdicts.
struct Taught {
    head: Learned,
    /// For a precision of [`PRECISION`].
    threshold: f64,
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
    /// In the order in which they were judged: the crops, and whether each was a random one.
    log: Vec<(usize, bool)>,
}

impl<'a> Session<'a> {
    fn new(set: &'a TrainingSet, pool: &'a [usize], directions: &'a Directions, seed: u64, noise: f64) -> Self {
        let mut random = Random::seeded(seed);
        let said = pool.iter().map(|&i| set.examples()[i].ok ^ (random.unit() < noise)).collect();
        Self { set, pool, directions, random, said, judged: vec![false; pool.len()], log: Vec::new() }
    }

    /// Learns from the verdicts. `in_use`: the head that has chosen crops, if one has.
    fn learned(&self, in_use: Option<&Taught>) -> Option<Taught> {
        let judged: Vec<usize> = (0..self.pool.len()).filter(|&i| self.judged[i]).collect();
        let importance = in_use.map_or(vec![1.0; judged.len()], |head| {
            let all: Vec<f32> = self.pool.iter().map(|&crop| p_ok(self.set, crop, head) as f32).collect();
            importance::weights(&all, &judged.iter().map(|&i| Some(all[i])).collect::<Vec<_>>())
        });
        let verdicts = TrainingSet::new(judged.iter().zip(importance).map(|(&i, importance)| {
            let example = Example { ok: self.said[i], importance, ..self.set.examples()[self.pool[i]].clone() };
            (example, self.set.features(self.pool[i]).to_vec())
        }));
        let places: Vec<usize> = (0..verdicts.examples().len()).collect();
        let head = learn(&verdicts, &places, LearnSettings { seed: 1, threads: 1 }, &|_, _| {}).ok()?;
        let examples = || head.out_of_sample.iter().zip(verdicts.examples());
        let scored: Vec<Scored> = examples().map(|(&p_ok, Example { ok, .. })| Scored { p_ok, ok: *ok }).collect();
        let weights: Vec<f64> = examples().map(|(_, example)| example.importance).collect();
        let threshold = best_threshold(&scored, &weights, PRECISION).unwrap_or(0.5);
        Some(Taught { head, threshold })
    }

    /// Judges crops until so many are judged.
    fn judge_to(&mut self, count: usize, order: Order, head: Option<&Taught>) {
        let mut random: Vec<usize> = (0..self.pool.len()).collect();
        self.random.shuffle(&mut random);
        let p_ok = |i: usize| head.map_or(0.5, |head| p_ok(self.set, self.pool[i], head));
        let distance = |i: usize| (p_ok(i) - 0.5).abs();
        let by = |number: &dyn Fn(usize) -> f64| {
            let mut order: Vec<(f64, usize)> = (0..self.pool.len()).map(|i| (number(i), i)).collect();
            order.sort_by(|a, b| a.0.total_cmp(&b.0));
            order.into_iter().map(|(_, i)| i).collect::<Vec<_>>()
        };
        let in_order: Vec<usize> = match (order, head) {
            (Order::Random, _) | (Order::Uncertain | Order::Best, None) | (Order::Typical, Some(_)) => random.clone(),
            (Order::Uncertain, Some(_)) => by(&distance),
            (Order::Best, Some(_)) => by(&|i| -p_ok(i)),
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
            self.log.push((i, is_random));
            left -= 1;
        }
    }
}

fn p_ok(set: &TrainingSet, crop: usize, head: &Taught) -> f64 {
    head.head.p_ok(set.features(crop), &set.examples()[crop].mirrors)
}

/// The area under the curve of precision over recall on the test side.
fn average_precision(set: &TrainingSet, test: &[usize], head: &Taught) -> f64 {
    let mut scored: Vec<(f64, bool)> = test.iter().map(|&i| (p_ok(set, i, head), set.examples()[i].ok)).collect();
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
    let directions = directions(set, &pool);
    println!("average precision on the test side after so many verdicts:");
    println!("{:<10}{}", "", STEPS.map(|step| format!("{step:>16}")).concat());
    let mut of_order = Vec::new();
    for order in [Order::Random, Order::Uncertain, Order::Typical, Order::Suggested] {
        let areas: Vec<Vec<f64>> = in_parallel(seeds, &|seed| {
            let mut session = Session::new(set, &pool, &directions, seed, noise);
            let mut head = None;
            let step = |&step: &usize| {
                session.judge_to(step, order, head.as_ref());
                head = session.learned(head.as_ref().filter(|_| order != Order::Random));
                // Without OK or without NG verdicts there is nothing to learn: the share of OK is the area of a guess.
                let guess = test.iter().filter(|&&i| set.examples()[i].ok).count() as f64 / test.len() as f64;
                head.as_ref().map_or(guess, |head| average_precision(set, &test, head))
            };
            STEPS.iter().map(step).collect()
        });
        let cell = |step: usize| shown(&areas.iter().map(|of_seed| of_seed[step]).collect::<Vec<_>>());
        println!("{:<10}{}", format!("{order:?}"), (0..STEPS.len()).map(cell).collect::<String>());
        of_order.push(areas);
    }
    println!("suggested with half of the verdicts, less random with all:");
    for (step, half) in STEPS
        .iter()
        .enumerate()
        .filter_map(|(i, step)| STEPS.iter().position(|other| 2 * other == *step).map(|half| (i, half)))
    {
        let [random, suggested] = [&of_order[0], &of_order[3]];
        let gains: Vec<f64> = random.iter().zip(suggested).map(|(all, part)| part[half] - all[step]).collect();
        println!("{:>5} of {:>3}{}", STEPS[half], STEPS[step], shown(&gains));
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

/// Prints how many verdicts a person saves who stops at 95 % of the OK crops, in truth and by the stop rule.
fn saved_verdicts(set: &TrainingSet, seeds: u64, noise: f64) {
    let pool = set.side(Side::Training);
    let directions = directions(set, &pool);
    let ok = pool.iter().filter(|&&i| set.examples()[i].ok).count() as f64;
    let all = pool.len() as f64;
    let found: Vec<[f64; 3]> = in_parallel(seeds, &|seed| {
        let mut session = Session::new(set, &pool, &directions, 2000 + seed, noise);
        let mut head = None;
        let mut at_stop = None;
        while at_stop.is_none() && session.log.len() < pool.len() {
            let judged = session.log.len();
            let order = if judged < TAUGHT { Order::Suggested } else { Order::Best };
            session.judge_to(judged + BETWEEN_TRAININGS, order, head.as_ref());
            head = session.learned(head.as_ref());
            if session.log.len() > TAUGHT && head.as_ref().is_some_and(|head| is_complete(&session, head)) {
                at_stop = Some(session.log.len());
            }
        }
        let seen =
            |count: usize| session.log[..count].iter().filter(|(i, _)| set.examples()[pool[*i]].ok).count() as f64 / ok;
        let at_stop = at_stop.unwrap_or(session.log.len());
        // A person who went on after the stop would need no more than all.
        let at_goal = (1..=session.log.len()).find(|&count| seen(count) >= GOAL).unwrap_or(pool.len());
        [1.0 - at_goal as f64 / all, 1.0 - at_stop as f64 / all, seen(at_stop)]
    });
    let cell = |at: usize| shown(&found.iter().map(|of_seed| of_seed[at]).collect::<Vec<_>>());
    println!("best first after {TAUGHT} suggested verdicts, {ok} OK among {all} crops:");
    println!("share of the verdicts that is saved when 95 % of the OK crops are seen:{}", cell(0));
    println!("share that is saved when the stop rule says so:{}", cell(1));
    println!("share of the OK crops that is seen then:{}", cell(2));
}

/// The stop rule, as the page and `facemill suggest` have it.
fn is_complete(session: &Session, head: &Taught) -> bool {
    let p_ok = |i: usize| Some(p_ok(session.set, session.pool[i], head) as f32);
    let (random, judged): (Vec<_>, Vec<_>) = session.log.iter().partition(|(_, is_random)| *is_random);
    let random: Vec<_> = random.iter().map(|&&(i, _)| (p_ok(i), session.said[i])).collect();
    let judged: Vec<_> = judged.iter().map(|&&(i, _)| p_ok(i)).collect();
    let unjudged: Vec<_> = (0..session.pool.len()).filter(|&i| !session.judged[i]).map(p_ok).collect();
    let found = session.log.iter().filter(|(i, _)| session.said[*i]).count();
    OkLeft::of(&random, &unjudged, &judged, found as u64).is_complete
}

/// Prints the calibration error on unseen people, and how often the interval at the slider has the true precision.
fn probabilities(set: &TrainingSet, seeds: u64, noise: f64) {
    let (pool, test) = (set.side(Side::Training), set.side(Side::Test));
    let directions = directions(set, &pool);
    let most = STEPS[STEPS.len() - 1];
    for (order, count) in [(Order::Random, most), (Order::Suggested, most), (Order::Random, pool.len())] {
        let found: Vec<[f64; 7]> = in_parallel(seeds, &|seed| {
            let mut session = Session::new(set, &pool, &directions, 3000 + seed, noise);
            let mut head = None;
            for judged in (0..count).step_by(BETWEEN_TRAININGS) {
                session.judge_to((judged + BETWEEN_TRAININGS).min(count), order, head.as_ref());
                if order == Order::Suggested || judged + BETWEEN_TRAININGS >= count {
                    head = session.learned(head.as_ref().filter(|_| order != Order::Random));
                }
            }
            let head = head.expect("enough verdicts");
            let random = &mut session.random;
            // What this person would say about people whom no verdict was about.
            let said: Vec<(f64, bool)> =
                test.iter().map(|&i| (p_ok(set, i, &head), set.examples()[i].ok ^ (random.unit() < noise))).collect();
            let drawn: Vec<(f64, bool)> = said.iter().map(|&(p_ok, _)| (p_ok, random.unit() < p_ok)).collect();
            let covered = RANDOM_PICTURES.map(|pictures| coverage(&said, pictures, random));
            let predicted = || test.iter().filter(|&&i| p_ok(set, i, &head) >= head.threshold);
            let [right, all] =
                [predicted().filter(|&&i| set.examples()[i].ok).count(), predicted().count()].map(|n| n as f64);
            let [precision, recall] =
                [right / all, right / test.iter().filter(|&&i| set.examples()[i].ok).count() as f64];
            let errors = [calibration_error(&said), calibration_error(&drawn)];
            [errors[0], errors[1], covered[0], covered[1], covered[2], precision, recall]
        });
        let cell = |at: usize| shown(&found.iter().map(|of_seed| of_seed[at]).collect::<Vec<_>>());
        println!("{order:?}, {count} verdicts: calibration error{}", cell(0));
        println!("  as large for verdicts that are drawn from P(OK):{}", cell(1));
        println!("  precision in truth at the threshold for {PRECISION}:{}", cell(5));
        println!("  recall there:{}", cell(6));
        for (at, pictures) in RANDOM_PICTURES.iter().enumerate() {
            println!("  the interval at the slider, of {pictures} random pictures, has the precision:{}", cell(2 + at));
        }
    }
}

/// The mean distance of P(OK) from the share of OK, in bins of P(OK), by their crops.
fn calibration_error(crops: &[(f64, bool)]) -> f64 {
    let mut bins = [0.0; CALIBRATION_BINS];
    for (p_ok, ok) in crops {
        let bin = (p_ok * CALIBRATION_BINS as f64) as usize;
        bins[bin.min(CALIBRATION_BINS - 1)] += p_ok - f64::from(u8::from(*ok));
    }
    bins.iter().map(|sum| sum.abs()).sum::<f64>() / crops.len() as f64
}

/// How often the interval has the precision above the slider, in a run so large that it is not used up. The slider is
/// where 2 % to 60 % of the faces are above it; sessions without a random picture there show no interval.
fn coverage(run: &[(f64, bool)], pictures: usize, random: &mut Random) -> f64 {
    let mut sorted: Vec<f64> = run.iter().map(|(p_ok, _)| *p_ok).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let (mut covered, mut shown) = (0.0, 0.0);
    while shown < SESSIONS as f64 {
        let slider = sorted[((0.02 + 0.58 * random.unit()) * sorted.len() as f64) as usize];
        let precision = |crops: &[(f64, bool)]| {
            let above: Vec<bool> = crops.iter().filter(|(p_ok, _)| *p_ok >= slider).map(|(_, ok)| *ok).collect();
            (above.iter().filter(|ok| **ok).count() as u64, above.len() as u64)
        };
        let sample: Vec<_> = (0..pictures).map(|_| run[(random.unit() * run.len() as f64) as usize]).collect();
        let ((ok, above), (of_sample, trials)) = (precision(run), precision(&sample));
        let Some(interval) = EstimatedShare::of(of_sample, trials) else { continue };
        let truth = ok as f64 / above as f64;
        covered += f64::from(u8::from((interval.low..=interval.high).contains(&truth)));
        shown += 1.0;
    }
    covered / shown
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
