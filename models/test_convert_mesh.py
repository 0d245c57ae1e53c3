"""Tests of convert_mesh.py with TensorFlow Lite files made here. Run: python3 -m unittest discover models"""

import hashlib
import struct
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import convert_mesh  # noqa: E402
from convert_mesh import ADD, CONV_2D, DEPTHWISE_CONV_2D, MAX_POOL_2D, PAD, PRELU, SAME, VALID  # noqa: E402

CONCATENATION = 2
# The numbers of the options in the schema's union.
OPTIONS = {CONV_2D: 1, DEPTHWISE_CONV_2D: 2, MAX_POOL_2D: 5}


class Vector:
    """A vector of numbers."""

    def __init__(self, form, values):
        self.form, self.values = form, list(values)

    def encode(self):
        return struct.pack(f"<I{len(self.values)}{self.form}", len(self.values), *self.values)


def flatbuffer(root):
    """A TensorFlow Lite file. A table is a dict of field number to value: bytes are a number, others are referred to."""
    data = bytearray(struct.pack("<I", 0) + b"TFL3")

    def write(value):
        while len(data) % 4:
            data.append(0)
        if isinstance(value, Vector):
            start = len(data)
            data.extend(value.encode())
            return start
        if isinstance(value, list):
            start = len(data)
            data.extend(struct.pack("<I", len(value)) + bytes(4 * len(value)))
            for index, item in enumerate(value):
                refer(start + 4 + 4 * index, item)
            return start
        count = 1 + max(value, default=-1)
        entries = [4 + 4 * list(value).index(field) if field in value else 0 for field in range(count)]
        vtable = struct.pack(f"<2H{count}H", 4 + 2 * count, 4 + 4 * len(value), *entries)
        data.extend(vtable + bytes(-len(vtable) % 4))
        start = len(data)
        data.extend(struct.pack("<i", len(vtable) + -len(vtable) % 4) + bytes(4 * len(value)))
        for index, item in enumerate(value.values()):
            at = start + 4 + 4 * index
            if isinstance(item, bytes):
                data[at : at + len(item)] = item
            else:
                refer(at, item)
        return start

    def refer(at, value):
        struct.pack_into("<I", data, at, write(value) - at)

    refer(0, root)
    return bytes(data)


def byte(value):
    return struct.pack("<b", value)


def integer(value):
    return struct.pack("<i", value)


class Network:
    """Builds a small network with the operators of the mesh."""

    def __init__(self):
        self.tensors, self.buffers, self.operators = [], [{}], []
        self.codes = [CONV_2D, DEPTHWISE_CONV_2D, PRELU, MAX_POOL_2D, PAD, ADD, CONCATENATION]

    def tensor(self, *shape):
        self.tensors.append({0: Vector("i", shape), 1: byte(0), 2: integer(0)})
        return len(self.tensors) - 1

    def constant(self, form, *shape):
        count = 1
        for size in shape:
            count *= size
        values = [(i % 7 - 3) / 4 if form == "f" else 0 for i in range(count)]
        return self.constant_of(form, shape, values)

    def constant_of(self, form, shape, values):
        self.buffers.append({0: Vector("B", struct.pack(f"<{len(values)}{form}", *values))})
        kind = 0 if form == "f" else 2
        self.tensors.append({0: Vector("i", shape), 1: byte(kind), 2: integer(len(self.buffers) - 1)})
        return len(self.tensors) - 1

    def operator(self, code, inputs, options, *shape):
        output = self.tensor(*shape)
        fields = {0: integer(self.codes.index(code)), 1: Vector("i", inputs), 2: Vector("i", [output])}
        self.operators.append({**fields, 3: byte(OPTIONS[code]), 4: options} if options else fields)
        return output

    def file(self, inputs, outputs):
        graph = {0: self.tensors, 1: Vector("i", inputs), 2: Vector("i", outputs), 3: self.operators}
        codes = [{0: byte(code)} for code in self.codes]
        return flatbuffer({0: integer(3), 1: codes, 2: [graph], 4: self.buffers})


def window(padding, stride):
    return {0: byte(padding), 1: integer(stride), 2: integer(stride)}


