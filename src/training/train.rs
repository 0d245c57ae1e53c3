//! Trains a classifier: judged crops with their features in, one ONNX file out.
//!
//! The head learns from the training side, where cross-validation over people chooses the regularisation, the
//! calibration and the threshold. The figures are those of the test side, computed by onnxruntime with the head of the
//! file; where the test side lacks OK or NG crops, they are those of the cross-validation. The baseline is a logistic
//! regression on the 4x4 mirrored grid alone, which needs no network.

use std::collections::{BTreeSet, HashMap};

use serde::Serialize;

use super::example::{Example, Side, TrainingSet};
use super::head::{Examples, Logistic, sigmoid};
use super::learner::{LearnError, LearnSettings, learn, parts};
use super::matrix::Matrix;
use super::measure::{self, Measures, Scored};
use super::model_file::{HeadSession, compose};
use facemill_classifier::backbone::Backbone;
use facemill_classifier::model::{self, MIRRORS, meta};
use facemill_domain::ContentHash;
use facemill_inference::{InferenceError, Runtime};

#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    Inference(#[from] InferenceError),
    #[error(transparent)]
    Learn(#[from] LearnError),
    #[error("the training part has {ok} OK and {ng} NG crops; it needs both: judge more crops, of more people")]
    TooFew { ok: usize, ng: usize },
}

#[derive(Debug, Clone)]
pub struct TrainingSettings {
    pub seed: u64,
    /// The threshold is chosen for at least this precision of OK.
    pub precision: f64,
    /// Threads that fit.
    pub threads: usize,
    /// Description of the training data for the metadata.
    pub created_from: String,
}

/// The classifier that was in use before, with its P(OK) by crop.
#[derive(Debug, Clone)]
pub struct Before {
    pub model: String,
    pub threshold: f64,
    pub p_ok: HashMap<ContentHash, f64>,
}

/// What the figures of a training are measured on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MeasuredOn {
    /// The crops of the test side.
    TestPart,
    /// The crops of the training side, each scored by a head that has not seen its person. The threshold was chosen on
    /// the same scores, so that the figures at the threshold are slightly too good.
    CrossValidation,
}

/// The figures of the classifier before, and of the new one on the same crops: those that were measured on and that both
/// have scored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    pub model: String,
    pub crops: usize,
    pub before: Measures,
    pub now: Measures,
}

impl Comparison {
    /// `crops`: for each crop whether it is OK, P(OK) of the classifier `before`, and of the new one. None: no crops.
    pub fn of(crops: impl Iterator<Item = (bool, f64, f64)>, before: (&str, f64), threshold: f64) -> Option<Self> {
        let both = crops.map(|(ok, earlier, now)| (Scored { p_ok: earlier, ok }, Scored { p_ok: now, ok }));
        let (earlier, now): (Vec<_>, Vec<_>) = both.unzip();
        (!now.is_empty()).then(|| Self {
            model: before.0.to_owned(),
            crops: now.len(),
            before: Measures::of(&earlier, before.1),
            now: Measures::of(&now, threshold),
        })
    }
}

/// Numbers of crops and of people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SideCounts {
    pub crops: usize,
    pub ok: usize,
    pub groups: usize,
}

impl SideCounts {
    fn has_both(&self) -> bool {
        (1..self.crops).contains(&self.ok)
    }
}

/// Result of a training.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainingReport {
    pub training: SideCounts,
    pub test: SideCounts,
    /// `logistic` or `cells`.
    pub head: &'static str,
    /// The ridge or the weight decay that cross-validation chose.
    pub penalty: f64,
    /// `platt` or `isotonic`.
    pub calibration: &'static str,
    pub measured_on: MeasuredOn,
    /// False: no threshold reached the requested precision, and it is 0.5.
    pub precision_reached: bool,
    pub model: Measures,
    /// The baseline on the mirrored grid, at a threshold chosen in the same way.
    pub grid: Measures,
    pub beats_grid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
}

#[derive(Debug)]
pub struct Trained {
    /// The ONNX file.
    pub bytes: Vec<u8>,
    pub report: TrainingReport,
}

/// Penalty of the baseline.
const GRID_RIDGE: f64 = 1.0;

