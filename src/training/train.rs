//! Trains a classifier: labelled crops in, one ONNX file out.
//!
//! Groups (people) are split into three parts: training, validation (early stopping and the threshold) and test (the
//! reported figures). The figures are measured with the ONNX file itself. The baseline is a logistic regression on the
//! 4x4 mirrored grid alone, which needs no network.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use ort::session::Session;
use ort::value::TensorRef;
use serde::Serialize;
use sha2::Digest;

use super::backbone::{Backbone, BackboneError, CHANNELS, FEATURES, GRID, OPSET};
use super::head::{Examples, Head, KEPT, Logistic, Perceptron, Projection, Scale, UNITS};
use super::labels::LabelledCrop;
use super::matrix::{Matrix, dot};
use super::measure::{self, Measures, Scored};
use crate::classifier::model::{self, Input, MIRRORED, MIRRORS, Model, ModelError, P_OK, SIDE, meta};
use crate::config::Models;
use crate::domain::ContentHash;
use crate::domain::hash::hex;
use crate::inference::onnx::{
    AttributeProto, Dim, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto,
};
use crate::inference::{InferenceError, Runtime};

#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    #[error(transparent)]
    Inference(#[from] InferenceError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("{}: {detail}", file.display())]
    Crop { file: PathBuf, detail: String },
    #[error("the {part} part has {ok} OK and {ng} NG crops; each part needs both: label more crops, of more people")]
    TooFew { part: &'static str, ok: usize, ng: usize },
}

#[derive(Debug, Clone)]
pub struct TrainingSettings {
    pub seed: u64,
    /// The threshold is chosen for at least this precision of OK.
    pub precision: f64,
    /// Threads that run the network.
    pub threads: usize,
    /// Description of the training data for the metadata.
    pub created_from: String,
}

/// Result of a training.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainingReport {
    pub crops: usize,
    pub ok: usize,
    pub groups: usize,
    /// Crops of the training, validation and test parts.
    pub parts: [usize; 3],
    /// `logistic` or `perceptron`.
    pub head: &'static str,
    /// False: no threshold reached the requested precision, and it is 0.5.
    pub precision_reached: bool,
    pub model: Measures,
    /// The baseline on the mirrored grid, at a threshold chosen in the same way.
    pub grid: Measures,
    pub beats_grid: bool,
}

#[derive(Debug)]
pub struct Trained {
    /// The ONNX file.
    pub bytes: Vec<u8>,
    pub report: TrainingReport,
}

/// The perceptron needs at least this many labels in the training part.
const MIN_LABELS_FOR_PERCEPTRON: usize = 1000;
/// Maximum number of crops that the projection is fitted on.
const PROJECTION_CROPS: usize = 4000;
/// Maximum gain of a mirror feature: shares from 0 to 1 are scaled to this range at most.
const MIRROR_GAIN: f64 = 4.0;
/// Penalties of the logistic regressions: head and baseline.
const RIDGE: f64 = 10.0;
const GRID_RIDGE: f64 = 1.0;

