#!/usr/bin/env python3
"""Converts the ImageNet weights of EfficientNet-Lite0 from a torch file to an ONNX file.

    models/convert_lite0.py efficientnet-lite0.pth efficientnet-lite0.onnx

`fetch.py` calls this when it installs the model. The result is the same on every machine; `pins.json` has its sha256.

The network is that of Tan and Le (arXiv 1905.11946) in its Lite form: no squeeze-and-excitation, ReLU6 everywhere. The
ONNX graph ends after block 10 of 16. Batch normalisation is folded into the convolutions. Normalisation of the pixels
is part of the graph. The features, 14x14x112 for a crop of 224x224, are averaged two by two to 7x7x112: a classifier of
borders needs to know where something is, but not to the pixel.

    in:   crop      [batch, 224, 224, 3], bytes, RGB
    out:  features  [batch, 112, 7, 7], floats

Standard library only. Exit codes: 0 converted, 1 the input is not that network, 2 wrong arguments.
"""

import collections
import io
import pickle
import struct
import sys
from array import array

import onnx_writer
from onnx_writer import FLOAT, UINT8, ConvertError, initializer, node, value_info

SIDE = 224
CHANNELS = 112
GRID = 7
# Batch normalisation divides by sqrt(variance + EPSILON).
EPSILON = 1e-3

# Kernel side, stride, expansion factor, output channels.
BLOCKS = [
    (3, 1, 1, 16),
    (3, 2, 6, 24),
    (3, 1, 6, 24),
    (5, 2, 6, 40),
    (5, 1, 6, 40),
    (3, 2, 6, 80),
    (3, 1, 6, 80),
    (3, 1, 6, 80),
    (5, 1, 6, 112),
    (5, 1, 6, 112),
    (5, 1, 6, 112),
]


# Reading the torch file.

MAGIC = 0x1950A86A20F9469CFC6C
# Bytes per element, and the type code of `array`; counters of batches are 64-bit integers and are not read.
STORAGES = {"FloatStorage": (4, "f"), "LongStorage": (8, None)}


class Storage:
    """The elements of one or more tensors. The bytes follow at the end of the file."""

    def __init__(self, kind, key, length):
        self.kind, self.key, self.length, self.values = kind, key, length, None


class Tensor:
    """A view of a storage. Elements are returned row by row; some tensors are transposed in their storage."""

    def __init__(self, storage, offset, shape, strides, *_):
        self.storage, self.offset, self.shape, self.strides = storage, offset, tuple(shape), tuple(strides)

    def values(self):
        positions = [self.offset]
        for size, stride in zip(self.shape, self.strides):
            positions = [start + stride * i for start in positions for i in range(size)]
        try:
            return array("f", map(self.storage.values.__getitem__, positions))
        except (IndexError, AttributeError) as error:
            raise ConvertError(f"a tensor of shape {self.shape} is outside its storage") from error


class TableReader(pickle.Unpickler):
    """Unpickles a table of tensors. Only the names that such a table needs are resolved; no other code can run."""

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return Tensor
        if module == "torch" and name in STORAGES:
            return name
        raise ConvertError(f"`{module}.{name}` is not allowed in a weight file")

    def persistent_load(self, pid):
        _, kind, key, _, length, *_ = pid
        return Storage(kind, key, length)


def read_torch(data):
    """Returns the tensors of a file that `torch.save` wrote before torch 1.6, by name.

    Such a file is four pickles (magic number, protocol version, machine, table of tensors), a fifth with the keys of
    the storages, and then each storage: its length as 64 bits, its elements. All numbers are little-endian.
    """
    file = io.BytesIO(data)
    try:
        if TableReader(file).load() != MAGIC:
            raise ConvertError("not a file that torch.save wrote before torch 1.6")
        TableReader(file).load()
        TableReader(file).load()
        table = TableReader(file).load()
        keys = TableReader(file).load()
        values = {}
        kinds = {tensor.storage.key: tensor.storage.kind for tensor in table.values()}
        for key in keys:
            (length,) = struct.unpack("<Q", file.read(8))
            size, code = STORAGES[kinds[key]]
            raw = file.read(length * size)
            if len(raw) != length * size:
                raise ConvertError("the file ends too early")
            if code:
                values[key] = array(code, raw)
                if sys.byteorder == "big":
                    values[key].byteswap()
        for tensor in table.values():
            tensor.storage.values = values.get(tensor.storage.key)
        return table
    except ConvertError:
        raise
    except Exception as error:  # `pickle` raises any kind of error for broken input.
        raise ConvertError(f"not a torch weight file, or a damaged one: {error!r}") from error


# Building the graph.


def rounded(values):
    """Rounds each value to 32 bits, so that every step has the precision of the weights."""
    return array("f", values)


