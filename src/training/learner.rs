//! Learns from judged crops: head and calibration, with the regularisation chosen by cross-validation over groups.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::calibration::Calibration;
use super::cells::{Cells, STEPS, Seen};
use super::example::{Example, TrainingSet, folds};
use super::head::{Examples, KEPT, Logistic, Projection, Scale};
use super::joined::Joined;
use super::matrix::Matrix;
use facemill_classifier::coarse::coarse;
use facemill_classifier::model::MIRRORS;

/// With fewer crops the head is a logistic regression.
pub const MIN_CROPS_FOR_CELLS: usize = 1000;
/// Maximum number of crops that the projection is fitted on.
const PROJECTION_CROPS: usize = 4000;
/// Maximum gain of a mirror feature: shares from 0 to 1 are scaled to this range at most.
const MIRROR_GAIN: f64 = 4.0;
const FOLDS: usize = 5;
/// Penalties of the weights, from which cross-validation chooses.
const RIDGES: [f64; 6] = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0];
const DECAYS: [f64; 2] = [1e-1, 5e-1];

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LearnError {
    #[error("{ok} OK and {ng} NG crops of {groups} people are too few to learn from: judge more crops, of more people")]
    TooFew { ok: usize, ng: usize, groups: usize },
}

/// The head. The number of crops decides which one is trained.
#[derive(Debug, Clone)]
pub enum Head {
    Logistic(Linear),
    Cells(Cells),
}

/// A logistic regression behind a projection of the coarse features and a scale.
#[derive(Debug, Clone)]
pub struct Linear {
    pub projection: Projection,
    pub scale: Scale,
    pub head: Logistic,
}

impl Head {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Logistic(_) => "logistic",
            Self::Cells(_) => "cells",
        }
    }

    /// The score: sigmoid(score) is P(OK) before calibration.
    pub fn score(&self, (features, mirrors): Seen<'_>) -> f64 {
        match self {
            Self::Logistic(Linear { projection, scale, head }) => {
                head.score(&scale.apply(&join(projection, features, mirrors)))
            }
            Self::Cells(cells) => cells.score((features, mirrors)),
        }
    }
}

/// Everything after the backbone.
#[derive(Debug, Clone)]
pub struct Learned {
    pub head: Head,
    pub calibration: Calibration,
    /// The penalty that cross-validation chose: the ridge of a logistic regression, the weight decay of the cells.
    pub penalty: f64,
    /// P(OK) of each crop that was learnt from, by a head that has not seen the crop's group.
    pub out_of_sample: Vec<f64>,
}

impl Learned {
    pub fn p_ok(&self, features: &[f32], mirrors: &[f32; MIRRORS]) -> f64 {
        self.calibration.p_ok(self.head.score((features, mirrors)))
    }
}

fn join(projection: &Projection, features: &[f32], mirrors: &[f32; MIRRORS]) -> Vec<f64> {
    let mut row = projection.apply(&coarse(features));
    row.extend(mirrors.iter().map(|&share| f64::from(share)));
    row
}

/// How to learn.
#[derive(Debug, Clone, Copy)]
pub struct LearnSettings {
    /// Of the projection, the folds, the order of the crops and the first weights.
    pub seed: u64,
    pub threads: usize,
}