/// Trains a classifier. Calls `progress` with the number of crops whose features are extracted.
///
/// # Errors
/// A crop or the backbone cannot be read, or a part of the split lacks OK or NG crops.
pub fn train(
    labels: &[LabelledCrop],
    models: &Models,
    runtime: &Runtime,
    settings: &TrainingSettings,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Trained, TrainError> {
    let parts = split(labels, settings.seed)?;
    let backbone = Backbone::read(&models.lite0())?;
    let Extracted { features, digest } = extract(labels, &backbone, runtime, settings.threads, progress)?;
    let mirrors = labels.iter().map(mirrors).collect::<Result<Vec<_>, _>>()?;

    let learner = Learner { labels, features: &features, mirrors: &mirrors, seed: settings.seed };
    let learned = learner.learn(&parts);
    let chosen = |scores: &dyn Fn(usize) -> f64| {
        measure::best_threshold(&scored(labels, &parts[VALIDATION], scores), settings.precision)
    };
    let threshold = chosen(&|i| learned.p_ok(&features[i], &mirrors[i]));
    let bytes = compose(backbone, &learned, threshold.unwrap_or(0.5), &digest, &settings.created_from).encode();

    let scores = score(&bytes, labels, &parts[TEST], runtime)?;
    let scores: BTreeMap<usize, f64> = parts[TEST].iter().copied().zip(scores).collect();
    let model = Measures::of(&scored(labels, &parts[TEST], &|i| scores[&i]), threshold.unwrap_or(0.5));
    let grid = learner.grid_baseline(&parts[TRAINING]);
    let grid_score = |i: usize| grid.p_ok(&cells(&mirrors[i]));
    let grid = Measures::of(&scored(labels, &parts[TEST], &grid_score), chosen(&grid_score).unwrap_or(0.5));
    let report = TrainingReport {
        crops: labels.len(),
        ok: labels.iter().filter(|label| label.ok).count(),
        groups: labels.iter().map(LabelledCrop::group).collect::<BTreeSet<_>>().len(),
        parts: [parts[TRAINING].len(), parts[VALIDATION].len(), parts[TEST].len()],
        head: learned.head.name(),
        precision_reached: threshold.is_some(),
        beats_grid: model.auc > grid.auc && model.recall_at_precision_90 > grid.recall_at_precision_90,
        model,
        grid,
    };
    Ok(Trained { bytes, report })
}

const TRAINING: usize = 0;
const VALIDATION: usize = 1;
const TEST: usize = 2;
const PART_NAMES: [&str; 3] = ["training", "validation", "test"];
/// Share of the groups in each part.
const SHARES: [f64; 3] = [0.6, 0.15, 0.25];

/// Splits the groups into three parts by a hash of seed and group. Returns the indices of the crops of each part.
fn split(labels: &[LabelledCrop], seed: u64) -> Result<[Vec<usize>; 3], TrainError> {
    let groups: BTreeSet<String> = labels.iter().map(LabelledCrop::group).collect();
    let mut shuffled: Vec<(ContentHash, &String)> =
        groups.iter().map(|group| (ContentHash::of(format!("{seed}/{group}").as_bytes()), group)).collect();
    shuffled.sort();
    let part_of: BTreeMap<&String, usize> = shuffled
        .iter()
        .enumerate()
        .map(|(i, (_, group))| {
            let position = (i as f64 + 0.5) / groups.len() as f64;
            let part = if position < SHARES[TRAINING] {
                TRAINING
            } else {
                VALIDATION + usize::from(position >= 1.0 - SHARES[TEST])
            };
            (*group, part)
        })
        .collect();
    let mut parts = [const { Vec::new() }; 3];
    for (i, label) in labels.iter().enumerate() {
        parts[part_of[&label.group()]].push(i);
    }
    for (part, name) in parts.iter().zip(PART_NAMES) {
        let ok = part.iter().filter(|&&i| labels[i].ok).count();
        if ok == 0 || ok == part.len() {
            return Err(TrainError::TooFew { part: name, ok, ng: part.len() - ok });
        }
    }
    Ok(parts)
}

fn mirrors(label: &LabelledCrop) -> Result<[f32; MIRRORS], TrainError> {
    label.mirrors().map_err(|detail| TrainError::Crop { file: label.file.clone(), detail })
}

/// Reads a labelled crop. Returns the input of the model and the hash of the file.
///
/// # Errors
/// The file cannot be read or decoded, or its mirror features are invalid.
pub fn input(label: &LabelledCrop) -> Result<(Input, ContentHash), TrainError> {
    let crop = |detail: String| TrainError::Crop { file: label.file.clone(), detail };
    let bytes = std::fs::read(&label.file).map_err(|error| crop(error.to_string()))?;
    let input = Input::decode(&bytes, mirrors(label)?).map_err(crop)?;
    Ok((input, ContentHash::of(&bytes)))
}

/// Features of each crop, and the SHA-256 over all crops and labels.
struct Extracted {
    features: Vec<Vec<f32>>,
    digest: String,
}

/// Runs the backbone on all crops, in `threads` threads.
fn extract(
    labels: &[LabelledCrop],
    backbone: &Backbone,
    runtime: &Runtime,
    threads: usize,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Extracted, TrainError> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                let mut session = match runtime.session("EfficientNet-Lite0", &backbone.bytes, 1) {
                    Ok(session) => session,
                    Err(error) => return drop(sender.send((0, Err(error.into())))),
                };
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(label) = labels.get(i) else { return };
                    if sender.send((i, extract_one(label, &mut session))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut crops: Vec<Option<(Vec<f32>, ContentHash)>> = vec![None; labels.len()];
        for (done, (i, result)) in receiver.iter().enumerate() {
            crops[i] = Some(result?);
            progress(done + 1);
        }
        let mut hash = sha2::Sha256::new();
        let mut features = Vec::with_capacity(labels.len());
        for (label, (crop, content)) in labels.iter().zip(crops.into_iter().flatten()) {
            hash.update(format!("{content} {} {}\n", label.ok, label.group()));
            features.push(crop);
        }
        Ok(Extracted { features, digest: hex(&hash.finalize()) })
    })
}

