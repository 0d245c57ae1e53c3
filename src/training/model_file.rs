//! The ONNX file: backbone, head and calibration in one graph.
//!
//! All arithmetic is convolutions, with a 1x1 kernel behind the projection: onnxruntime computes them crop by crop, so
//! a score does not depend on the rest of the batch.

use ort::session::Session;
use ort::value::TensorRef;

use super::calibration::{Calibration, Platt, SIGMOID_SHARE};
use super::cells::{CELLS, Cells, DETECTORS, NEIGHBOURS, SHARE_GAIN, UNITS, share_at};
use super::head::{KEPT, Projection, Scale};
use super::learner::{Head, Learned, Linear};
use super::matrix::dot;
use facemill_classifier::backbone::{Backbone, CHANNELS, GRID, OPSET};
use facemill_classifier::coarse::{COARSE, spread};
use facemill_classifier::model::{self, MIRROR_GRID, MIRRORED, MIRRORS, P_OK};
use facemill_inference::onnx::{
    AttributeProto, Dim, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto,
};
use facemill_inference::{InferenceError, Runtime};

/// The classifier as an ONNX file with these metadata.
pub fn compose(backbone: Backbone, learned: &Learned, metadata: Vec<(&str, String)>) -> ModelProto {
    let Backbone { nodes, weights, .. } = backbone;
    let graph = graph(nodes, weights, Backbone::input(), learned);
    let metadata_props = metadata.into_iter().map(|(key, value)| StringStringEntryProto::new(key, value)).collect();
    ModelProto { metadata_props, ..ModelProto::new(graph, OPSET) }
}

/// The part after the backbone alone: features in, P(OK) out. For measuring from stored features.
pub fn head_only(learned: &Learned) -> ModelProto {
    let grid = Dim::Fixed(GRID as i64);
    let shape = [Dim::Named("batch"), Dim::Fixed(CHANNELS as i64), grid, grid];
    let input = ValueInfoProto::floats(Backbone::OUTPUT, &shape);
    ModelProto::new(graph(Vec::new(), Vec::new(), input, learned), OPSET)
}

/// The nodes and the weights of a graph while it is made.
struct Builder {
    nodes: Vec<NodeProto>,
    weights: Vec<TensorProto>,
}

impl Builder {
    /// A convolution whose kernel covers `side` x `side` values: one row for each output channel.
    fn layer(&mut self, input: &str, output: &str, rows: &[Vec<f64>], bias: &[f64], side: usize) {
        self.padded_layer(input, output, rows, bias, side, 0);
    }

    /// As [`layer`](Self::layer), with so many zeros around the input.
    fn padded_layer(&mut self, input: &str, output: &str, rows: &[Vec<f64>], bias: &[f64], side: usize, zeros: i64) {
        let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<_>>();
        let channels = rows[0].len() / (side * side);
        let dims = [rows.len() as i64, channels as i64, side as i64, side as i64];
        let (weight_name, bias_name) = (format!("{output}.w"), format!("{output}.b"));
        self.weights.push(TensorProto::floats(&weight_name, &dims, &narrow(&rows.concat())));
        self.weights.push(TensorProto::floats(&bias_name, &[rows.len() as i64], &narrow(bias)));
        let mut node = NodeProto::new("Conv", &[input, &weight_name, &bias_name], &[output])
            .with(AttributeProto::ints("kernel_shape", &[side as i64, side as i64]));
        if zeros > 0 {
            node = node.with(AttributeProto::ints("pads", &[zeros; 4]));
        }
        self.nodes.push(node);
    }

    fn linear(&mut self, Linear { projection, scale, head }: &Linear) {
        let (rows, bias) = scaled_projection(projection, scale);
        self.layer(Backbone::OUTPUT, "projection", &rows, &bias, GRID);
        self.concat(&["projection", "mirrors"], "joined");
        let (rows, bias) = unscaled(scale, std::slice::from_ref(&head.weights), &[head.bias]);
        self.layer("joined", "score", &rows, &bias, 1);
    }

