"""Tests of convert_lite0.py with torch files made here. Run: python3 -m unittest discover models"""

import hashlib
import struct
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import convert_lite0  # noqa: E402

HEADER = b"\x80\x02\x8a\x0a" + convert_lite0.MAGIC.to_bytes(10, "little") + b".\x80\x02M\xe9\x03.\x80\x02}."


def text(string):
    return b"X" + struct.pack("<I", len(string)) + string.encode()


def number(value):
    return b"J" + struct.pack("<i", value)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def torch_file(tensors):
    """A file as torch.save wrote it before 1.6, from name: (shape, strides, elements of the storage)."""
    table = b"\x80\x02ccollections\nOrderedDict\n)R("
    storages = b""
    for name, (shape, strides, elements) in tensors.items():
        storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(name) + text("cpu")
        storage += number(len(elements)) + b"NtQ"
        table += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage
        table += number(0) + numbers(shape) + numbers(strides) + b"\x89ccollections\nOrderedDict\n)RtR"
        storages += struct.pack(f"<Q{len(elements)}f", len(elements), *elements)
    keys = b"\x80\x02](" + b"".join(map(text, tensors)) + b"e."
    return HEADER + table + b"u." + keys + storages


TRANSPOSED = {"w": ((2, 3), (1, 2), [1, 2, 3, 4, 5, 6])}


def network():
    """Weights of the right shapes: each tensor repeats a few elements, so that the file is small."""
    tensors = {}

    def convolution(name, norm, out, inner, kernel):
        tensors[f"{name}.weight"] = ((out, inner, kernel, kernel), (0, 0, kernel, 1), range(kernel * kernel))
        for part, value in (("weight", 0.7), ("bias", -0.3), ("running_mean", 0.1), ("running_var", 2.3)):
            tensors[f"{norm}.{part}"] = ((out,), (0,), [value])

    channels = 32
    convolution("_conv_stem", "_bn0", channels, 3, 3)
    for index, (kernel, _, expansion, out) in enumerate(convert_lite0.BLOCKS):
        prefix, wide = f"_blocks.{index}.", channels * expansion
        if expansion > 1:
            convolution(prefix + "_expand_conv", prefix + "_bn0", wide, channels, 1)
        convolution(prefix + "_depthwise_conv", prefix + "_bn1", wide, 1, kernel)
        convolution(prefix + "_project_conv", prefix + "_bn2", out, wide, 1)
        channels = out
    return tensors


class ReadTest(unittest.TestCase):
    def test_reads_a_transposed_tensor(self):
        tensor = convert_lite0.read_torch(torch_file(TRANSPOSED))["w"]
        self.assertEqual((tensor.shape, list(tensor.values())), ((2, 3), [1, 3, 5, 2, 4, 6]))

    def test_a_truncated_file_is_an_error(self):
        data = torch_file(TRANSPOSED)
        for length in range(len(data)):
            with self.subTest(length=length), self.assertRaises(convert_lite0.ConvertError):
                convert_lite0.read_torch(data[:length])

    def test_a_tensor_outside_its_storage_is_an_error(self):
        tensor = convert_lite0.read_torch(torch_file({"w": ((9, 3), (1, 2), [1, 2, 3])}))["w"]
        with self.assertRaisesRegex(convert_lite0.ConvertError, "outside its storage"):
            tensor.values()

    def test_other_calls_are_refused(self):
        with self.assertRaisesRegex(convert_lite0.ConvertError, "os.system"):
            convert_lite0.read_torch(HEADER + b"\x80\x02cos\nsystem\n" + text("ls") + b"\x85R.")


class ConvertTest(unittest.TestCase):
    def test_the_same_weights_give_the_same_bytes(self):
        model = convert_lite0.convert(torch_file(network()))
        expected = "8a532cbcc9eb8470b85a94350df38dc19fce45e0d917d470e8d2f5f37f27aabb"
        self.assertEqual(hashlib.sha256(model).hexdigest(), expected)

    def test_another_network_is_an_error(self):
        with self.assertRaisesRegex(convert_lite0.ConvertError, "_conv_stem.weight"):
            convert_lite0.convert(torch_file({}))
        other = network()
        other["_blocks.3._project_conv.weight"] = ((1, 1, 1, 1), (0, 0, 0, 0), [1])
        with self.assertRaisesRegex(convert_lite0.ConvertError, "_blocks.3._project_conv.weight"):
            convert_lite0.convert(torch_file(other))


if __name__ == "__main__":
    unittest.main()
