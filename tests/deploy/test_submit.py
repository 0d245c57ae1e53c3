"""deploy/submit.sh uploads the dump to a store in the cluster or at S3_URL, and creates the Job of the producer."""

import hashlib
import http.server
import random
import threading
import unittest

from fake_cluster import WithFakeCluster

DUMP = random.Random(1).randbytes(5_000_000)


class Store(http.server.ThreadingHTTPServer):
    """An object store that accepts every upload and checks no signature."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Upload)
        self.uploads = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self):
        self.shutdown()
        self.server_close()


class Upload(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.uploads.append((self.path, self.headers, body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Submit(WithFakeCluster):
    def setUp(self):
        super().setUp()
        self.dump = self.folder / "a dump.sql"
        self.dump.write_bytes(DUMP)
        self.store = Store()
        self.addCleanup(self.store.close)

    def submit(self, **variables):
        # A proxy must not be used for a forwarded port.
        settings = {"DUMP": str(self.dump), "RUN": "faces", "http_proxy": "http://127.0.0.1:9"} | variables
        return self.run_script("submit.sh", **settings)

    def forward_to(self, port):
        (self.folder / "port").write_text(str(port), encoding="utf-8")

    def test_uploads_the_dump_and_starts_the_producer(self):
        self.forward_to(self.store.server_port)
        done = self.submit()
        self.assertEqual(done.returncode, 0, done.stderr)
        (path, headers, body), = self.store.uploads
        digest = hashlib.sha256(DUMP).hexdigest()
        key = f"dumps/{digest[:16]}/a_dump.sql"
        self.assertEqual((path, headers["x-amz-content-sha256"], body == DUMP), (f"/facemill/{key}", digest, True))
        self.assertRegex(headers["Authorization"], r"^AWS4-HMAC-SHA256 Credential=facemill/\d+/us-east-1/s3/aws4_request")
        job = self.created()
        container = job["spec"]["template"]["spec"]["containers"][0]
        self.assertEqual(container["args"], ["produce", f"s3://facemill/{key}", "--run", "faces"])
        self.assertRegex(container["image"], "facemill:")
        name = job["metadata"]["name"]
        self.assertTrue(done.stdout.endswith(f"\nkubectl --namespace facemill logs --follow job/{name}\n"), done.stdout)

    def test_uploads_to_the_given_address(self):
        done = self.submit(S3_URL=f"http://127.0.0.1:{self.store.server_port}/")
        self.assertEqual(done.returncode, 0, done.stderr)
        uploads = [(path.split("/")[1], body == DUMP) for path, _, body in self.store.uploads]
        self.assertEqual(uploads, [("facemill", True)])

    def test_reports_why_the_upload_failed(self):
        port = self.store.server_port
        self.store.close()
        self.forward_to(port)
        reason = "error forwarding port 8333 to pod seaweedfs-0"
        (self.folder / "error").write_text(reason, encoding="utf-8")
        done = self.submit()
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(reason, done.stderr)
        self.assertFalse((self.folder / "created.json").exists())

    def test_rejects_a_bad_run_and_a_missing_dump(self):
        for variables, message in (({"RUN": "No Spaces"}, "RUN=No Spaces"), ({"DUMP": "/no/file"}, "/no/file is not a file")):
            done = self.submit(**variables)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(message, done.stderr)


if __name__ == "__main__":
    unittest.main()