    /// The detectors see channels and shares in two convolutions, and so do the units.
    fn cells(&mut self, cells: &Cells) {
        let Cells { channels, mirrors, detectors, detector_bias, hidden, hidden_bias, top, bias } = cells;
        let detectors: Vec<&[f64]> = (0..DETECTORS).map(|i| detectors.row(i)).collect();
        let of_channels: Vec<(Vec<f64>, f64)> = detectors
            .iter()
            .zip(detector_bias)
            .map(|(row, bias)| without_scale(channels, &row[..CHANNELS], *bias))
            .collect();
        let (rows, biases): (Vec<_>, Vec<_>) = of_channels.into_iter().unzip();
        self.layer(Backbone::OUTPUT, "channels.detected", &rows, &biases, 1);
        for (name, values) in [
            ("grid.first", [(MIRRORS - MIRROR_GRID.pow(2)) as i64]),
            ("grid.last", [MIRRORS as i64]),
            ("grid.axis", [1]),
        ] {
            self.weights.push(TensorProto::int64s(name, &[1], &values));
        }
        self.weights.push(TensorProto::int64s("grid.shape", &[4], &[-1, 1, MIRROR_GRID as i64, MIRROR_GRID as i64]));
        self.node("Slice", &[MIRRORED, "grid.first", "grid.last", "grid.axis"], "grid.flat");
        self.node("Reshape", &["grid.flat", "grid.shape"], "grid");
        let rows: Vec<Vec<f64>> =
            detectors.iter().map(|row| row[CHANNELS..].iter().map(|weight| weight * SHARE_GAIN).collect()).collect();
        debug_assert_eq!(rows[0].len(), NEIGHBOURS);
        self.padded_layer("grid", "places.detected", &rows, &[0.0; DETECTORS], 3, 1);
        let places: Vec<i64> = (0..GRID).map(|cell| share_at(cell) as i64).collect();
        self.weights.push(TensorProto::int64s("cells.places", &[GRID as i64], &places));
        self.gather("places.detected", 2, "rows.detected");
        self.gather("rows.detected", 3, "shares.detected");
        self.node("Add", &["channels.detected", "shares.detected"], "detected");
        self.node("Relu", &["detected"], "seen");

        let units: Vec<&[f64]> = (0..UNITS).map(|i| hidden.row(i)).collect();
        let rows: Vec<Vec<f64>> = units.iter().map(|row| row[..DETECTORS * CELLS].to_vec()).collect();
        self.layer("seen", "seen.hidden", &rows, hidden_bias, GRID);
        let of_mirrors = units.iter().map(|row| without_scale(mirrors, &row[DETECTORS * CELLS..], 0.0));
        let (rows, biases): (Vec<_>, Vec<_>) = of_mirrors.unzip();
        self.layer("mirrors", "mirrors.hidden", &rows, &biases, 1);
        self.node("Add", &["seen.hidden", "mirrors.hidden"], "hidden");
        self.node("Relu", &["hidden"], "active");
        self.layer("active", "score", std::slice::from_ref(top), &[*bias], 1);
    }

    fn node(&mut self, op_type: &str, input: &[&str], output: &str) {
        self.nodes.push(NodeProto::new(op_type, input, &[output]));
    }

    /// Copies the places of a row or column to the cells that have them at their centre.
    fn gather(&mut self, input: &str, axis: i64, output: &str) {
        let node = NodeProto::new("Gather", &[input, "cells.places"], &[output]);
        self.nodes.push(node.with(AttributeProto::int("axis", axis)));
    }

    /// Joins channels.
    fn concat(&mut self, input: &[&str], output: &str) {
        self.nodes.push(NodeProto::new("Concat", input, &[output]).with(AttributeProto::int("axis", 1)));
    }

