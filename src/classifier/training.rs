//! From labelled crops to the classifier's file.
//!
//! Groups (people) are dealt into three parts: one to learn from, one to stop by and to choose the threshold on, and
//! one that only the final figures see. The finished file itself is measured, beside a logistic regression on the 4x4
//! mirrored grid alone, which needs no network: what does not beat it is not worth its milliseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use ort::session::Session;
use ort::value::TensorRef;
use serde::Serialize;
use sha2::Digest;

use super::head::{Examples, Judge, KEPT, Logistic, Perceptron, Projection, Scale, UNITS};
use super::labels::LabelledCrop;
use super::lite0::{CHANNELS, FEATURES, GRID, Lite0Error, OPSET, SIDE, Trunk};
use super::matrix::{Matrix, dot};
use super::measure::{self, Judged, Measures};
use super::model::{self, Input, MIRRORED, MIRRORS, Model, ModelError, P_OK, meta};
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
    Lite0(#[from] Lite0Error),
    #[error(transparent)]
    Inference(#[from] InferenceError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("{}: {detail}", file.display())]
    Crop { file: PathBuf, detail: String },
    #[error("{part} has {ok} OK and {ng} NG crops; label more, of more people: each part needs both")]
    TooFew { part: &'static str, ok: usize, ng: usize },
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub seed: u64,
    /// The threshold is chosen for at least this precision of OK.
    pub precision: f64,
    /// Threads that run the network.
    pub threads: usize,
    /// What the file says it was made from.
    pub created_from: String,
}

/// What a training found, for people and programs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub crops: usize,
    pub ok: usize,
    pub groups: usize,
    /// Crops to learn from, to choose by, to measure with.
    pub parts: [usize; 3],
    pub judge: &'static str,
    /// False: no threshold reached the precision that was asked for, and it is 0.5.
    pub precision_reached: bool,
    pub model: Measures,
    /// The logistic regression on the mirrored grid, at a threshold chosen in the same way.
    pub grid: Measures,
    pub beats_grid: bool,
}

#[derive(Debug)]
pub struct Trained {
    /// The ONNX file.
    pub bytes: Vec<u8>,
    pub report: Report,
}

/// The judge with hidden units needs this many labels to learn from.
const ENOUGH_FOR_UNITS: usize = 1000;
/// The projection is found on so many crops at most.
const PROJECTED: usize = 4000;
/// Mirror features are shares, from 0 to 1: none is stretched further than to this range.
const MIRROR_GAIN: f64 = 4.0;
/// Penalties of the logistic regressions.
const RIDGE: f64 = 10.0;
const GRID_RIDGE: f64 = 1.0;

/// Trains a classifier. `progress` hears the number of crops that the network has seen.
///
/// # Errors
/// A picture or the weights cannot be read, or a part of the split lacks OK or NG crops.
pub fn train(
    labels: &[LabelledCrop],
    models: &Models,
    runtime: &Runtime,
    settings: &Settings,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Trained, TrainError> {
    let parts = split(labels, settings.seed)?;
    let trunk = Trunk::read(&models.lite0())?;
    let Seen { features, digest } = look(labels, &trunk, runtime, settings.threads, progress)?;
    let mirrors = labels.iter().map(mirrors).collect::<Result<Vec<_>, _>>()?;

    let learner = Learner { labels, features: &features, mirrors: &mirrors, seed: settings.seed };
    let learned = learner.learn(&parts);
    let chosen = |scores: &dyn Fn(usize) -> f64| {
        measure::best_threshold(&judge_all(labels, &parts[CHOOSE], scores), settings.precision)
    };
    let threshold = chosen(&|i| learned.p_ok(&features[i], &mirrors[i]));
    let bytes = assemble(trunk, &learned, threshold.unwrap_or(0.5), &digest, &settings.created_from).encode();

    let scores = score(&bytes, labels, &parts[MEASURE], runtime)?;
    let scores: BTreeMap<usize, f64> = parts[MEASURE].iter().copied().zip(scores).collect();
    let model = Measures::of(&judge_all(labels, &parts[MEASURE], &|i| scores[&i]), threshold.unwrap_or(0.5));
    let grid = learner.grid_alone(&parts[LEARN]);
    let grid_score = |i: usize| grid.p_ok(&cells(&mirrors[i]));
    let grid = Measures::of(&judge_all(labels, &parts[MEASURE], &grid_score), chosen(&grid_score).unwrap_or(0.5));
    let report = Report {
        crops: labels.len(),
        ok: labels.iter().filter(|label| label.ok).count(),
        groups: labels.iter().map(LabelledCrop::group).collect::<BTreeSet<_>>().len(),
        parts: [parts[LEARN].len(), parts[CHOOSE].len(), parts[MEASURE].len()],
        judge: learned.judge.name(),
        precision_reached: threshold.is_some(),
        beats_grid: model.auc > grid.auc && model.recall_at_precision_90 > grid.recall_at_precision_90,
        model,
        grid,
    };
    Ok(Trained { bytes, report })
}

const LEARN: usize = 0;
const CHOOSE: usize = 1;
const MEASURE: usize = 2;
const PART_NAMES: [&str; 3] =
    ["the part to learn from", "the part to choose the threshold on", "the part to measure with"];
/// Shares of the groups.
const SHARES: [f64; 3] = [0.6, 0.15, 0.25];

/// Deals the groups into three parts, by a hash of seed and group; answers the indices of their crops.
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
            let part =
                if position < SHARES[LEARN] { LEARN } else { CHOOSE + usize::from(position >= 1.0 - SHARES[MEASURE]) };
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

/// Reads the picture of a label: what the model looks at, and a hash of the file.
pub fn input(label: &LabelledCrop) -> Result<(Input, ContentHash), TrainError> {
    let crop = |detail: String| TrainError::Crop { file: label.file.clone(), detail };
    let bytes = std::fs::read(&label.file).map_err(|error| crop(error.to_string()))?;
    let input = Input::decode(&bytes, mirrors(label)?).map_err(crop)?;
    Ok((input, ContentHash::of(&bytes)))
}

/// What the network sees in each crop, and a hash over all crops and labels.
struct Seen {
    features: Vec<Vec<f32>>,
    digest: String,
}

/// Runs the network over all crops, in as many threads as there are.
fn look(
    labels: &[LabelledCrop],
    trunk: &Trunk,
    runtime: &Runtime,
    threads: usize,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Seen, TrainError> {
    let bytes = trunk.clone().model().encode();
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (sender, next, bytes) = (sender.clone(), &next, &bytes);
            scope.spawn(move || {
                let mut session = match runtime.session("EfficientNet-Lite0", bytes, 1) {
                    Ok(session) => session,
                    Err(error) => return drop(sender.send((0, Err(error.into())))),
                };
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(label) = labels.get(i) else { return };
                    if sender.send((i, seen(label, &mut session))).is_err() {
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
        Ok(Seen { features, digest: hex(&hash.finalize()) })
    })
}

fn seen(label: &LabelledCrop, session: &mut Session) -> Result<(Vec<f32>, ContentHash), TrainError> {
    let (input, content) = input(label)?;
    let failed = |error: ort::Error| TrainError::Crop { file: label.file.clone(), detail: error.to_string() };
    let crop = TensorRef::from_array_view(([1, SIDE, SIDE, 3], input.pixels())).map_err(failed)?;
    let outputs = session.run(ort::inputs![Trunk::INPUT => crop]).map_err(failed)?;
    let (_, features) = outputs[Trunk::OUTPUT].try_extract_tensor::<f32>().map_err(failed)?;
    Ok((features.to_vec(), content))
}

fn judge_all(labels: &[LabelledCrop], part: &[usize], p_ok: &dyn Fn(usize) -> f64) -> Vec<Judged> {
    part.iter().map(|&i| Judged { p_ok: p_ok(i), ok: labels[i].ok }).collect()
}

fn cells(mirrors: &[f32; MIRRORS]) -> Vec<f64> {
    mirrors[2..].iter().map(|&share| f64::from(share)).collect()
}

/// What there is to learn from.
struct Learner<'a> {
    labels: &'a [LabelledCrop],
    features: &'a [Vec<f32>],
    mirrors: &'a [[f32; MIRRORS]],
    seed: u64,
}

/// What was learned: everything behind the network.
struct Learned {
    projection: Projection,
    scale: Scale,
    judge: Judge,
}

impl Learned {
    fn p_ok(&self, features: &[f32], mirrors: &[f32; MIRRORS]) -> f64 {
        self.judge.p_ok(&self.scale.apply(&join(&self.projection, features, mirrors)))
    }
}

fn join(projection: &Projection, features: &[f32], mirrors: &[f32; MIRRORS]) -> Vec<f64> {
    let mut row = projection.apply(features);
    row.extend(mirrors.iter().map(|&share| f64::from(share)));
    row
}

impl Learner<'_> {
    fn learn(&self, parts: &[Vec<usize>; 3]) -> Learned {
        let learn = &parts[LEARN];
        let step = learn.len().div_ceil(PROJECTED);
        let some: Vec<&[f32]> = learn.iter().step_by(step).map(|&i| &self.features[i][..]).collect();
        let projection = Projection::fit(&some, self.seed);
        let rows = |part: &[usize]| {
            let row = |&i: &usize| join(&projection, &self.features[i], &self.mirrors[i]);
            Matrix::from_rows(&part.iter().map(row).collect::<Vec<_>>())
        };
        let raw = rows(learn);
        let scale = Scale::fit(&raw).limited(KEPT, MIRROR_GAIN);
        let examples = self.examples(learn, scale.apply_all(&raw));
        let judge = if learn.len() < ENOUGH_FOR_UNITS {
            Judge::Logistic(Logistic::fit(&examples, RIDGE))
        } else {
            let others = self.examples(&parts[CHOOSE], scale.apply_all(&rows(&parts[CHOOSE])));
            Judge::Perceptron(Perceptron::fit(&examples, &others, self.seed))
        };
        Learned { projection, scale, judge }
    }

    /// The classifier to beat.
    fn grid_alone(&self, learn: &[usize]) -> Logistic {
        let rows = Matrix::from_rows(&learn.iter().map(|&i| cells(&self.mirrors[i])).collect::<Vec<_>>());
        Logistic::fit(&self.examples(learn, rows), GRID_RIDGE)
    }

    fn examples(&self, part: &[usize], rows: Matrix) -> Examples {
        Examples { rows, ok: part.iter().map(|&i| self.labels[i].ok).collect() }
    }
}

/// Puts network, projection, scale and judge into one graph. All arithmetic is in convolutions, of one pixel where
/// there is but one: onnxruntime computes them crop by crop, so a score does not depend on the batch around it.
fn assemble(trunk: Trunk, learned: &Learned, threshold: f64, digest: &str, created_from: &str) -> ModelProto {
    let Trunk { mut nodes, mut weights } = trunk;
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
    nodes.push(layer(Trunk::OUTPUT, "projection", &rows, &bias, GRID));
    nodes.push(NodeProto::new("Reshape", &[MIRRORED, "mirrors.shape"], &["mirrors"]));
    nodes.push(NodeProto::new("Concat", &["projection", "mirrors"], &["joined"]).with(AttributeProto::int("axis", 1)));
    let last = match &learned.judge {
        Judge::Logistic(judge) => {
            let (rows, bias) = unscaled(&learned.scale, std::slice::from_ref(&judge.weights), &[judge.bias]);
            layer("joined", "logit", &rows, &bias, 1)
        }
        Judge::Perceptron(judge) => {
            let hidden: Vec<Vec<f64>> = (0..UNITS).map(|unit| judge.hidden.row(unit).to_vec()).collect();
            let (rows, bias) = unscaled(&learned.scale, &hidden, &judge.hidden_bias);
            nodes.push(layer("joined", "hidden", &rows, &bias, 1));
            nodes.push(NodeProto::new("Relu", &["hidden"], &["active"]));
            layer("active", "logit", std::slice::from_ref(&judge.top), &[judge.bias], 1)
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
        input: vec![Trunk::input(), ValueInfoProto::floats(MIRRORED, &[batch, Dim::Fixed(MIRRORS as i64)])],
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

/// The projection with its scale: the rows that [`Scale`] brings to variance 1, and what they are short of mean 0.
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

/// Weights on scaled inputs as weights on [`KEPT`] scaled ones and the mirror features as they come.
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

/// What the finished file says of some of the crops.
fn score(bytes: &[u8], labels: &[LabelledCrop], part: &[usize], runtime: &Runtime) -> Result<Vec<f64>, TrainError> {
    let mut model = Model::from_bytes("the new classifier", bytes, runtime)?;
    let mut scores = Vec::with_capacity(part.len());
    for some in part.chunks(16) {
        let inputs = some.iter().map(|&i| Ok(input(&labels[i])?.0)).collect::<Result<Vec<_>, TrainError>>()?;
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
    fn no_group_is_on_both_sides() {
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
    fn a_part_without_both_kinds_is_refused_by_name() {
        let labels: Vec<LabelledCrop> = (0..40).map(|i| label(&i.to_string(), &i.to_string(), false)).collect();
        let error = split(&labels, 1).unwrap_err().to_string();
        assert!(error.starts_with("the part to learn from has 0 OK and 24 NG crops"), "{error}");
    }

    #[test]
    fn folding_the_scale_changes_no_score() {
        let mut random = super::super::random::Random::seeded(5);
        let mut values = |n: usize| (0..n).map(|_| random.normal()).collect::<Vec<_>>();
        let components = Matrix::from_rows(&(0..KEPT).map(|_| values(FEATURES)).collect::<Vec<_>>());
        let projection = Projection { mean: values(FEATURES), components };
        let scale = Scale { mean: values(KEPT + MIRRORS), gain: values(KEPT + MIRRORS) };
        let judge = Logistic { weights: values(KEPT + MIRRORS).iter().map(|w| w / 100.0).collect(), bias: 0.3 };
        let features: Vec<f32> = values(FEATURES).iter().map(|&value| value as f32).collect();
        let mirrors = [0.25; MIRRORS];
        let expected = dot(&scale.apply(&join(&projection, &features, &mirrors)), &judge.weights) + judge.bias;

        let (rows, bias) = scaled_projection(&projection, &scale);
        let features: Vec<f64> = features.iter().map(|&value| f64::from(value)).collect();
        let mut x: Vec<f64> = rows.iter().zip(&bias).map(|(row, bias)| dot(row, &features) + bias).collect();
        x.extend([0.25; MIRRORS]);
        let (rows, bias) = unscaled(&scale, &[judge.weights], &[judge.bias]);
        assert!((dot(&rows[0], &x) + bias[0] - expected).abs() < 1e-9);
    }
}