/// Learns from the crops of `set` at these places. The same crops give the same result, whatever the number of threads.
/// `progress` receives how many of how many fits are done.
///
/// # Errors
/// A class is missing, or all crops of a class are of one group.
pub fn learn(
    set: &TrainingSet,
    places: &[usize],
    settings: LearnSettings,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Learned, LearnError> {
    let examples: Vec<&Example> = places.iter().map(|&i| &set.examples()[i]).collect();
    let folds = parts(&examples, settings.seed)?;
    let seen: Vec<Seen<'_>> = places.iter().map(|&i| (set.features(i), &set.examples()[i].mirrors)).collect();
    let is_logistic = places.len() < MIN_CROPS_FOR_CELLS;
    let penalties: &[f64] = if is_logistic { &RIDGES } else { &DECAYS };
    let projected = is_logistic.then(|| Projected::new(&seen, settings.seed));
    let data = Data { seen, projected, ok: examples.iter().map(|example| example.ok).collect(), seed: settings.seed };

    let jobs: Vec<(usize, usize)> =
        (0..penalties.len()).flat_map(|penalty| (0..folds.len()).map(move |fold| (penalty, fold))).collect();
    let fits = in_parallel(
        jobs.len(),
        settings.threads,
        &|job| {
            let (penalty, fold) = jobs[job];
            data.fit_fold(penalties[penalty], &folds[fold])
        },
        progress,
    );

    let all = Examples::balanced(Matrix::zeros(data.ok.len(), 0), data.ok.clone());
    let mut best: Option<(f64, usize, Vec<f64>)> = None;
    for penalty in 0..penalties.len() {
        let mut scores = vec![0.0; data.ok.len()];
        for (fold, held_out) in folds.iter().enumerate() {
            let fit = &fits[penalty * folds.len() + fold];
            held_out.iter().zip(fit).for_each(|(&i, &score)| scores[i] = score);
        }
        let loss = all.loss(scores.iter().copied());
        if best.as_ref().is_none_or(|(least, ..)| loss < *least) {
            best = Some((loss, penalty, scores));
        }
    }
    let Some((_, chosen, scores)) = best else { return Err(too_few(&examples)) };
    let sum = examples.iter().map(|example| example.importance).sum::<f64>();
    let weights: Vec<f64> = examples.iter().map(|example| example.importance * examples.len() as f64 / sum).collect();
    let calibration = Calibration::fit(&scores, &data.ok, &weights);
    let penalty = penalties[chosen];
    let head = data.fit(penalty, &(0..places.len()).collect::<Vec<_>>());
    let out_of_sample = scores.iter().map(|&score| calibration.p_ok(score)).collect();
    Ok(Learned { head, calibration, penalty, out_of_sample })
}

fn too_few(examples: &[&Example]) -> LearnError {
    let ok = examples.iter().filter(|example| example.ok).count();
    let groups = examples.iter().map(|example| &example.group).collect::<BTreeSet<_>>().len();
    LearnError::TooFew { ok, ng: examples.len() - ok, groups }
}

/// The group of each crop, joined with others where near-duplicates are in both. A joined group has at most a tenth of
/// all crops, so that there are enough for all folds.
fn joined_groups<'a>(examples: &[&'a Example]) -> Vec<&'a str> {
    let count = examples.len();
    let mut joined = Joined::new(count);
    let (mut first, mut first_duplicate) = (HashMap::new(), HashMap::new());
    for (i, example) in examples.iter().enumerate() {
        joined.join(*first.entry(&example.group).or_insert(i), i, count);
    }
    for (i, number) in examples.iter().enumerate().filter_map(|(i, example)| Some((i, example.duplicates?))) {
        joined.join(*first_duplicate.entry(number).or_insert(i), i, count / 10);
    }
    (0..count).map(|i| examples[joined.root(i)].group.as_str()).collect()
}

/// The places of the crops of each fold. Both classes must be there without any one fold.
pub(super) fn parts(examples: &[&Example], seed: u64) -> Result<Vec<Vec<usize>>, LearnError> {
    let groups = joined_groups(examples);
    let by_group: HashMap<&str, usize> = folds(groups.iter().copied(), FOLDS, seed);
    let count = by_group.values().max().map_or(0, |last| last + 1);
    let mut parts = vec![Vec::new(); count];
    for (i, group) in groups.into_iter().enumerate() {
        parts[by_group[group]].push(i);
    }
    let has_both_without = |part: &Vec<usize>| {
        [true, false].into_iter().all(|class| {
            let all = examples.iter().filter(|example| example.ok == class).count();
            all > part.iter().filter(|&&i| examples[i].ok == class).count()
        })
    };
    match count >= 2 && parts.iter().all(has_both_without) {
        true => Ok(parts),
        false => Err(too_few(examples)),
    }
}

/// Projected features with mirror features.
struct Projected {
    projection: Projection,
    rows: Vec<Vec<f64>>,
}

