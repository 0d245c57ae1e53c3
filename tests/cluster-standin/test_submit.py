"""Tests deploy/submit.sh with kubectl. The dump goes to an S3 store through `kubectl port-forward` or S3_URL."""

import hashlib
import http.server
import socket
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

from test_apiserver import WithKubectl
from test_remote import MEGABYTES, PATIENCE, Here

from manifests import ROOT


class Store(http.server.ThreadingHTTPServer):
    """An S3 store. It keeps each PUT request and does not check signatures."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Put)
        self.put = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self):
        self.shutdown()
        self.server_close()


class Put(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.put.append((self.path, self.headers, body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Submit(WithKubectl):
    def setUp(self):
        self.kubelet = Here()
        super().setUp()
        self.kubectl("apply --kustomize k8s/overlays/dev")
        self.until("pods", lambda found: "seaweedfs-0" in {pod["metadata"]["name"] for pod in found["items"]})
        pod = self.kubectl.store.get("pods", "facemill", "seaweedfs-0")
        self.kubectl.store.update(pod, lambda item: item | {"status": {"phase": "Running"}})
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dump = Path(folder.name) / "a dump.sql"
        self.dump.write_bytes(MEGABYTES)

    def submit(self, **more):
        # The upload to a local address ignores the proxy.
        more |= {"DUMP": str(self.dump), "RUN": "faces", "http_proxy": "http://127.0.0.1:9"}
        return subprocess.run([ROOT / "deploy/submit.sh"], env=self.kubectl.environment | more, cwd=ROOT, text=True,
                              capture_output=True, timeout=PATIENCE, check=False)

    def test_upload_and_producer_job(self):
        store = Store()
        self.addCleanup(store.close)
        self.kubelet.moved[8333] = store.server_port
        done = self.submit()
        self.assertEqual(done.returncode, 0, done.stderr)
        (path, headers, body), = store.put
        digest = hashlib.sha256(MEGABYTES).hexdigest()
        key = f"dumps/{digest[:16]}/a_dump.sql"
        self.assertEqual((path, headers["x-amz-content-sha256"], body == MEGABYTES), (f"/facemill/{key}", digest, True))
        self.assertRegex(headers["Authorization"], r"^AWS4-HMAC-SHA256 Credential=\S+/us-east-1/s3/aws4_request")
        job = done.stdout.split()[-1].removeprefix("job/")
        self.assertTrue(done.stdout.endswith(f"\nkubectl --namespace facemill logs --follow job/{job}\n"), done.stdout)
        arguments = self.kubectl.get(f"job/{job}")["spec"]["template"]["spec"]["containers"][0]["args"]
        self.assertEqual(arguments, ["produce", f"s3://facemill/{key}", "--run", "faces"])
        self.until("pods", lambda _: not self.running_kubectls())

    def test_s3_url_sets_the_upload_target(self):
        store = Store()
        self.addCleanup(store.close)
        done = self.submit(S3_URL=f"http://127.0.0.1:{store.server_port}/")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([(path.split("/")[1], body == MEGABYTES) for path, _, body in store.put], [("facemill", True)])

    def test_unreachable_store_is_an_error(self):
        bound = socket.socket()
        self.addCleanup(bound.close)
        bound.bind(("127.0.0.1", 0))
        self.kubelet.moved[8333] = bound.getsockname()[1]
        done = self.submit()
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("error forwarding port 8333 to pod seaweedfs-0", done.stderr)
        self.assertNotIn("create", done.stdout)

    def running_kubectls(self):
        """Returns the kubectl processes that forward a port of this test."""
        ours = self.kubectl.environment["KUBECONFIG"].encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if ours in (process / "environ").read_bytes() and b"port-forward" in (process / "cmdline").read_bytes():
                    found.append(process.name)
            except OSError:
                # The process has ended or belongs to another user.
                pass
        return found


if __name__ == "__main__":
    unittest.main()
