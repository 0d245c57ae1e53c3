//! The ONNX file: backbone, projection, scale, head and calibration in one graph.
//!
//! All arithmetic is convolutions, with a 1x1 kernel behind the projection: onnxruntime computes them crop by crop, so
//! a score does not depend on the rest of the batch.

use ort::session::Session;
use ort::value::TensorRef;

use super::calibration::{Calibration, Platt, SIGMOID_SHARE};
use super::head::{Head, KEPT, Projection, Scale, UNITS};
use super::learner::Learned;
use super::matrix::dot;
use crate::classifier::backbone::{Backbone, CHANNELS, FEATURES, GRID, OPSET};
use crate::classifier::model::{self, MIRRORED, MIRRORS, P_OK};
use crate::inference::onnx::{
    AttributeProto, Dim, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto,
};
use crate::inference::{InferenceError, Runtime};

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
        let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect::<Vec<_>>();
        let channels = rows[0].len() / (side * side);
        let dims = [rows.len() as i64, channels as i64, side as i64, side as i64];
        let (weight_name, bias_name) = (format!("{output}.w"), format!("{output}.b"));
        self.weights.push(TensorProto::floats(&weight_name, &dims, &narrow(&rows.concat())));
        self.weights.push(TensorProto::floats(&bias_name, &[rows.len() as i64], &narrow(bias)));
        let node = NodeProto::new("Conv", &[input, &weight_name, &bias_name], &[output])
            .with(AttributeProto::ints("kernel_shape", &[side as i64, side as i64]));
        self.nodes.push(node);
    }

    fn node(&mut self, op_type: &str, input: &[&str], output: &str) {
        self.nodes.push(NodeProto::new(op_type, input, &[output]));
    }

    /// Joins channels.
    fn concat(&mut self, input: &[&str], output: &str) {
        self.nodes.push(NodeProto::new("Concat", input, &[output]).with(AttributeProto::int("axis", 1)));
    }

    /// From `score` to `probability`.
    fn calibrate(&mut self, calibration: &Calibration) {
        let (Calibration::Platt(platt) | Calibration::Isotonic { platt, .. }) = calibration;
        let Platt { slope, offset } = *platt;
        self.layer("score", "logit", &[vec![slope]], &[offset], 1);
        let Calibration::Isotonic { knots, .. } = calibration else {
            return self.node("Sigmoid", &["logit"], "probability");
        };
        self.node("Sigmoid", &["logit"], "sigmoid");
        // The piecewise linear function: its first value, and a change of slope at each point.
        let slopes: Vec<f64> = knots.windows(2).map(|pair| (pair[1].1 - pair[0].1) / (pair[1].0 - pair[0].0)).collect();
        let slope = |i: Option<usize>| i.and_then(|i| slopes.get(i)).copied().unwrap_or(0.0);
        let changes: Vec<f64> = (0..knots.len()).map(|i| slope(Some(i)) - slope(i.checked_sub(1))).collect();
        let ones = vec![vec![1.0]; knots.len()];
        self.layer("score", "beyond", &ones, &knots.iter().map(|knot| -knot.0).collect::<Vec<_>>(), 1);
        self.node("Relu", &["beyond"], "distance");
        self.layer("distance", "isotonic", &[changes], &[knots.first().map_or(0.5, |knot| knot.1)], 1);
        self.concat(&["isotonic", "sigmoid"], "both");
        self.layer("both", "mixed", &[vec![1.0 - SIGMOID_SHARE, SIGMOID_SHARE]], &[0.0], 1);
        self.weights.push(TensorProto::floats("probability.least", &[], &[0.0]));
        self.weights.push(TensorProto::floats("probability.most", &[], &[1.0]));
        self.node("Clip", &["mixed", "probability.least", "probability.most"], "probability");
    }
}