impl Projected {
    /// The projection sees no labels, so that one for all folds gives nothing away.
    fn new(seen: &[Seen<'_>], seed: u64) -> Self {
        let step = seen.len().div_ceil(PROJECTION_CROPS);
        let sample: Vec<Vec<f32>> = seen.iter().step_by(step).map(|(features, _)| coarse(features)).collect();
        let projection = Projection::fit(&sample.iter().map(|row| &row[..]).collect::<Vec<_>>(), seed);
        let rows = seen.iter().map(|(features, mirrors)| join(&projection, features, mirrors)).collect();
        Self { projection, rows }
    }
}

/// What is learnt from.
struct Data<'a> {
    seen: Vec<Seen<'a>>,
    /// For a logistic regression.
    projected: Option<Projected>,
    ok: Vec<bool>,
    seed: u64,
}

impl Data<'_> {
    /// Fits a head without a fold. Returns the scores of the fold.
    fn fit_fold(&self, penalty: f64, held_out: &[usize]) -> Vec<f64> {
        let mut is_held_out = vec![false; self.ok.len()];
        held_out.iter().for_each(|&i| is_held_out[i] = true);
        let rest: Vec<usize> = (0..self.ok.len()).filter(|&i| !is_held_out[i]).collect();
        let head = self.fit(penalty, &rest);
        held_out.iter().map(|&i| head.score(self.seen[i])).collect()
    }

    fn fit(&self, penalty: f64, places: &[usize]) -> Head {
        let ok = places.iter().map(|&i| self.ok[i]).collect();
        if let Some(Projected { projection, rows }) = &self.projected {
            let rows = Matrix::from_rows(&places.iter().map(|&i| &rows[i][..]).collect::<Vec<_>>());
            let scale = Scale::fit(&rows).limited(KEPT, MIRROR_GAIN);
            let head = Logistic::fit(&Examples::balanced(scale.apply_all(&rows), ok), penalty);
            return Head::Logistic(Linear { projection: projection.clone(), scale, head });
        }
        let seen: Vec<Seen<'_>> = places.iter().map(|&i| self.seen[i]).collect();
        let shares: Vec<[f64; MIRRORS]> = seen.iter().map(|(_, mirrors)| mirrors.map(f64::from)).collect();
        let mirrors = Scale::fit(&Matrix::from_rows(&shares)).limited(0, MIRROR_GAIN);
        let examples = Examples::balanced(Matrix::zeros(places.len(), 0), ok);
        Head::Cells(Cells::fit(&seen, &examples, penalty, STEPS, self.seed, mirrors))
    }
}

