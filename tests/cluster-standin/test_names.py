"""The stand-in's DNS server answers as resolvers expect it to."""

import struct
import tempfile
import unittest
from pathlib import Path

from standin.names import answer, known_names

HOSTS = "127.0.0.1 localhost\n10.88.1.7 redis redis.facemill.svc.cluster.local\n192.31.196.10 photos.test\n"
A, AAAA = 1, 28


def query(name, kind):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 4711, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


class Answers(unittest.TestCase):
    def setUp(self):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "hosts").write_text(HOSTS, encoding="utf-8")
            self.names = known_names(Path(folder) / "hosts")

    def ask(self, name, kind=A):
        """The code, and the data of the records."""
        asked = query(name, kind)
        said = answer(asked, self.names)
        number, flags, questions, count, *_ = struct.unpack("!HHHHHH", said[:12])
        self.assertEqual((number, flags & 0x8000, questions), (4711, 0x8000, 1))
        self.assertTrue(said[12:].startswith(asked[12:]))
        records = said[len(asked):]
        self.assertEqual(len(records), 16 * count)
        return flags & 15, [records[place + 12:place + 16] for place in range(0, len(records), 16)]

    def test_with_addresses(self):
        self.assertEqual(self.ask("redis.facemill.svc.cluster.local"), (0, [bytes([10, 88, 1, 7])]))
        self.assertEqual(self.ask("Photos.Test"), (0, [bytes([192, 31, 196, 10])]))

    def test_that_a_name_has_no_such_record(self):
        self.assertEqual(self.ask("photos.test", AAAA), (0, []))

    def test_that_there_is_no_such_name(self):
        self.assertEqual(self.ask("photos.test.svc.cluster.local"), (3, []))
        # The asker's list of domains completes it, not the server.
        self.assertEqual(self.ask("redis"), (3, []))


if __name__ == "__main__":
    unittest.main()