fn graph(nodes: Vec<NodeProto>, weights: Vec<TensorProto>, input: ValueInfoProto, learned: &Learned) -> GraphProto {
    let mut builder = Builder { nodes, weights };
    let (rows, bias) = scaled_projection(&learned.projection, &learned.scale);
    builder.layer(Backbone::OUTPUT, "projection", &rows, &bias, GRID);
    builder.node("Reshape", &[MIRRORED, "mirrors.shape"], "mirrors");
    builder.concat(&["projection", "mirrors"], "joined");
    match &learned.head {
        Head::Logistic(head) => {
            let (rows, bias) = unscaled(&learned.scale, std::slice::from_ref(&head.weights), &[head.bias]);
            builder.layer("joined", "score", &rows, &bias, 1);
        }
        Head::Perceptron(head) => {
            let hidden: Vec<Vec<f64>> = (0..UNITS).map(|unit| head.hidden.row(unit).to_vec()).collect();
            let (rows, bias) = unscaled(&learned.scale, &hidden, &head.hidden_bias);
            builder.layer("joined", "hidden", &rows, &bias, 1);
            builder.node("Relu", &["hidden"], "active");
            builder.layer("active", "score", std::slice::from_ref(&head.top), &[head.bias], 1);
        }
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
    use crate::config::Models;
    use crate::training::head::{Logistic, Perceptron};
    use crate::training::matrix::Matrix;
    use crate::training::random::Random;

    /// Random parts of a classifier.
    fn learned(head: Head, calibration: Calibration) -> Learned {
        let mut random = Random::seeded(5);
        let mut values = |n: usize| (0..n).map(|_| random.normal()).collect::<Vec<_>>();
        let components = Matrix::from_rows(&(0..KEPT).map(|_| values(FEATURES)).collect::<Vec<_>>());
        let projection = Projection { mean: values(FEATURES), components };
        let gain = values(KEPT + MIRRORS).iter().map(|gain| gain.abs() / 40.0).collect();
        let scale = Scale { mean: values(KEPT + MIRRORS), gain };
        Learned { projection, scale, head, calibration, penalty: 1.0, out_of_sample: vec![] }
    }

    #[test]
    fn the_graph_computes_what_was_learnt() {
        let models = Models::find(std::env::var_os(Models::ENV).map(std::path::PathBuf::from));
        let runtime = Runtime::load(&models.onnxruntime()).unwrap();
        let mut random = Random::seeded(6);
        let mut values = |n: usize, size: f64| (0..n).map(|_| size * random.normal()).collect::<Vec<_>>();
        let logistic = Head::Logistic(Logistic { weights: values(KEPT + MIRRORS, 0.4), bias: 0.3 });
        let perceptron = Head::Perceptron(Perceptron {
            hidden: Matrix::from_rows(&(0..UNITS).map(|_| values(KEPT + MIRRORS, 0.4)).collect::<Vec<_>>()),
            hidden_bias: values(UNITS, 0.1),
            top: values(UNITS, 0.5),
            bias: -0.2,
        });
        let platt = Platt { slope: 0.7, offset: -0.4 };
        let knots = vec![(-2.0, 0.0), (-1.98, 0.04), (-0.5, 0.1), (0.4, 0.7), (0.45, 0.8), (3.0, 1.0)];
        let isotonic = Calibration::Isotonic { knots, platt };
        let inputs: Vec<(Vec<f32>, [f32; MIRRORS])> = (0..40)
            .map(|i| (values(FEATURES, 1.0).iter().map(|v| *v as f32).collect(), [0.02 * i as f32; MIRRORS]))
            .collect();
        for learned in [
            learned(logistic.clone(), Calibration::Platt(platt)),
            learned(logistic, isotonic.clone()),
            learned(perceptron, isotonic),
        ] {
            let mut session = HeadSession::open(&learned, &runtime).unwrap();
            let mut seen = Vec::new();
            for (features, mirrors) in &inputs {
                let (found, expected) = (session.p_ok(features, mirrors).unwrap(), learned.p_ok(features, mirrors));
                assert!((found - expected).abs() < 1e-4, "{found} for {expected}");
                seen.push(expected);
            }
            seen.sort_by(f64::total_cmp);
            assert!(seen[39] - seen[0] > 0.4, "the inputs cover the range: {seen:?}");
        }
    }
}