/// Trains a classifier. `progress` receives how many of how many fits are done.
///
/// # Errors
/// The training side lacks OK or NG crops, or onnxruntime rejects the file.
pub fn train(
    set: &TrainingSet,
    backbone: Backbone,
    runtime: &Runtime,
    settings: &TrainingSettings,
    before: Option<&Before>,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Trained, TrainError> {
    let [training, test] = [Side::Training, Side::Test].map(|side| set.side(side));
    let [of_training, of_test] = [&training, &test].map(|places| counts(set, places));
    if !of_training.has_both() {
        return Err(TrainError::TooFew { ok: of_training.ok, ng: of_training.crops - of_training.ok });
    }
    let learned = learn(set, &training, LearnSettings { seed: settings.seed, threads: settings.threads }, progress)?;
    let weights: Vec<f64> = training.iter().map(|&i| set.examples()[i].importance).collect();
    let chosen =
        |scores: &[f64]| measure::best_threshold(&scored(set, &training, scores), &weights, settings.precision);
    let threshold = chosen(&learned.out_of_sample);

    let mut head = HeadSession::open(&learned, runtime)?;
    let p_ok = |&i: &usize| head.p_ok(set.features(i), &set.examples()[i].mirrors);
    let new_threshold = threshold.unwrap_or(0.5);
    let grid_out_of_sample = GridBaseline::out_of_sample(set, &training, settings.seed)?;
    let grid_threshold = chosen(&grid_out_of_sample).unwrap_or(0.5);
    let (measured_on, places, scores, grid_scores) = match of_test.has_both() {
        true => {
            let grid = GridBaseline::fit(set, &training);
            let scores = test.iter().map(p_ok).collect::<Result<Vec<f64>, _>>()?;
            let grid_scores = test.iter().map(|&i| grid.p_ok(&set.examples()[i])).collect();
            (MeasuredOn::TestPart, &test, scores, grid_scores)
        }
        false => (MeasuredOn::CrossValidation, &training, learned.out_of_sample.clone(), grid_out_of_sample),
    };
    let model = Measures::of(&scored(set, places, &scores), new_threshold);
    let grid = Measures::of(&scored(set, places, &grid_scores), grid_threshold);
    let comparison = before.and_then(|before| compare(set, places, &scores, new_threshold, before));
    let report = TrainingReport {
        training: of_training,
        test: of_test,
        measured_on,
        head: learned.head.name(),
        penalty: learned.penalty,
        calibration: learned.calibration.name(),
        precision_reached: threshold.is_some(),
        beats_grid: model.auc > grid.auc && model.recall_at_precision_90 > grid.recall_at_precision_90,
        model,
        grid,
        comparison,
    };
    let json = |value: serde_json::Value| value.to_string();
    let metadata = vec![
        (meta::NAME, model::NAME.to_owned()),
        (meta::VERSION, model::VERSION.to_owned()),
        (meta::THRESHOLD, new_threshold.to_string()),
        (meta::TRAINING_DIGEST, set.digest()),
        (meta::CREATED_FROM, settings.created_from.clone()),
        (meta::LABELS, "ng,ok".to_owned()),
        (meta::INPUT, "crop [N, 224, 224, 3] uint8 RGB; mirrored [N, 18] float".to_owned()),
        (meta::SIDES, Side::RULE.to_owned()),
        (meta::COUNTS, json(serde_json::json!({ "training": report.training, "test": report.test }))),
        (meta::MEASURES, json(serde_json::json!(report.model))),
        (meta::CODE_VERSION, env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let metadata = metadata.into_iter().chain(set.run().map(|run| (meta::RUN, run.to_owned()))).collect();
    let bytes = compose(backbone, &learned, metadata).encode();
    Ok(Trained { bytes, report })
}

fn counts(set: &TrainingSet, places: &[usize]) -> SideCounts {
    let examples = || places.iter().map(|&i| &set.examples()[i]);
    SideCounts {
        crops: places.len(),
        ok: examples().filter(|example| example.ok).count(),
        groups: examples().map(|example| &example.group).collect::<BTreeSet<_>>().len(),
    }
}

fn scored(set: &TrainingSet, places: &[usize], scores: &[f64]) -> Vec<Scored> {
    places.iter().zip(scores).map(|(&i, &p_ok)| Scored { p_ok, ok: set.examples()[i].ok }).collect()
}

fn compare(set: &TrainingSet, places: &[usize], scores: &[f64], threshold: f64, before: &Before) -> Option<Comparison> {
    let both = |(&i, &now): (&usize, &f64)| {
        let Example { crop, ok, .. } = set.examples()[i];
        before.p_ok.get(&crop).map(|&p_ok| (ok, p_ok, now))
    };
    Comparison::of(places.iter().zip(scores).filter_map(both), (&before.model, before.threshold), threshold)
}

/// A logistic regression on the 16 cells of the mirrored grid.
pub struct GridBaseline(Logistic);

impl GridBaseline {
    pub fn fit(set: &TrainingSet, places: &[usize]) -> Self {
        let rows: Vec<Vec<f64>> = places.iter().map(|&i| cells(&set.examples()[i].mirrors)).collect();
        let ok = places.iter().map(|&i| set.examples()[i].ok).collect();
        Self(Logistic::fit(&Examples::balanced(Matrix::from_rows(&rows), ok), GRID_RIDGE))
    }

    /// P(OK) of each of the crops, by a baseline that has not seen its person.
    ///
    /// # Errors
    /// As those of [`learn`].
    fn out_of_sample(set: &TrainingSet, places: &[usize], seed: u64) -> Result<Vec<f64>, LearnError> {
        let examples: Vec<&Example> = places.iter().map(|&i| &set.examples()[i]).collect();
        let folds = parts(&examples, seed)?;
        let mut p_ok = vec![0.0; places.len()];
        for fold in &folds {
            let rest: Vec<usize> = (0..places.len()).filter(|at| !fold.contains(at)).map(|at| places[at]).collect();
            let grid = Self::fit(set, &rest);
            fold.iter().for_each(|&at| p_ok[at] = grid.p_ok(examples[at]));
        }
        Ok(p_ok)
    }

    pub fn p_ok(&self, example: &Example) -> f64 {
        sigmoid(self.0.score(&cells(&example.mirrors)))
    }
}

fn cells(mirrors: &[f32; MIRRORS]) -> Vec<f64> {
    mirrors[2..].iter().map(|&share| f64::from(share)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learner::tests::{all, drawn};
    use facemill_classifier::model::ModelFile;
    use facemill_inference::Models;

    fn settings(threads: usize) -> TrainingSettings {
        TrainingSettings { seed: 1, precision: 0.9, threads, created_from: "drawn crops".into() }
    }

    #[test]
    fn the_file_has_its_metadata_and_the_figures_are_of_people_it_has_not_seen() {
        let models = Models::find(std::env::var_os(Models::ENV).map(std::path::PathBuf::from));
        let runtime = Runtime::load(&models.onnxruntime()).unwrap();
        let backbone = Backbone::read(&models.lite0()).unwrap();
        let set = drawn(300, 0.1, 8);
        let p_ok = all(&set).into_iter().map(|i| (set.examples()[i].crop, f64::from(u8::from(!set.examples()[i].ok))));
        let before = Before { model: "worst".into(), threshold: 0.5, p_ok: p_ok.take(280).collect() };
        let trained = train(&set, backbone.clone(), &runtime, &settings(2), Some(&before), &|_, _| {}).unwrap();
        let report = &trained.report;
        assert_eq!(report.training.crops + report.test.crops, 300);
        assert_eq!(report.test.crops, set.side(Side::Test).len());
        assert!(report.model.auc > Some(0.95) && report.beats_grid, "{report:?}");
        let comparison = report.comparison.as_ref().unwrap();
        assert!(comparison.crops <= report.test.crops && comparison.before.accuracy == Some(0.0), "{comparison:?}");
        assert!(comparison.now.auc > Some(0.95));

        let file = ModelFile::from_bytes("new", trained.bytes.clone().into()).unwrap();
        assert_eq!(file.threshold, report.model.threshold);
        assert_eq!(file.metadata(meta::TRAINING_DIGEST), Some(set.digest()));
        assert_eq!(file.metadata(meta::SIDES).as_deref(), Some(Side::RULE));
        let measures: serde_json::Value = serde_json::from_str(&file.metadata(meta::MEASURES).unwrap()).unwrap();
        assert_eq!(measures["accuracy"].as_f64(), report.model.accuracy);
        file.open(&runtime).unwrap();
        let again = train(&set, backbone, &runtime, &settings(1), None, &|_, _| {}).unwrap();
        assert_eq!(again.bytes, trained.bytes, "neither threads nor the model before change the file");
    }

    #[test]
    fn without_both_classes_in_the_test_part_the_figures_are_those_of_the_cross_validation() {
        let models = Models::find(std::env::var_os(Models::ENV).map(std::path::PathBuf::from));
        let runtime = Runtime::load(&models.onnxruntime()).unwrap();
        let backbone = Backbone::read(&models.lite0()).unwrap();
        let set = drawn(240, 0.1, 10);
        let is_learnt = |i: &usize| Side::of(&set.examples()[*i].group) == Side::Training || set.examples()[*i].ok;
        let kept = all(&set).into_iter().filter(is_learnt);
        let set = TrainingSet::new(kept.map(|i| (set.examples()[i].clone(), set.features(i).to_vec())));
        let before = Before { model: "old".into(), threshold: 0.5, p_ok: HashMap::new() };
        let report = train(&set, backbone, &runtime, &settings(2), Some(&before), &|_, _| {}).unwrap().report;
        assert_eq!((report.measured_on, report.comparison), (MeasuredOn::CrossValidation, None));
        let measured = report.model.ok_as_ok + report.model.ok_as_ng + report.model.ng_as_ok + report.model.ng_as_ng;
        assert_eq!((measured, report.test.ok), (report.training.crops, report.test.crops));
        assert!(report.model.auc > Some(0.8) && report.model.auc < Some(1.0), "{:?}", report.model);
        assert!(report.grid.auc < Some(0.6), "the grid of all crops is the same: {:?}", report.grid);
    }

    #[test]
    fn the_error_names_the_part_that_lacks_a_class() {
        let models = Models::find(std::env::var_os(Models::ENV).map(std::path::PathBuf::from));
        let runtime = Runtime::load(&models.onnxruntime()).unwrap();
        let backbone = Backbone::read(&models.lite0()).unwrap();
        let set = drawn(60, 0.0, 9);
        let ng = TrainingSet::new(
            all(&set)
                .into_iter()
                .map(|i| (Example { ok: false, ..set.examples()[i].clone() }, set.features(i).to_vec())),
        );
        let error = train(&ng, backbone, &runtime, &settings(1), None, &|_, _| {}).unwrap_err().to_string();
        assert!(error.starts_with("the training part has 0 OK and "), "{error}");
    }
}