    /// From `score` to `probability`.
    fn calibrate(&mut self, calibration: &Calibration) {
        let (Calibration::Platt(platt) | Calibration::Isotonic { platt, .. }) = calibration;
        let Platt { slope, offset, slips } = *platt;
        self.layer("score", "logit", &[vec![slope]], &[offset], 1);
        self.node("Sigmoid", &["logit"], "sigmoid");
        let Calibration::Isotonic { knots, .. } = calibration else {
            return self.layer("sigmoid", "probability", &[vec![1.0 - 2.0 * slips]], &[slips], 1);
        };
        // The piecewise linear function: its first value, and a change of slope at each point.
        let slopes: Vec<f64> = knots.windows(2).map(|pair| (pair[1].1 - pair[0].1) / (pair[1].0 - pair[0].0)).collect();
        let slope = |i: Option<usize>| i.and_then(|i| slopes.get(i)).copied().unwrap_or(0.0);
        let changes: Vec<f64> = (0..knots.len()).map(|i| slope(Some(i)) - slope(i.checked_sub(1))).collect();
        let ones = vec![vec![1.0]; knots.len()];
        self.layer("score", "beyond", &ones, &knots.iter().map(|knot| -knot.0).collect::<Vec<_>>(), 1);
        self.node("Relu", &["beyond"], "distance");
        self.layer("distance", "isotonic", &[changes], &[knots.first().map_or(0.5, |knot| knot.1)], 1);
        self.concat(&["isotonic", "sigmoid"], "both");
        let of_sigmoid = SIGMOID_SHARE * (1.0 - 2.0 * slips);
        self.layer("both", "mixed", &[vec![1.0 - SIGMOID_SHARE, of_sigmoid]], &[SIGMOID_SHARE * slips], 1);
        self.weights.push(TensorProto::floats("probability.least", &[], &[0.0]));
        self.weights.push(TensorProto::floats("probability.most", &[], &[1.0]));
        self.node("Clip", &["mixed", "probability.least", "probability.most"], "probability");
    }
}

fn graph(nodes: Vec<NodeProto>, weights: Vec<TensorProto>, input: ValueInfoProto, learned: &Learned) -> GraphProto {
    let mut builder = Builder { nodes, weights };
    builder.node("Reshape", &[MIRRORED, "mirrors.shape"], "mirrors");
    match &learned.head {
        Head::Logistic(linear) => builder.linear(linear),
        Head::Cells(cells) => builder.cells(cells),
    }
    builder.calibrate(&learned.calibration);
    builder.node("Reshape", &["probability", "p_ok.shape"], P_OK);
    builder.weights.push(TensorProto::int64s("mirrors.shape", &[4], &[-1, MIRRORS as i64, 1, 1]));
    builder.weights.push(TensorProto::int64s("p_ok.shape", &[2], &[-1, 1]));
    let batch = Dim::Named("batch");
    GraphProto {
        name: Some(model::NAME.into()),
        node: builder.nodes,
        initializer: builder.weights,
        input: vec![input, ValueInfoProto::floats(MIRRORED, &[batch, Dim::Fixed(MIRRORS as i64)])],
        output: vec![ValueInfoProto::floats(P_OK, &[batch, Dim::Fixed(1)])],
        ..GraphProto::default()
    }
}

