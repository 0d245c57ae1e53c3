//! EfficientNet-Lite0 with its ImageNet weights, cut after its eleventh block, as nodes of an ONNX graph.
//!
//! The network is that of Tan and Le (arXiv 1905.11946) in its Lite form: no squeeze-and-excitation, ReLU6 everywhere.
//! Batch normalisation is folded into the convolutions. What comes out, 14x14x112 for a crop of 224x224, is averaged
//! over 4x4 windows that overlap: a classifier of borders needs to know where something is, but not to the pixel.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::torch::{self, BadWeights, Tensor};
use crate::inference::onnx::{
    AttributeProto, Dim, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, elem,
};

/// Width and height of the picture that the network takes.
pub const SIDE: usize = 224;
/// Features of a crop: 112 channels on a grid of 4x4.
pub const FEATURES: usize = CHANNELS * GRID * GRID;
pub const CHANNELS: usize = 112;
pub const GRID: usize = 4;

/// The operator set of our graphs.
pub const OPSET: i64 = 13;

/// The variance that batch normalisation never divides by less than.
const EPSILON: f32 = 1e-3;

#[derive(Debug, thiserror::Error)]
pub enum Lite0Error {
    #[error("cannot read {}: {cause}; `make setup` fetches it", path.display())]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error("{} is not a file of torch weights: {cause}; `make setup` fetches a fresh copy", path.display())]
    Broken { path: PathBuf, cause: BadWeights },
    #[error("{} is not EfficientNet-Lite0: `{tensor}` is missing or has another shape", path.display())]
    Other { path: PathBuf, tensor: String },
}

/// The nodes and weights from input to features, to which a head is added.
#[derive(Debug, Clone, Default)]
pub struct Trunk {
    pub nodes: Vec<NodeProto>,
    pub weights: Vec<TensorProto>,
}

impl Trunk {
    /// The input: crops as bytes, row by row, red, green, blue: `[N, 224, 224, 3]`.
    pub const INPUT: &'static str = "crop";
    /// The output: `[N, 112, 4, 4]`.
    pub const OUTPUT: &'static str = "features";

    /// Reads the weights at `path` and builds the graph.
    ///
    /// # Errors
    /// The file is not there, is broken, or holds another network.
    pub fn read(path: &Path) -> Result<Self, Lite0Error> {
        let bytes = std::fs::read(path).map_err(|cause| Lite0Error::Unreadable { path: path.into(), cause })?;
        let tensors = torch::read(&bytes).map_err(|cause| Lite0Error::Broken { path: path.into(), cause })?;
        Self::build(&tensors).map_err(|tensor| Lite0Error::Other { path: path.into(), tensor })
    }

    /// The description of [`Trunk::INPUT`].
    pub fn input() -> ValueInfoProto {
        let side = Dim::Fixed(SIDE as i64);
        ValueInfoProto::tensor(Self::INPUT, elem::UINT8, &[Dim::Named("batch"), side, side, Dim::Fixed(3)])
    }

    /// A model that answers the features alone, for training.
    pub fn model(self) -> ModelProto {
        let grid = Dim::Fixed(GRID as i64);
        let dims = [Dim::Named("batch"), Dim::Fixed(CHANNELS as i64), grid, grid];
        let graph = GraphProto {
            name: Some("lite0".into()),
            node: self.nodes,
            initializer: self.weights,
            input: vec![Self::input()],
            output: vec![ValueInfoProto::floats(Self::OUTPUT, &dims)],
            ..GraphProto::default()
        };
        ModelProto::new(graph, OPSET)
    }

    /// The error is the name of the tensor that does not fit.
    fn build(tensors: &HashMap<String, Tensor>) -> Result<Self, String> {
        let mut trunk = Self::default();
        let mut at = trunk.normalise();
        at = trunk.convolve(tensors, &at, &Conv::new("_conv_stem", "_bn0", [32, 3, 3], 2, SIDE))?;
        at = trunk.relu6(&at);
        let mut side = SIDE / 2;
        let mut channels = 32;
        for (index, block) in BLOCKS.iter().enumerate() {
            at = trunk.block(tensors, &at, index, channels, block, side)?;
            side /= block.stride;
            channels = block.out;
        }
        let pool = NodeProto::new("AveragePool", &[&at], &[Self::OUTPUT])
            .with(AttributeProto::ints("kernel_shape", &[5, 5]))
            .with(AttributeProto::ints("strides", &[3, 3]));
        trunk.nodes.push(pool);
        Ok(trunk)
    }

