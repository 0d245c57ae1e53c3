"""What the converters share: writing ONNX files, as far as they need it. Standard library only.

Field numbers are those of onnx.proto; fields are written in the order of their numbers, so that the same graph has the
same bytes.
"""

import struct
import sys
from array import array
from pathlib import Path

OPSET = 13
# IR version 8 belongs to opsets 13 to 18.
IR_VERSION = 8
FLOAT, UINT8, INT64 = 1, 2, 7
INT_ATTRIBUTE, INTS_ATTRIBUTE = 2, 7


class ConvertError(Exception):
    """The input is not the file that the converter is for."""


def varint(number):
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def integer(field, number):
    return varint(field << 3) + varint(number)


def block(field, content):
    """A string, bytes or message field."""
    content = content.encode() if isinstance(content, str) else content
    return varint(field << 3 | 2) + varint(len(content)) + content


def attribute(name, value):
    if isinstance(value, int):
        return block(1, name) + integer(3, value) + integer(20, INT_ATTRIBUTE)
    return block(1, name) + b"".join(integer(8, item) for item in value) + integer(20, INTS_ATTRIBUTE)


def node(operator, inputs, output, **attributes):
    fields = [block(1, name) for name in inputs]
    fields += [block(2, output), block(3, output), block(4, operator)]
    fields += [block(5, attribute(name, value)) for name, value in attributes.items()]
    return b"".join(fields)


def initializer(name, dims, values):
    values = array("f", values)
    if sys.byteorder == "big":
        values.byteswap()
    return b"".join(integer(1, size) for size in dims) + integer(2, FLOAT) + block(8, name) + block(9, values.tobytes())


def integers(name, values):
    """An initializer of one dimension."""
    raw = struct.pack(f"<{len(values)}q", *values)
    return integer(1, len(values)) + integer(2, INT64) + block(8, name) + block(9, raw)


def value_info(name, element, dims):
    shape = b"".join(block(1, block(2, size) if isinstance(size, str) else integer(1, size)) for size in dims)
    return block(1, name) + block(2, block(1, integer(1, element) + block(2, shape)))


def model(name, nodes, weights, inputs, outputs):
    """The bytes of a file with one graph."""
    fields = [block(1, item) for item in nodes] + [block(2, name)]
    fields += [block(5, item) for item in weights]
    fields += [block(11, item) for item in inputs] + [block(12, item) for item in outputs]
    operators = block(1, "") + integer(2, OPSET)
    return integer(1, IR_VERSION) + block(2, "facemill") + block(7, b"".join(fields)) + block(8, operators)


def main(convert, files, arguments):
    """The command of a converter. `files`: what its usage calls them. Returns the exit code."""
    program, *arguments = arguments
    if len(arguments) != 2:
        print(f"usage: {Path(program).name} {files}", file=sys.stderr)
        return 2
    source, target = map(Path, arguments)
    try:
        target.write_bytes(convert(source.read_bytes()))
    except (ConvertError, OSError) as error:
        print(f"error: {source}: {error}", file=sys.stderr)
        return 1
    return 0