/// The projection of the features with [`Scale`] and the coarse windows folded in: its rows, and the bias that brings their output to mean 0.
fn scaled_projection(projection: &Projection, scale: &Scale) -> (Vec<Vec<f64>>, Vec<f64>) {
    debug_assert_eq!(projection.components.columns(), COARSE);
    let row = |i: usize| {
        let row: Vec<f64> = projection.components.row(i).iter().map(|value| value * scale.gain[i]).collect();
        let bias = -dot(&row, &projection.mean) - scale.mean[i] * scale.gain[i];
        (spread(&row), bias)
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

/// The weights and the bias for inputs that are not scaled.
fn without_scale(scale: &Scale, row: &[f64], bias: f64) -> (Vec<f64>, f64) {
    let row: Vec<f64> = row.iter().zip(&scale.gain).map(|(weight, gain)| weight * gain).collect();
    let bias = bias - dot(&row, &scale.mean);
    (row, bias)
}

/// Runs the part after the backbone on stored features: P(OK) of each crop.
pub struct HeadSession(Session);

impl HeadSession {
    pub fn open(learned: &Learned, runtime: &Runtime) -> Result<Self, InferenceError> {
        Ok(Self(runtime.session("the new head", &head_only(learned).encode(), 1)?))
    }

    /// # Errors
    /// onnxruntime fails.
    pub fn p_ok(&mut self, features: &[f32], mirrors: &[f32; MIRRORS]) -> Result<f64, InferenceError> {
        let mut run = || -> ort::Result<f64> {
            let features = TensorRef::from_array_view(([1, CHANNELS, GRID, GRID], features))?;
            let mirrors = TensorRef::from_array_view(([1, MIRRORS], &mirrors[..]))?;
            let outputs = self.0.run(ort::inputs![Backbone::OUTPUT => features, MIRRORED => mirrors])?;
            let (_, p_ok) = outputs[P_OK].try_extract_tensor::<f32>()?;
            Ok(p_ok.first().copied().map_or(f64::NAN, f64::from))
        };
        run().map_err(|error| InferenceError::Run { model: "the new head".into(), detail: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Logistic;
    use crate::matrix::Matrix;
    use crate::random::Random;
    use facemill_classifier::backbone::FEATURES;
    use facemill_inference::Models;

    fn learned(head: Head, calibration: Calibration) -> Learned {
        Learned { head, calibration, penalty: 1.0, out_of_sample: vec![] }
    }

    #[test]
    fn the_graph_computes_what_was_learnt() {
        let models = Models::find(std::env::var_os(Models::ENV).map(std::path::PathBuf::from));
        let runtime = Runtime::load(&models.onnxruntime()).unwrap();
        let mut random = Random::seeded(6);
        let mut values = |n: usize, size: f64| (0..n).map(|_| size * random.normal()).collect::<Vec<_>>();
        let mut rows = |count: usize, n: usize, size: f64| {
            Matrix::from_rows(&(0..count).map(|_| values(n, size)).collect::<Vec<_>>())
        };
        let components = rows(KEPT, COARSE, 1.0);
        let (detectors, hidden) =
            (rows(DETECTORS, CHANNELS + NEIGHBOURS, 0.1), rows(UNITS, DETECTORS * CELLS + MIRRORS, 0.1));
        let mut scale = |n: usize, size: f64| Scale {
            mean: values(n, 1.0),
            gain: values(n, size).iter().map(|gain| gain.abs()).collect(),
        };
        let (projected, channels, mirrors) = (scale(KEPT + MIRRORS, 0.025), scale(CHANNELS, 1.0), scale(MIRRORS, 1.0));
        let projection = Projection { mean: values(COARSE, 1.0), components };
        let weights = Logistic { weights: values(KEPT + MIRRORS, 0.4), bias: 0.3 };
        let logistic = Head::Logistic(Linear { projection, scale: projected, head: weights });
        let mut cells = Cells {
            channels,
            mirrors,
            detectors,
            detector_bias: values(DETECTORS, 0.1),
            hidden,
            hidden_bias: values(UNITS, 0.1),
            top: values(UNITS, 0.2),
            bias: -0.2,
        };
        let platt = Platt { slope: 0.7, offset: -0.4, slips: 0.05 };
        let knots = vec![(-2.0, 0.0), (-1.98, 0.04), (-0.5, 0.1), (0.4, 0.7), (0.45, 0.8), (3.0, 1.0)];
        let isotonic = Calibration::Isotonic { knots, platt };
        let inputs: Vec<(Vec<f32>, [f32; MIRRORS])> = (0..40)
            .map(|i| {
                (
                    values(FEATURES, 1.0).iter().map(|v| (v + 0.1 * f64::from(i - 20)) as f32).collect(),
                    std::array::from_fn(|j| 0.02 * i as f32 + 0.01 * j as f32),
                )
            })
            .collect();
        let scores: f64 = inputs.iter().map(|(features, mirrors)| cells.score((features, mirrors))).sum();
        cells.bias -= scores / inputs.len() as f64;
        for learned in [
            learned(logistic.clone(), Calibration::Platt(platt)),
            learned(logistic, isotonic.clone()),
            learned(Head::Cells(cells), isotonic),
        ] {
            let mut session = HeadSession::open(&learned, &runtime).unwrap();
            let mut seen = Vec::new();
            for (features, mirrors) in &inputs {
                let (found, expected) = (session.p_ok(features, mirrors).unwrap(), learned.p_ok(features, mirrors));
                assert!((found - expected).abs() < 1e-4, "{found} for {expected}");
                seen.push(expected);
            }
            seen.sort_by(f64::total_cmp);
            assert!(seen[39] - seen[0] > 0.4, "{}: the inputs cover the range: {seen:?}", learned.head.name());
        }
    }
}