def network(stride=96, activation=0, code=None, added=(0, 0, 0, 0, 0, 0, 0, 2)):
    """One of each operator, and a second output that is not converted."""
    net = Network()
    crop = net.tensor(1, 192, 192, 3)
    weights, bias = net.constant("f", 2, 3, 3, 3), net.constant("f", 2)
    at = net.operator(CONV_2D, [crop, weights, bias], {**window(SAME, stride), 3: byte(activation)}, 1, 2, 2, 2)
    at = net.operator(PRELU, [at, net.constant("f", 1, 1, 2)], None, 1, 2, 2, 2)
    weights, bias = net.constant("f", 1, 3, 3, 2), net.constant("f", 2)
    wide = net.operator(DEPTHWISE_CONV_2D, [at, weights, bias], {**window(SAME, 1), 3: integer(1)}, 1, 2, 2, 2)
    at = net.operator(ADD, [at, wide], None, 1, 2, 2, 2)
    pads = net.constant_of("i", (4, 2), added)
    at = net.operator(code or PAD, [at, pads], None, 1, 2, 2, 4)
    at = net.operator(MAX_POOL_2D, [at], {**window(VALID, 2), 3: integer(2), 4: integer(2)}, 1, 1, 1, 4)
    weights, bias = net.constant("f", 1404, 1, 1, 4), net.constant("f", 1404)
    points = net.operator(CONV_2D, [at, weights, bias], window(VALID, 1), 1, 1, 1, 1404)
    weights, bias = net.constant("f", 1, 1, 1, 4), net.constant("f", 1)
    presence = net.operator(CONV_2D, [at, weights, bias], window(VALID, 1), 1, 1, 1, 1)
    return net.file([crop], [presence, points])


class ConvertTest(unittest.TestCase):
    def assert_refused(self, reason, data):
        with self.assertRaisesRegex(convert_mesh.ConvertError, reason):
            convert_mesh.convert(data)

    def test_the_same_network_gives_the_same_bytes(self):
        model = convert_mesh.convert(network())
        expected = "d2b91cb37f6dfb2b7da950468de206d06b32380784ccbc39ec11547ef87ceca0"
        self.assertEqual(hashlib.sha256(model).hexdigest(), expected)

    def test_layers_that_only_another_output_needs_are_left_out(self):
        model = convert_mesh.convert(network())
        self.assertEqual([model.count(operator) for operator in (b"Conv", b"MaxPool", b"Pad")], [3, 1, 1])

    def test_weights_are_written_with_the_channels_first(self):
        model = convert_mesh.convert(network())
        depthwise = [(i % 7 - 3) / 4 for channel in range(2) for i in range(channel, 18, 2)]
        self.assertIn(struct.pack("<18f", *depthwise), model)
        convolution = [
            ((27 * out + 3 * cell + channel) % 7 - 3) / 4 for out in range(2) for channel in range(3) for cell in range(9)
        ]
        self.assertIn(struct.pack("<54f", *convolution), model)

    def test_an_odd_pixel_of_padding_goes_to_the_end(self):
        self.assertEqual([convert_mesh.same(192, 2, 3), convert_mesh.same(192, 1, 3), convert_mesh.same(6, 2, 2)], [1, 2, 0])
        one_at_the_end = convert_mesh.onnx_writer.attribute("pads", [0, 0, 1, 1])
        self.assertIn(one_at_the_end, convert_mesh.convert(network(stride=2)))

    def test_a_truncated_file_is_an_error(self):
        data = network()
        for length in [*range(0, len(data), 97), *range(len(data) - 200, len(data))]:
            with self.subTest(length=length), self.assertRaises(convert_mesh.ConvertError):
                convert_mesh.convert(data[:length])

    def test_a_damaged_offset_is_an_error(self):
        data = network()
        for at in range(0, 400, 4):
            damaged = data[:at] + b"\xff\xff\xff\x7f" + data[at + 4 :]
            try:
                convert_mesh.convert(damaged)
            except convert_mesh.ConvertError:
                continue
            self.assertNotIn(at, (0, 4), "the root and the name of the format")

    def test_what_is_not_known_is_refused(self):
        self.assert_refused("not a TensorFlow Lite file", b"\x08\x00\x00\x00ABCD" + bytes(64))
        self.assert_refused("operator 2 is not known", network(code=CONCATENATION))
        self.assert_refused("has an activation", network(activation=1))
        self.assert_refused("something else than channels", network(added=(0, 0, 0, 1, 0, 0, 0, 2)))
        self.assert_refused("no valid size, stride or padding", network(stride=0))

    def test_another_network_is_an_error(self):
        net = Network()
        small = net.tensor(1, 96, 96, 3)
        self.assert_refused("not one image of 192 x 192", net.file([small], [small]))
        net = Network()
        crop = net.tensor(1, 192, 192, 3)
        self.assert_refused("no output of 468 points", net.file([crop], [crop]))


if __name__ == "__main__":
    unittest.main()
