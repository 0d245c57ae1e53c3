//! The network that extracts features: EfficientNet-Lite0 with its ImageNet weights, as an ONNX graph.
//!
//! `models/convert_lite0.py` makes the file and documents the network.

use std::path::{Path, PathBuf};

use super::model::{CROP, SIDE};
use facemill_inference::InferenceError;
use facemill_inference::onnx::{Dim, ModelProto, NodeProto, TensorProto, ValueInfoProto, elem};

/// Features of a crop: 112 channels on a 7x7 grid.
pub const FEATURES: usize = CHANNELS * GRID * GRID;
pub const CHANNELS: usize = 112;
pub const GRID: usize = 7;

/// The operator set of the backbone, and so of the classifiers that contain it.
pub const OPSET: i64 = 13;

#[derive(Debug, thiserror::Error)]
pub enum BackboneError {
    #[error(transparent)]
    Inference(#[from] InferenceError),
    #[error("{} is not the converted EfficientNet-Lite0: {detail}; `make setup` makes it", path.display())]
    Invalid { path: PathBuf, detail: String },
}

/// The backbone's file and its graph. Training adds the head to the graph.
#[derive(Debug, Clone)]
pub struct Backbone {
    /// The ONNX file.
    pub bytes: Vec<u8>,
    pub nodes: Vec<NodeProto>,
    pub weights: Vec<TensorProto>,
}

impl Backbone {
    /// The input: RGB bytes of crops, `[N, 224, 224, 3]`.
    pub const INPUT: &'static str = CROP;
    /// The output: `[N, 112, 7, 7]`.
    pub const OUTPUT: &'static str = "features";

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is not an ONNX file, or has another input, output or operator set.
    pub fn read(path: &Path) -> Result<Self, BackboneError> {
        let bytes = facemill_inference::read(path)?;
        Self::decode(bytes).map_err(|detail| BackboneError::Invalid { path: path.into(), detail })
    }

    fn decode(bytes: Vec<u8>) -> Result<Self, String> {
        let model = ModelProto::decode(&bytes).map_err(|error| error.to_string())?;
        let graph = model.graph.ok_or("it has no graph")?;
        let opset = model.opset_import.iter().find_map(|set| set.version);
        if opset != Some(OPSET) {
            return Err(format!("its operator set is {opset:?}, not {OPSET}"));
        }
        if graph.input != [Self::input()] || graph.output != [Self::output()] {
            return Err("its input or output differs".into());
        }
        Ok(Self { bytes, nodes: graph.node, weights: graph.initializer })
    }

    /// The description of [`Backbone::INPUT`].
    pub fn input() -> ValueInfoProto {
        let side = Dim::Fixed(SIDE as i64);
        ValueInfoProto::tensor(Self::INPUT, elem::UINT8, &[Dim::Named("batch"), side, side, Dim::Fixed(3)])
    }

    fn output() -> ValueInfoProto {
        let grid = Dim::Fixed(GRID as i64);
        ValueInfoProto::floats(Self::OUTPUT, &[Dim::Named("batch"), Dim::Fixed(CHANNELS as i64), grid, grid])
    }
}

#[cfg(test)]
mod tests {
    use ort::value::TensorRef;

    use super::*;
    use facemill_domain::ContentHash;
    use facemill_inference::{Models, Runtime};

    fn models() -> Models {
        Models::find(std::env::var_os(Models::ENV).map(PathBuf::from))
    }

    /// A reproducible image in which no two rows, columns or channels are alike.
    fn pattern() -> Vec<u8> {
        let pixel = |i: usize| {
            let (y, x, channel) = (i / (3 * SIDE), i / 3 % SIDE, i % 3);
            (x * 7 + y * 3 + channel * 50 + x * y / 16) as u8
        };
        (0..SIDE * SIDE * 3).map(pixel).collect()
    }