fn extract_one(label: &LabelledCrop, session: &mut Session) -> Result<(Vec<f32>, ContentHash), TrainError> {
    let (input, content) = input(label)?;
    let failed = |error: ort::Error| TrainError::Crop { file: label.file.clone(), detail: error.to_string() };
    let crop = TensorRef::from_array_view(([1, SIDE, SIDE, 3], input.pixels())).map_err(failed)?;
    let outputs = session.run(ort::inputs![Backbone::INPUT => crop]).map_err(failed)?;
    let (_, features) = outputs[Backbone::OUTPUT].try_extract_tensor::<f32>().map_err(failed)?;
    Ok((features.to_vec(), content))
}

fn scored(labels: &[LabelledCrop], part: &[usize], p_ok: &dyn Fn(usize) -> f64) -> Vec<Scored> {
    part.iter().map(|&i| Scored { p_ok: p_ok(i), ok: labels[i].ok }).collect()
}

fn cells(mirrors: &[f32; MIRRORS]) -> Vec<f64> {
    mirrors[2..].iter().map(|&share| f64::from(share)).collect()
}

/// The training data.
struct Learner<'a> {
    labels: &'a [LabelledCrop],
    features: &'a [Vec<f32>],
    mirrors: &'a [[f32; MIRRORS]],
    seed: u64,
}

/// The trained part: everything after the backbone.
struct Learned {
    projection: Projection,
    scale: Scale,
    head: Head,
}

impl Learned {
    fn p_ok(&self, features: &[f32], mirrors: &[f32; MIRRORS]) -> f64 {
        self.head.p_ok(&self.scale.apply(&join(&self.projection, features, mirrors)))
    }
}

fn join(projection: &Projection, features: &[f32], mirrors: &[f32; MIRRORS]) -> Vec<f64> {
    let mut row = projection.apply(features);
    row.extend(mirrors.iter().map(|&share| f64::from(share)));
    row
}

impl Learner<'_> {
    fn learn(&self, parts: &[Vec<usize>; 3]) -> Learned {
        let learn = &parts[TRAINING];
        let step = learn.len().div_ceil(PROJECTION_CROPS);
        let sample: Vec<&[f32]> = learn.iter().step_by(step).map(|&i| &self.features[i][..]).collect();
        let projection = Projection::fit(&sample, self.seed);
        let rows = |part: &[usize]| {
            let row = |&i: &usize| join(&projection, &self.features[i], &self.mirrors[i]);
            Matrix::from_rows(&part.iter().map(row).collect::<Vec<_>>())
        };
        let raw = rows(learn);
        let scale = Scale::fit(&raw).limited(KEPT, MIRROR_GAIN);
        let examples = self.examples(learn, scale.apply_all(&raw));
        let head = if learn.len() < MIN_LABELS_FOR_PERCEPTRON {
            Head::Logistic(Logistic::fit(&examples, RIDGE))
        } else {
            let validation = self.examples(&parts[VALIDATION], scale.apply_all(&rows(&parts[VALIDATION])));
            Head::Perceptron(Perceptron::fit(&examples, &validation, self.seed))
        };
        Learned { projection, scale, head }
    }

    /// The baseline.
    fn grid_baseline(&self, learn: &[usize]) -> Logistic {
        let rows = Matrix::from_rows(&learn.iter().map(|&i| cells(&self.mirrors[i])).collect::<Vec<_>>());
        Logistic::fit(&self.examples(learn, rows), GRID_RIDGE)
    }

    fn examples(&self, part: &[usize], rows: Matrix) -> Examples {
        Examples { rows, ok: part.iter().map(|&i| self.labels[i].ok).collect() }
    }
}