class Graph:
    """Nodes and weights from `crop` to `features`."""

    def __init__(self, tensors):
        self.tensors, self.nodes, self.weights = tensors, [], []
        self.has_limits = False
        self.build()

    def build(self):
        at, side, channels = self.normalise(), SIDE, 32
        at = self.relu6(self.convolve(at, "_conv_stem", "_bn0", (channels, 3, 3), 2, side))
        side //= 2
        for index, (kernel, stride, expansion, out) in enumerate(BLOCKS):
            at = self.inverted_residual(at, index, channels, kernel, stride, expansion, out, side)
            side, channels = side // stride, out
        self.nodes.append(node("AveragePool", [at], "features", kernel_shape=[2, 2], strides=[2, 2]))

    def normalise(self):
        """(rgb - 127) / 128, channels first.

        The padding of the first convolution stands for grey, so this cannot be folded into its weights.
        """
        self.weights.append(initializer("grey", [1], [127.0]))
        self.weights.append(initializer("scale", [1], [1 / 128]))
        self.nodes += [
            node("Cast", ["crop"], "float", to=FLOAT),
            node("Sub", ["float", "grey"], "centred"),
            node("Mul", ["centred", "scale"], "scaled"),
            node("Transpose", ["scaled"], "planes", perm=[0, 3, 1, 2]),
        ]
        return "planes"

    def inverted_residual(self, source, index, channels, kernel, stride, expansion, out, side):
        """Expansion, depthwise convolution, projection; plus the input where the shapes are equal."""
        prefix, wide, at = f"_blocks.{index}.", channels * expansion, source
        if expansion > 1:
            shape = (wide, channels, 1)
            at = self.relu6(self.convolve(at, prefix + "_expand_conv", prefix + "_bn0", shape, 1, side))
        shape = (wide, 1, kernel)
        at = self.convolve(at, prefix + "_depthwise_conv", prefix + "_bn1", shape, stride, side, groups=wide)
        at = self.relu6(at)
        at = self.convolve(at, prefix + "_project_conv", prefix + "_bn2", (out, wide, 1), 1, side // stride)
        if stride == 1 and out == channels:
            self.nodes.append(node("Add", [at, source], prefix + "sum"))
            at = prefix + "sum"
        return at

    def relu6(self, source):
        """Clips to 0..6. All of these share their limits, which are written once."""
        if not self.has_limits:
            self.has_limits = True
            self.weights += [initializer("zero", [], [0.0]), initializer("six", [], [6.0])]
        self.nodes.append(node("Clip", [source, "zero", "six"], source + ".relu6"))
        return source + ".relu6"

    def fetch(self, name, shape):
        tensor = self.tensors.get(name)
        if tensor is None or tensor.shape != shape:
            raise ConvertError(f"not EfficientNet-Lite0: `{name}` is missing or has another shape")
        return tensor.values()

    def convolve(self, source, name, norm, shape, stride, side, groups=1):
        """A convolution with its batch normalisation folded in.

        w' = w g, b' = beta - mean g, g = gamma / sqrt(variance + EPSILON)
        """
        out, inner, kernel = shape
        raw = self.fetch(f"{name}.weight", (out, inner, kernel, kernel))
        parts = ("weight", "bias", "running_mean", "running_var")
        gamma, beta, mean, variance = (self.fetch(f"{norm}.{part}", (out,)) for part in parts)
        epsilon = rounded([EPSILON])[0]
        deviation = rounded(v**0.5 for v in rounded(v + epsilon for v in variance))
        gain = rounded(g / d for g, d in zip(gamma, deviation))
        row = len(raw) // out
        folded = [weight * gain[i // row] for i, weight in enumerate(raw)]
        bias = [b - m for b, m in zip(beta, rounded(m * g for m, g in zip(mean, gain)))]
        self.weights.append(initializer(f"{name}.w", [out, inner, kernel, kernel], folded))
        self.weights.append(initializer(f"{name}.b", [out], bias))
        attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": pads(side, stride, kernel)}
        self.nodes.append(node("Conv", [source, f"{name}.w", f"{name}.b"], name, **attributes, group=groups))
        return name

    def model(self):
        crop = value_info("crop", UINT8, ["batch", SIDE, SIDE, 3])
        features = value_info("features", FLOAT, ["batch", CHANNELS, GRID, GRID])
        return onnx_writer.model("lite0", self.nodes, self.weights, [crop], [features])


def pads(side, stride, kernel):
    """TensorFlow's "same" padding: an odd pixel goes to the right and to the bottom. The weights were trained so."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    before, after = total // 2, total - total // 2
    return [before, before, after, after]


def convert(data):
    """Returns the bytes of the ONNX file for the bytes of the torch file."""
    return Graph(read_torch(data)).model()


if __name__ == "__main__":
    sys.exit(onnx_writer.main(convert, "WEIGHTS.pth MODEL.onnx", sys.argv))