    #[test]
    fn the_file_matches_its_pin() {
        let pins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/pins.json");
        let pins: serde_json::Value = serde_json::from_slice(&std::fs::read(pins).unwrap()).unwrap();
        let members = pins.as_array().unwrap().iter().flat_map(|pin| pin["members"].as_array().unwrap());
        let pin = members.into_iter().find(|member| member["to"] == "models/efficientnet-lite0.onnx").unwrap();
        let bytes = Backbone::read(&models().lite0()).expect("efficientnet-lite0.onnx (`make setup` makes it)").bytes;
        assert_eq!(pin["sha256"], ContentHash::of(&bytes).to_string());
        assert_eq!(pin["size"], bytes.len());
    }

    /// The expected values come from another implementation: plain sums over windows in 64 bits, without folded batch
    /// normalisation. That implementation also has the blocks and classes after the cut, and recognises a cat and an
    /// espresso. Its values are means over windows of 5x5 positions, three apart.
    #[test]
    fn features_match_the_published_network() {
        const POSITIONS: usize = 2 * GRID;
        let backbone = Backbone::read(&models().lite0()).expect("efficientnet-lite0.onnx (`make setup` makes it)");
        let mut model = ModelProto::decode(&backbone.bytes).unwrap();
        let graph = model.graph.as_mut().unwrap();
        let inner = graph.node.last().unwrap().input[0].clone();
        let sides = [Dim::Fixed(POSITIONS as i64); 2];
        graph.output.push(ValueInfoProto::floats(
            &inner,
            &[Dim::Named("batch"), Dim::Fixed(CHANNELS as i64), sides[0], sides[1]],
        ));
        let runtime = Runtime::load(&models().onnxruntime()).unwrap();
        let mut session = runtime.session("EfficientNet-Lite0", &model.encode(), 1).unwrap();
        let crop = pattern();
        let crop = TensorRef::from_array_view(([1, SIDE, SIDE, 3], &crop[..])).unwrap();
        let outputs = session.run(ort::inputs![Backbone::INPUT => crop]).unwrap();
        let (shape, features) = outputs[Backbone::OUTPUT].try_extract_tensor::<f32>().unwrap();
        assert_eq!(&shape[..], [1, CHANNELS as i64, GRID as i64, GRID as i64]);
        let (_, positions) = outputs[&inner[..]].try_extract_tensor::<f32>().unwrap();
        let mean = |channel: usize, side: usize, top: usize, left: usize| {
            let of_row = |row: usize| {
                let first = (channel * POSITIONS + row) * POSITIONS + left;
                positions[first..first + side].iter().sum::<f32>()
            };
            (top..top + side).map(of_row).sum::<f32>() / (side * side) as f32
        };
        let golden = [
            ([0, 0, 0], 8.135_56),
            ([1, 0, 3], 3.759_753),
            ([17, 3, 0], 3.762_896),
            ([55, 2, 1], 6.414_435),
            ([111, 3, 3], -1.728_448),
        ];
        for ([channel, row, column], expected) in golden {
            let found = mean(channel, 5, 3 * row, 3 * column);
            assert!((found - expected).abs() < 1e-4, "[{channel}, {row}, {column}]: {found} for {expected}");
        }
        for (at, found) in features.iter().enumerate() {
            let (channel, row, column) = (at / (GRID * GRID), at / GRID % GRID, at % GRID);
            let expected = mean(channel, 2, 2 * row, 2 * column);
            assert!((found - expected).abs() < 1e-4, "[{channel}, {row}, {column}]: {found} for {expected}");
        }
    }

    #[test]
    fn the_committed_classifier_contains_this_backbone() {
        let backbone = Backbone::read(&models().lite0()).expect("efficientnet-lite0.onnx (`make setup` makes it)");
        let classifier =
            ModelProto::decode(&facemill_inference::read(&models().classifier()).unwrap()).unwrap().graph.unwrap();
        assert!(classifier.node.starts_with(&backbone.nodes));
        assert!(classifier.initializer.starts_with(&backbone.weights));
    }

    #[test]
    fn another_model_is_an_error() {
        let error = Backbone::read(&models().yunet()).unwrap_err().to_string();
        assert!(error.contains("yunet.onnx is not the converted EfficientNet-Lite0"), "{error}");
        assert!(Backbone::decode(b"not a model".to_vec()).is_err());
    }
}