/// Joins backbone, projection, scale and head in one graph. All arithmetic is convolutions, with a 1x1 kernel behind
/// the projection: onnxruntime computes them crop by crop, so a score does not depend on the rest of the batch.
fn compose(backbone: Backbone, learned: &Learned, threshold: f64, digest: &str, created_from: &str) -> ModelProto {
    let Backbone { mut nodes, mut weights, .. } = backbone;
    let mut layer = |input: &str, output: &str, rows: &[Vec<f64>], bias: &[f64], side: usize| {
        let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<_>>();
        let channels = rows[0].len() / (side * side);
        let dims = [rows.len() as i64, channels as i64, side as i64, side as i64];
        let (weight_name, bias_name) = (format!("{output}.w"), format!("{output}.b"));
        weights.push(TensorProto::floats(&weight_name, &dims, &narrow(&rows.concat())));
        weights.push(TensorProto::floats(&bias_name, &[rows.len() as i64], &narrow(bias)));
        NodeProto::new("Conv", &[input, &weight_name, &bias_name], &[output])
            .with(AttributeProto::ints("kernel_shape", &[side as i64, side as i64]))
    };
    let (rows, bias) = scaled_projection(&learned.projection, &learned.scale);
    nodes.push(layer(Backbone::OUTPUT, "projection", &rows, &bias, GRID));
    nodes.push(NodeProto::new("Reshape", &[MIRRORED, "mirrors.shape"], &["mirrors"]));
    nodes.push(NodeProto::new("Concat", &["projection", "mirrors"], &["joined"]).with(AttributeProto::int("axis", 1)));
    let last = match &learned.head {
        Head::Logistic(head) => {
            let (rows, bias) = unscaled(&learned.scale, std::slice::from_ref(&head.weights), &[head.bias]);
            layer("joined", "logit", &rows, &bias, 1)
        }
        Head::Perceptron(head) => {
            let hidden: Vec<Vec<f64>> = (0..UNITS).map(|unit| head.hidden.row(unit).to_vec()).collect();
            let (rows, bias) = unscaled(&learned.scale, &hidden, &head.hidden_bias);
            nodes.push(layer("joined", "hidden", &rows, &bias, 1));
            nodes.push(NodeProto::new("Relu", &["hidden"], &["active"]));
            layer("active", "logit", std::slice::from_ref(&head.top), &[head.bias], 1)
        }
    };
    nodes.push(last);
    nodes.push(NodeProto::new("Sigmoid", &["logit"], &["probability"]));
    nodes.push(NodeProto::new("Reshape", &["probability", "p_ok.shape"], &[P_OK]));
    weights.push(TensorProto::int64s("mirrors.shape", &[4], &[-1, MIRRORS as i64, 1, 1]));
    weights.push(TensorProto::int64s("p_ok.shape", &[2], &[-1, 1]));

    let batch = Dim::Named("batch");
    let graph = GraphProto {
        name: Some(model::NAME.into()),
        node: nodes,
        initializer: weights,
        input: vec![Backbone::input(), ValueInfoProto::floats(MIRRORED, &[batch, Dim::Fixed(MIRRORS as i64)])],
        output: vec![ValueInfoProto::floats(P_OK, &[batch, Dim::Fixed(1)])],
        ..GraphProto::default()
    };
    let entries = [
        (meta::NAME, model::NAME.to_owned()),
        (meta::VERSION, model::VERSION.to_owned()),
        (meta::THRESHOLD, threshold.to_string()),
        (meta::TRAINING_DIGEST, digest.to_owned()),
        (meta::CREATED_FROM, created_from.to_owned()),
    ];
    let metadata_props = entries.into_iter().map(|(key, value)| StringStringEntryProto::new(key, value)).collect();
    ModelProto { metadata_props, ..ModelProto::new(graph, OPSET) }
}

/// The projection with [`Scale`] folded in: its rows, and the bias that brings their output to mean 0.
fn scaled_projection(projection: &Projection, scale: &Scale) -> (Vec<Vec<f64>>, Vec<f64>) {
    debug_assert_eq!(projection.components.columns(), FEATURES);
    debug_assert_eq!(FEATURES, CHANNELS * GRID * GRID);
    let row = |i: usize| {
        let row: Vec<f64> = projection.components.row(i).iter().map(|value| value * scale.gain[i]).collect();
        let bias = -dot(&row, &projection.mean) - scale.mean[i] * scale.gain[i];
        (row, bias)
    };
    (0..projection.components.rows()).map(row).unzip()
}

