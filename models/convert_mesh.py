#!/usr/bin/env python3
"""Converts the face mesh of MediaPipe from a TensorFlow Lite file to an ONNX file.

    models/convert_mesh.py face_landmark.tflite face-mesh.onnx

`fetch.py` calls this when it installs the model. The result is the same on every machine; `pins.json` has its sha256.

The network finds 468 points of a face (Kartynnik, Ablavatski, Grishchenko and Grundmann, arXiv 1907.06724). Its second
output, whether there is a face at all, is left out, with the layers that only it needs. Tensors of TensorFlow Lite are
[batch, height, width, channels]; those of ONNX are [batch, channels, height, width].

    in:   crop    [batch, 192, 192, 3], bytes, RGB; scaled to 0..1 in the graph
    out:  points  [batch, 468, 3], floats: x, y and depth, in pixels of the crop

Only the operators of this network are known; any other is an error.

Standard library only. Exit codes: 0 converted, 1 the input is not such a network, 2 wrong arguments.
"""

import struct
import sys
from array import array

import onnx_writer
from onnx_writer import FLOAT, UINT8, ConvertError, initializer, integers, node, value_info

SIDE = 192
POINTS = 468


# Reading the flatbuffer. Numbers are little-endian; an offset counts from its own place.


class Table:
    """A table of a flatbuffer. Fields are looked up by their number in the schema of TensorFlow Lite (schema.fbs)."""

    def __init__(self, data, at):
        self.data, self.at = data, at
        self.fields = at - number(data, at, "<i")
        self.length = number(data, self.fields, "<H")

    @classmethod
    def root(cls, data):
        if data[4:8] != b"TFL3":
            raise ConvertError("not a TensorFlow Lite file")
        return cls(data, number(data, 0, "<I"))

    def place(self, field):
        """Where the value of a field is. None: it has its default."""
        entry = 4 + 2 * field
        offset = number(self.data, self.fields + entry, "<H") if entry < self.length else 0
        return self.at + offset if offset else None

    def number(self, field, form, default=0):
        at = self.place(field)
        return default if at is None else number(self.data, at, form)

    def target(self, field):
        at = self.place(field)
        return None if at is None else at + number(self.data, at, "<I")

    def table(self, field):
        at = self.target(field)
        if at is None:
            raise ConvertError(f"field {field} of a table is missing")
        return Table(self.data, at)

    def bytes(self, field, size=1):
        """The bytes of a vector with elements of `size` bytes."""
        at = self.target(field)
        if at is None:
            return b""
        return part(self.data, at + 4, size * number(self.data, at, "<I"))

    def integers(self, field):
        return [value for (value,) in struct.iter_unpack("<i", self.bytes(field, 4))]

    def tables(self, field):
        first = self.target(field)
        offsets = self.bytes(field, 4)
        steps = enumerate(struct.iter_unpack("<I", offsets))
        return [Table(self.data, first + 4 + 4 * index + offset) for index, (offset,) in steps]


def part(data, at, length):
    if at < 0 or at + length > len(data):
        raise ConvertError("the file ends too early, or an offset leaves it")
    return data[at : at + length]


def number(data, at, form):
    return struct.unpack(form, part(data, at, struct.calcsize(form)))[0]


class Tensor:
    """A tensor of the graph: its shape and, if it is a constant, its bytes."""

    FLOAT32, INT32 = 0, 2

    def __init__(self, table, buffers):
        self.shape = tuple(table.integers(0))
        self.kind = table.number(1, "<b")
        buffer = table.number(2, "<I")
        if buffer >= len(buffers):
            raise ConvertError("a tensor has no buffer")
        self.raw = buffers[buffer].bytes(0)

    def values(self, kind, code):
        """The elements, row by row."""
        count = 1
        for size in self.shape:
            count *= size
        if self.kind != kind or len(self.raw) != 4 * count:
            raise ConvertError(f"a constant of shape {self.shape} has another type or another number of elements")
        values = array(code, self.raw)
        if sys.byteorder == "big":
            values.byteswap()
        return values

    def floats(self, *shape):
        """The elements of a constant of this shape."""
        if self.shape != shape:
            raise ConvertError(f"a constant has the shape {self.shape}, not {shape}")
        return self.values(self.FLOAT32, "f")


# Building the graph.

ADD, CONV_2D, DEPTHWISE_CONV_2D, MAX_POOL_2D, PAD, PRELU = 0, 3, 4, 17, 34, 54
SAME, VALID = 0, 1