    /// (rgb - 127) / 128, channels first. The zeros that convolutions add around it stand for grey, so this cannot be
    /// folded into the first of them.
    fn normalise(&mut self) -> String {
        self.weights.push(TensorProto::floats("grey", &[1], &[127.0]));
        self.weights.push(TensorProto::floats("scale", &[1], &[1.0 / 128.0]));
        self.nodes.extend([
            NodeProto::new("Cast", &[Self::INPUT], &["float"]).with(AttributeProto::int("to", elem::FLOAT.into())),
            NodeProto::new("Sub", &["float", "grey"], &["centred"]),
            NodeProto::new("Mul", &["centred", "scale"], &["scaled"]),
            NodeProto::new("Transpose", &["scaled"], &["planes"]).with(AttributeProto::ints("perm", &[0, 3, 1, 2])),
        ]);
        "planes".into()
    }

    /// An inverted residual: widen, look around, narrow; and add what came in where the shapes allow.
    fn block(
        &mut self,
        tensors: &HashMap<String, Tensor>,
        input: &str,
        index: usize,
        channels: usize,
        block: &Block,
        side: usize,
    ) -> Result<String, String> {
        let name = |part: &str| format!("_blocks.{index}.{part}");
        let wide = channels * block.widen;
        let mut at = input.to_owned();
        if block.widen > 1 {
            let shape = [wide, channels, 1];
            at = self.convolve(tensors, &at, &Conv::new(&name("_expand_conv"), &name("_bn0"), shape, 1, side))?;
            at = self.relu6(&at);
        }
        let shape = [wide, 1, block.kernel];
        let around = Conv::new(&name("_depthwise_conv"), &name("_bn1"), shape, block.stride, side);
        at = self.convolve(tensors, &at, &Conv { groups: wide, ..around })?;
        at = self.relu6(&at);
        let shape = [block.out, wide, 1];
        let narrow = Conv::new(&name("_project_conv"), &name("_bn2"), shape, 1, side / block.stride);
        at = self.convolve(tensors, &at, &narrow)?;
        if block.stride == 1 && block.out == channels {
            let sum = name("sum");
            self.nodes.push(NodeProto::new("Add", &[&at, input], &[&sum]));
            at = sum;
        }
        Ok(at)
    }

    fn relu6(&mut self, input: &str) -> String {
        if self.weights.iter().all(|tensor| tensor.name() != "six") {
            self.weights.push(TensorProto::floats("zero", &[], &[0.0]));
            self.weights.push(TensorProto::floats("six", &[], &[6.0]));
        }
        let output = format!("{input}.relu6");
        self.nodes.push(NodeProto::new("Clip", &[input, "zero", "six"], &[&output]));
        output
    }

    /// A convolution with the batch normalisation behind it: w' = w g, b' = beta - mean g, g = gamma / sqrt(var + eps).
    fn convolve(&mut self, tensors: &HashMap<String, Tensor>, input: &str, conv: &Conv) -> Result<String, String> {
        let [out, inner, kernel] = conv.shape;
        let fetch = |name: String, shape: &[usize]| match tensors.get(&name) {
            Some(tensor) if tensor.shape == shape => Ok(&tensor.values),
            _ => Err(name),
        };
        let raw = fetch(format!("{}.weight", conv.name), &[out, inner, kernel, kernel])?;
        let norm = |part: &str| fetch(format!("{}.{part}", conv.norm), &[out]);
        let (gamma, beta, mean, variance) =
            (norm("weight")?, norm("bias")?, norm("running_mean")?, norm("running_var")?);
        let gain: Vec<f32> = gamma.iter().zip(variance).map(|(g, v)| g / (v + EPSILON).sqrt()).collect();
        let folded: Vec<f32> =
            raw.chunks(raw.len() / out).zip(&gain).flat_map(|(row, g)| row.iter().map(move |w| w * g)).collect();
        let bias: Vec<f32> = (0..out).map(|i| beta[i] - mean[i] * gain[i]).collect();

        let (weight_name, bias_name) = (format!("{}.w", conv.name), format!("{}.b", conv.name));
        let size = kernel as i64;
        self.weights.push(TensorProto::floats(&weight_name, &[out as i64, inner as i64, size, size], &folded));
        self.weights.push(TensorProto::floats(&bias_name, &[out as i64], &bias));
        let stride = conv.stride as i64;
        let node = NodeProto::new("Conv", &[input, &weight_name, &bias_name], &[&conv.name])
            .with(AttributeProto::ints("kernel_shape", &[size, size]))
            .with(AttributeProto::ints("strides", &[stride, stride]))
            .with(AttributeProto::ints("pads", &conv.pads()))
            .with(AttributeProto::int("group", conv.groups as i64));
        self.nodes.push(node);
        Ok(conv.name.clone())
    }
}

