"""Tests the answers of the DNS server of the stand-in."""

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
        """Returns the response code and the data of the records."""
        request = query(name, kind)
        reply = answer(request, self.names)
        number, flags, questions, count, *_ = struct.unpack("!HHHHHH", reply[:12])
        self.assertEqual((number, flags & 0x8000, questions), (4711, 0x8000, 1))
        self.assertTrue(reply[12:].startswith(request[12:]))
        records = reply[len(request):]
        self.assertEqual(len(records), 16 * count)
        return flags & 15, [records[place + 12:place + 16] for place in range(0, len(records), 16)]

    def test_known_name_has_addresses(self):
        self.assertEqual(self.ask("redis.facemill.svc.cluster.local"), (0, [bytes([10, 88, 1, 7])]))
        self.assertEqual(self.ask("Photos.Test"), (0, [bytes([192, 31, 196, 10])]))

    def test_known_name_without_the_record_type(self):
        self.assertEqual(self.ask("photos.test", AAAA), (0, []))

    def test_unknown_name(self):
        self.assertEqual(self.ask("photos.test.svc.cluster.local"), (3, []))
        # The resolver appends the search domains. The server does not.
        self.assertEqual(self.ask("redis"), (3, []))


if __name__ == "__main__":
    unittest.main()