class Operator:
    """An operator of the graph, with the numbers of its tensors."""

    def __init__(self, table, codes):
        code = table.number(0, "<I")
        if code >= len(codes):
            raise ConvertError("an operator has no code")
        self.code = codes[code]
        self.inputs, self.outputs = table.integers(1), table.integers(2)
        self.options = table.table(4) if table.target(4) is not None else None

    def option(self, field, form="<i", default=0):
        return default if self.options is None else self.options.number(field, form, default)

    def refuse_activation(self, field):
        """The layers of this network have no built-in activation: each PRELU is an operator."""
        if self.option(field, "<b") != 0:
            raise ConvertError("an operator has an activation, which is not known here")


class Graph:
    """Nodes and weights from `crop` to `points`."""

    def __init__(self, data):
        model = Table.root(data)
        codes = [max(code.number(0, "<b"), code.number(3, "<i")) for code in model.tables(1)]
        graphs = model.tables(2)
        if len(graphs) != 1:
            raise ConvertError(f"the file has {len(graphs)} graphs, not one")
        buffers = model.tables(4)
        self.tensors = [Tensor(table, buffers) for table in graphs[0].tables(0)]
        self.nodes, self.weights = [], []
        inputs, outputs = graphs[0].integers(1), graphs[0].integers(2)
        operators = [Operator(table, codes) for table in graphs[0].tables(3)]
        self.build(inputs, outputs, operators)

    def tensor(self, index):
        if not 0 <= index < len(self.tensors):
            raise ConvertError(f"tensor {index} does not exist")
        return self.tensors[index]

    def build(self, inputs, outputs, operators):
        if [self.tensor(index).shape for index in inputs] != [(1, SIDE, SIDE, 3)]:
            raise ConvertError(f"the input is not one image of {SIDE} x {SIDE} pixels")
        wanted = [index for index in outputs if self.tensor(index).shape == (1, 1, 1, 3 * POINTS)]
        if len(wanted) != 1:
            raise ConvertError(f"there is no output of {POINTS} points")
        self.weights += [initializer("scale", [1], [1 / 255]), integers("shape", [-1, POINTS, 3])]
        self.nodes += [
            node("Cast", ["crop"], "float", to=FLOAT),
            node("Mul", ["float", "scale"], "scaled"),
            node("Transpose", ["scaled"], name(inputs[0]), perm=[0, 3, 1, 2]),
        ]
        for operator in needed(operators, wanted[0]):
            self.add(operator)
        self.nodes.append(node("Reshape", [name(wanted[0]), "shape"], "points"))

    def add(self, operator):
        known = {
            ADD: (self.sum, 2),
            CONV_2D: (self.convolution, 3),
            DEPTHWISE_CONV_2D: (self.depthwise, 3),
            MAX_POOL_2D: (self.maximum, 1),
            PAD: (self.pad, 2),
            PRELU: (self.prelu, 2),
        }
        if operator.code not in known:
            raise ConvertError(f"operator {operator.code} is not known here")
        build, count = known[operator.code]
        if (len(operator.inputs), len(operator.outputs)) != (count, 1):
            raise ConvertError(f"operator {operator.code} has {len(operator.inputs)} inputs, not {count}")
        shapes = [self.tensor(index).shape for index in (operator.inputs[0], operator.outputs[0])]
        if any(len(shape) != 4 for shape in shapes):
            raise ConvertError(f"operator {operator.code} works on shapes {shapes}, not on images")
        build(operator, operator.inputs, name(operator.outputs[0]))

    def sum(self, operator, inputs, output):
        operator.refuse_activation(0)
        if self.tensor(inputs[0]).shape != self.tensor(inputs[1]).shape:
            raise ConvertError("the terms of a sum have different shapes")
        self.nodes.append(node("Add", [name(index) for index in inputs], output))

    def convolution(self, operator, inputs, output):
        """Weights [out, height, width, in] become [out, in, height, width]."""
        operator.refuse_activation(3)
        channels, shape = self.tensor(inputs[0]).shape[3], self.tensor(inputs[1]).shape
        if len(shape) != 4 or shape[3] != channels:
            raise ConvertError(f"the weights of a convolution of {channels} channels have the shape {shape}")
        out, height, width, _ = shape
        raw = self.tensor(inputs[1]).floats(*shape)
        cells = height * width
        step = cells * channels
        values = (raw[o * step + cell * channels + c] for o in range(out) for c in range(channels) for cell in range(cells))
        dilation = [operator.option(field, default=1) for field in (4, 5)]
        self.convolve(operator, inputs, output, [out, channels, height, width], values, dilation, groups=1)

    def depthwise(self, operator, inputs, output):
        """Weights [1, height, width, channels] become [channels, 1, height, width]."""
        operator.refuse_activation(4)
        channels, shape = self.tensor(inputs[0]).shape[3], self.tensor(inputs[1]).shape
        if len(shape) != 4 or (shape[0], shape[3]) != (1, channels):
            raise ConvertError(f"the weights of a depthwise convolution have the shape {shape}")
        _, height, width, _ = shape
        raw = self.tensor(inputs[1]).floats(*shape)
        values = (raw[cell * channels + c] for c in range(channels) for cell in range(height * width))
        dilation = [operator.option(field, default=1) for field in (5, 6)]
        self.convolve(operator, inputs, output, [channels, 1, height, width], values, dilation, groups=channels)

    def convolve(self, operator, inputs, output, shape, values, dilation, groups):
        if dilation != [1, 1]:
            raise ConvertError("a convolution is dilated, which is not known here")
        self.weights.append(initializer(f"{output}.w", shape, values))
        self.weights.append(initializer(f"{output}.b", shape[:1], self.tensor(inputs[2]).floats(shape[0])))
        window = self.window(operator, inputs[0], shape[2], shape[3])
        self.nodes.append(node("Conv", [name(inputs[0]), f"{output}.w", f"{output}.b"], output, **window, group=groups))

    def maximum(self, operator, inputs, output):
        operator.refuse_activation(5)
        window = self.window(operator, inputs[0], operator.option(4), operator.option(3))
        self.nodes.append(node("MaxPool", [name(inputs[0])], output, **window))

    def window(self, operator, source, height, width):
        """Size, strides and padding of a window, whose first options are padding, horizontal and vertical stride."""
        padding, strides = operator.option(0, "<b"), [operator.option(2), operator.option(1)]
        if padding not in (SAME, VALID) or min(*strides, height, width) < 1:
            raise ConvertError("a window has no valid size, stride or padding")
        sides = zip(self.tensor(source).shape[1:3], strides, (height, width))
        total = [same(*side) if padding == SAME else 0 for side in sides]
        before = [pixels // 2 for pixels in total]
        pads = before + [pixels - half for pixels, half in zip(total, before)]
        return {"kernel_shape": [height, width], "strides": strides, "pads": pads}

    def pad(self, operator, inputs, output):
        """Further channels of zeros."""
        pairs = self.tensor(inputs[1]).values(Tensor.INT32, "i")
        if len(pairs) != 8 or any(pairs[:7]) or pairs[7] < 0:
            raise ConvertError("a padding adds something else than channels at the end")
        self.weights.append(integers(f"{output}.pads", [0, 0, 0, 0, 0, pairs[7], 0, 0]))
        self.nodes.append(node("Pad", [name(inputs[0]), f"{output}.pads"], output))

    def prelu(self, operator, inputs, output):
        """slope x + (1 - slope) max(x, 0): onnxruntime takes a third of the time that its PRelu takes."""
        source, channels = name(inputs[0]), self.tensor(inputs[0]).shape[3]
        slopes = self.tensor(inputs[1]).floats(1, 1, channels)
        self.weights.append(initializer(f"{output}.slope", [channels, 1, 1], slopes))
        self.weights.append(initializer(f"{output}.rest", [channels, 1, 1], [1 - slope for slope in slopes]))
        self.nodes += [
            node("Mul", [source, f"{output}.slope"], f"{output}.sloped"),
            node("Relu", [source], f"{output}.positive"),
            node("Mul", [f"{output}.positive", f"{output}.rest"], f"{output}.added"),
            node("Add", [f"{output}.sloped", f"{output}.added"], output),
        ]

    def model(self):
        crop = value_info("crop", UINT8, ["batch", SIDE, SIDE, 3])
        points = value_info("points", FLOAT, ["batch", POINTS, 3])
        return onnx_writer.model("face-mesh", self.nodes, self.weights, [crop], [points])


def name(index):
    return f"t{index}"


def needed(operators, output):
    """The operators that an output depends on, in their order."""
    wanted, chosen = {output}, []
    for operator in reversed(operators):
        if wanted.intersection(operator.outputs):
            wanted.update(operator.inputs)
            chosen.append(operator)
    return chosen[::-1]


def same(side, stride, kernel):
    """The pixels that TensorFlow's "same" padding adds to a side. An odd one goes to the right or to the bottom."""
    return max((-(-side // stride) - 1) * stride + kernel - side, 0)


def convert(data):
    """Returns the bytes of the ONNX file for the bytes of the TensorFlow Lite file."""
    return Graph(data).model()


if __name__ == "__main__":
    sys.exit(onnx_writer.main(convert, "MODEL.tflite MODEL.onnx", sys.argv))