/// Folds [`Scale`] into weights: the first [`KEPT`] inputs are scaled already, the mirror features are not.
fn unscaled(scale: &Scale, rows: &[Vec<f64>], bias: &[f64]) -> (Vec<Vec<f64>>, Vec<f64>) {
    let row = |(row, &bias): (&Vec<f64>, &f64)| {
        let mut row = row.clone();
        let mut bias = bias;
        for (i, weight) in row.iter_mut().enumerate().skip(KEPT) {
            *weight *= scale.gain[i];
            bias -= *weight * scale.mean[i];
        }
        (row, bias)
    };
    rows.iter().zip(bias).map(row).unzip()
}

/// Scores of the crops of a part, computed by the ONNX file.
fn score(bytes: &[u8], labels: &[LabelledCrop], part: &[usize], runtime: &Runtime) -> Result<Vec<f64>, TrainError> {
    let mut model = Model::from_bytes("the new classifier", bytes, runtime)?;
    let mut scores = Vec::with_capacity(part.len());
    for batch in part.chunks(16) {
        let inputs = batch.iter().map(|&i| Ok(input(&labels[i])?.0)).collect::<Result<Vec<_>, TrainError>>()?;
        scores.extend(model.predict(&inputs)?);
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(file: &str, group: &str, ok: bool) -> LabelledCrop {
        LabelledCrop {
            file: file.into(),
            ok,
            group: Some(group.into()),
            mirrored: 0.0,
            mirrored_head: 0.0,
            mirrored_grid: vec![0.0; 16],
        }
    }

    #[test]
    fn a_group_is_in_one_part_only() {
        let labels: Vec<LabelledCrop> =
            (0..400).map(|i| label(&i.to_string(), &format!("person {}", i % 40), i % 3 == 0)).collect();
        let parts = split(&labels, 1).unwrap();
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [240, 60, 100]);
        let groups = parts.map(|part| part.iter().map(|&i| labels[i].group()).collect::<BTreeSet<_>>());
        assert!(
            groups[0].is_disjoint(&groups[1]) && groups[0].is_disjoint(&groups[2]) && groups[1].is_disjoint(&groups[2])
        );
    }

    #[test]
    fn the_error_names_the_part_that_lacks_a_class() {
        let labels: Vec<LabelledCrop> = (0..40).map(|i| label(&i.to_string(), &i.to_string(), false)).collect();
        let error = split(&labels, 1).unwrap_err().to_string();
        assert!(error.starts_with("the training part has 0 OK and 24 NG crops"), "{error}");
    }

    #[test]
    fn folding_the_scale_keeps_the_score() {
        let mut random = super::super::random::Random::seeded(5);
        let mut values = |n: usize| (0..n).map(|_| random.normal()).collect::<Vec<_>>();
        let components = Matrix::from_rows(&(0..KEPT).map(|_| values(FEATURES)).collect::<Vec<_>>());
        let projection = Projection { mean: values(FEATURES), components };
        let scale = Scale { mean: values(KEPT + MIRRORS), gain: values(KEPT + MIRRORS) };
        let head = Logistic { weights: values(KEPT + MIRRORS).iter().map(|w| w / 100.0).collect(), bias: 0.3 };
        let features: Vec<f32> = values(FEATURES).iter().map(|&value| value as f32).collect();
        let mirrors = [0.25; MIRRORS];
        let expected = dot(&scale.apply(&join(&projection, &features, &mirrors)), &head.weights) + head.bias;

        let (rows, bias) = scaled_projection(&projection, &scale);
        let features: Vec<f64> = features.iter().map(|&value| f64::from(value)).collect();
        let mut x: Vec<f64> = rows.iter().zip(&bias).map(|(row, bias)| dot(row, &features) + bias).collect();
        x.extend([0.25; MIRRORS]);
        let (rows, bias) = unscaled(&scale, &[head.weights], &[head.bias]);
        assert!((dot(&rows[0], &x) + bias[0] - expected).abs() < 1e-9);
    }
}