/// One stage of the network: the kernel's side, the stride, how much wider it gets inside, and its channels.
struct Block {
    kernel: usize,
    stride: usize,
    widen: usize,
    out: usize,
}

/// The eleven blocks that are kept, of sixteen.
const BLOCKS: [Block; 11] = [
    Block { kernel: 3, stride: 1, widen: 1, out: 16 },
    Block { kernel: 3, stride: 2, widen: 6, out: 24 },
    Block { kernel: 3, stride: 1, widen: 6, out: 24 },
    Block { kernel: 5, stride: 2, widen: 6, out: 40 },
    Block { kernel: 5, stride: 1, widen: 6, out: 40 },
    Block { kernel: 3, stride: 2, widen: 6, out: 80 },
    Block { kernel: 3, stride: 1, widen: 6, out: 80 },
    Block { kernel: 3, stride: 1, widen: 6, out: 80 },
    Block { kernel: 5, stride: 1, widen: 6, out: 112 },
    Block { kernel: 5, stride: 1, widen: 6, out: 112 },
    Block { kernel: 5, stride: 1, widen: 6, out: 112 },
];

struct Conv {
    name: String,
    norm: String,
    /// Channels out, channels in (of one group), and the kernel's side.
    shape: [usize; 3],
    stride: usize,
    groups: usize,
    /// Width and height of what comes in.
    side: usize,
}

impl Conv {
    fn new(name: &str, norm: &str, shape: [usize; 3], stride: usize, side: usize) -> Self {
        Self { name: name.into(), norm: norm.into(), shape, stride, groups: 1, side }
    }

    /// TensorFlow's "same" padding, where the odd pixel goes to the right and to the bottom: the weights grew up with
    /// it.
    fn pads(&self) -> [i64; 4] {
        let out = self.side.div_ceil(self.stride);
        let total = ((out - 1) * self.stride + self.shape[2]).saturating_sub(self.side);
        let before = (total / 2) as i64;
        let after = total as i64 - before;
        [before, before, after, after]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use ort::value::TensorRef;

    use super::*;
    use crate::config::Models;
    use crate::inference::Runtime;

    pub fn models() -> Models {
        Models::find(std::env::var_os(Models::ENV).map(PathBuf::from))
    }

    /// A picture that anyone can make again: no two rows, columns or channels are alike.
    pub fn synthetic() -> Vec<u8> {
        let pixel = |i: usize| {
            let (y, x, channel) = (i / (3 * SIDE), i / 3 % SIDE, i % 3);
            (x * 7 + y * 3 + channel * 50 + x * y / 16) as u8
        };
        (0..SIDE * SIDE * 3).map(pixel).collect()
    }

    /// The expected values come from another implementation: plain sums over windows in 64 bits, with the batch
    /// normalisation left where it was. With the five blocks and the classes that are cut off here, that one tells a
    /// cat and an espresso.
    #[test]
    fn features_are_those_of_the_published_network() {
        let trunk = Trunk::read(&models().lite0()).expect("efficientnet-lite0.pth (`make setup` fetches it)");
        let runtime = Runtime::load(&models().onnxruntime()).unwrap();
        let mut session = runtime.session("lite0", &trunk.model().encode(), 1).unwrap();
        let crop = synthetic();
        let crop = TensorRef::from_array_view(([1, SIDE, SIDE, 3], &crop[..])).unwrap();
        let outputs = session.run(ort::inputs![Trunk::INPUT => crop]).unwrap();
        let (shape, features) = outputs[Trunk::OUTPUT].try_extract_tensor::<f32>().unwrap();
        assert_eq!(&shape[..], [1, CHANNELS as i64, GRID as i64, GRID as i64]);
        let golden = [
            ([0, 0, 0], 8.135_56),
            ([1, 0, 3], 3.759_753),
            ([17, 3, 0], 3.762_896),
            ([55, 2, 1], 6.414_435),
            ([111, 3, 3], -1.728_448),
        ];
        for ([channel, row, column], expected) in golden {
            let found = features[(channel * GRID + row) * GRID + column];
            assert!((found - expected).abs() < 1e-4, "[{channel}, {row}, {column}]: {found} for {expected}");
        }
    }

    #[test]
    fn another_network_is_named_as_such() {
        assert_eq!(Trunk::build(&HashMap::new()).unwrap_err(), "_conv_stem.weight");
    }
}