/// The results of `job` for 0 to `jobs` - 1, in this order.
fn in_parallel<T: Send>(
    jobs: usize,
    threads: usize,
    job: &(dyn Fn(usize) -> T + Sync),
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Vec<T> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results: Mutex<Vec<Option<T>>> = Mutex::new((0..jobs).map(|_| None).collect());
    progress(0, jobs);
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, jobs.max(1)) {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= jobs {
                        return;
                    }
                    let result = job(i);
                    results.lock().unwrap_or_else(PoisonError::into_inner)[i] = Some(result);
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1, jobs);
                }
            });
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::random::Random;
    use facemill_classifier::backbone::{FEATURES, GRID};
    use facemill_domain::ContentHash;

    /// Crops whose label follows from three kinds of their channels, with the persons' noise; six crops a person.
    pub fn drawn(crops: usize, noise: f64, seed: u64) -> TrainingSet {
        let mut random = Random::seeded(seed);
        TrainingSet::new((0..crops).map(|i| {
            let signal: [f64; 3] = std::array::from_fn(|_| random.normal());
            let features =
                (0..FEATURES).map(|j| (2.0 * signal[j / (GRID * GRID) % 3] + 0.5 * random.normal()) as f32).collect();
            let ok = signal[0] + signal[1] + noise * random.normal() > 0.8;
            let group = format!("person {}", i / 6);
            let crop = ContentHash::of(format!("{seed} {i}").as_bytes());
            (Example { crop, group, duplicates: None, ok, mirrors: [0.1; MIRRORS], importance: 1.0 }, features)
        }))
    }

    pub fn all(set: &TrainingSet) -> Vec<usize> {
        (0..set.examples().len()).collect()
    }

    fn settings(threads: usize) -> LearnSettings {
        LearnSettings { seed: 1, threads }
    }

    #[test]
    fn a_head_is_learnt_and_does_not_depend_on_the_threads() {
        let set = drawn(240, 0.1, 1);
        let fits = Mutex::new(Vec::new());
        let progress = |done, total| fits.lock().unwrap().push((done, total));
        let learned = learn(&set, &all(&set), settings(1), &progress).unwrap();
        assert_eq!(fits.lock().unwrap().last(), Some(&(30, 30)));
        let other = drawn(200, 0.0, 2);
        let right = |i: usize| {
            let example = &other.examples()[i];
            (learned.p_ok(other.features(i), &example.mirrors) >= 0.5) == example.ok
        };
        let share = (0..200).filter(|&i| right(i)).count() as f64 / 200.0;
        assert!(share > 0.93, "{share}");
        let again = learn(&set, &all(&set), settings(3), &|_, _| {}).unwrap();
        let (Head::Logistic(head), Head::Logistic(other)) = (&learned.head, &again.head) else { panic!("{again:?}") };
        assert_eq!((&head.head, &learned.calibration), (&other.head, &again.calibration));
        assert_eq!(again.out_of_sample, learned.out_of_sample);
    }

    #[test]
    fn noise_leads_to_a_stronger_penalty() {
        let penalty = |noise| {
            let set = drawn(180, noise, 3);
            learn(&set, &all(&set), settings(2), &|_, _| {}).unwrap().penalty
        };
        assert!(penalty(4.0) > penalty(0.0), "{} {}", penalty(4.0), penalty(0.0));
    }

    #[test]
    fn the_score_of_a_crop_is_by_a_head_that_has_not_seen_its_group() {
        // A person whose labels are all wrong: a head that has seen them would follow.
        let set = drawn(240, 0.0, 4);
        let wrong = |example: &Example| example.group == "person 3";
        let flipped = TrainingSet::new(all(&set).into_iter().map(|i| {
            let example = set.examples()[i].clone();
            let ok = example.ok ^ wrong(&example);
            (Example { ok, ..example }, set.features(i).to_vec())
        }));
        let learned = learn(&flipped, &all(&flipped), settings(2), &|_, _| {}).unwrap();
        let scored = flipped.examples().iter().zip(&learned.out_of_sample);
        let disagrees = scored.filter(|(example, p_ok)| wrong(example) && (**p_ok >= 0.5) != example.ok).count();
        assert!(disagrees >= 4, "{disagrees} of 6");
    }

    #[test]
    fn people_with_near_duplicates_are_in_one_fold() {
        let set = drawn(240, 0.0, 6);
        // A photograph of each even person is also there under the name of the next one.
        let examples: Vec<Example> = set.examples().to_vec();
        let person = |example: &Example| example.group.split_once(' ').unwrap().1.parse::<u32>().unwrap();
        let examples: Vec<Example> =
            examples.into_iter().map(|example| Example { duplicates: Some(person(&example) / 2), ..example }).collect();
        let examples: Vec<&Example> = examples.iter().collect();
        let parts = parts(&examples, 1).unwrap();
        assert_eq!((parts.len(), parts.iter().map(Vec::len).sum::<usize>()), (FOLDS, 240));
        for part in &parts {
            let pairs: BTreeSet<u32> = part.iter().map(|&i| person(examples[i]) / 2).collect();
            assert_eq!(part.len(), 12 * pairs.len(), "a pair of people is in two folds");
        }
        // What is much alike everywhere does not become one group.
        let all: Vec<Example> =
            set.examples().iter().map(|example| Example { duplicates: Some(1), ..example.clone() }).collect();
        assert!(super::parts(&all.iter().collect::<Vec<_>>(), 1).unwrap().iter().all(|part| part.len() <= 72));
    }

    #[test]
    fn too_few_crops_are_an_error_with_numbers() {
        let set = drawn(60, 0.0, 5);
        let ok: Vec<usize> = all(&set).into_iter().filter(|&i| set.examples()[i].ok).collect();
        let error = learn(&set, &ok, settings(1), &|_, _| {}).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{} OK and 0 NG crops", ok.len())), "{error}");
        assert!(learn(&set, &[], settings(1), &|_, _| {}).is_err());
    }
}
