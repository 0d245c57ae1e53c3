"""`kubectl exec` and `kubectl port-forward` through the stand-in, with this process in the place of the pods."""

import hashlib
import io
import os
import queue
import random
import socket
import socketserver
import struct
import subprocess
import threading
import unittest
import unittest.mock

from standin import websocket
from standin.apiserver import Refused
from forwarding import forwarding
from test_apiserver import WithKubectl

PATIENCE = 60
MEGABYTES = random.Random(1).randbytes(5_000_000)

MANIFEST = """
apiVersion: v1
kind: Namespace
metadata: {name: facemill}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  clusterIP: 10.0.0.1
  selector: {app: echo}
  ports: [{name: echo, port: 7, targetPort: echo}, {name: patient, port: 8, targetPort: PATIENT}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: echo}
spec:
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      containers: [{name: echo, image: echo, ports: [{name: echo, containerPort: ECHO}]}]
"""


class Echo(socketserver.BaseRequestHandler):
    """Says everything again at once."""

    def handle(self):
        try:
            while said := self.request.recv(60_000):
                self.request.sendall(said)
        except ConnectionError:
            pass
        self.server.left.put(self.client_address)


class PatientEcho(socketserver.BaseRequestHandler):
    """Hears the caller out, and then says everything again."""

    def handle(self):
        with self.request.makefile("rb") as said:
            self.request.sendall(said.read())


class Farewell(socketserver.BaseRequestHandler):
    """Ends at once, whatever it is told."""

    def handle(self):
        self.request.sendall(b"farewell")


class Listener(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)
        self.left = queue.Queue()
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self):
        self.shutdown()
        self.server_close()


class Here:
    """A kubelet whose pods are all this process."""

    def __init__(self):
        self.runs = True
        # Where a pod's port really is, if it is another one here.
        self.moved = {}

    def running(self, pod):
        if not self.runs:
            raise Refused(500, "InternalError", "the container is not running")

    def ports(self, pod):
        return lambda port: socket.create_connection(("127.0.0.1", self.moved.get(port, port)))

    def execute(self, pod, command, with_input):
        given = subprocess.PIPE if with_input else subprocess.DEVNULL
        return subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


class FromAfar(WithKubectl):
    def setUp(self):
        self.kubelet = Here()
        super().setUp()
        self.echo, self.patient = Listener(Echo), Listener(PatientEcho)
        self.addCleanup(self.echo.close)
        self.addCleanup(self.patient.close)
        manifest = MANIFEST.replace("ECHO", str(self.echo.port)).replace("PATIENT", str(self.patient.port))
        self.kubectl("--namespace facemill create --filename -", manifest)
        self.until("pods", lambda found: found["items"])
        self.pod = self.kubectl.get("pods")["items"][0]
        self.kubectl.store.update(self.pod, lambda there: there | {"status": {"phase": "Running"}})
        self.name = self.pod["metadata"]["name"]

    def forwarding(self, target, port):
        command = ["kubectl", "--namespace", "facemill", "port-forward", target, f":{port}"]
        return forwarding(command, self.kubectl.environment)


class PortForward(FromAfar):
    def test_finds_the_pod_of_whatever_is_named(self):
        for target, port in (("service/echo", 7), ("deployment/echo", "echo"), (f"pod/{self.name}", self.echo.port)):
            with self.forwarding(target, port) as (_, local), called(local) as call:
                call.sendall(b"hello")
                self.assertEqual(heard(call, 5), b"hello")

    def test_carries_megabytes_both_ways_and_a_half_closed_end(self):
        for service_port in (7, 8):
            with self.forwarding("service/echo", service_port) as (_, local), called(local) as call:
                speaker = threading.Thread(target=say_all, args=(call, MEGABYTES))
                speaker.start()
                answer = heard(call)
                speaker.join()
                self.assertEqual(digest(answer), digest(MEGABYTES))

    def test_carries_two_connections_at_once(self):
        with self.forwarding("service/echo", 7) as (_, local), called(local) as one, called(local) as other:
            for call, words in ((one, b"one"), (other, b"other"), (one, b"and one"), (other, b"and the other")):
                call.sendall(words)
                self.assertEqual(heard(call, len(words)), words)
            speakers = [threading.Thread(target=say_all, args=(call, said)) for call, said in
                        ((one, MEGABYTES), (other, MEGABYTES[::-1]))]
            for speaker in speakers:
                speaker.start()
            answers = []
            listener = threading.Thread(target=lambda: answers.append(heard(other)))
            listener.start()
            self.assertEqual(digest(heard(one)), digest(MEGABYTES))
            listener.join()
            self.assertEqual(digest(answers[0]), digest(MEGABYTES[::-1]))

    def test_ends_when_the_pod_ends_it(self):
        listener = Listener(Farewell)
        self.addCleanup(listener.close)
        with self.forwarding(f"pod/{self.name}", listener.port) as (_, local), called(local) as call:
            self.assertEqual(heard(call), b"farewell")

    def test_goes_on_after_a_connection_that_was_given_up(self):
        with self.forwarding("service/echo", 7) as (_, local):
            with called(local) as call:
                # Closed with a reset, while its answer is on the way.
                call.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                call.sendall(MEGABYTES[:100_000])
            self.echo.left.get(timeout=PATIENCE)
            with called(local) as call:
                call.sendall(b"still there")
                self.assertEqual(heard(call, 11), b"still there")

    def test_tells_of_a_port_where_nobody_listens(self):
        # One that is bound, and no more, remains so.
        bound = socket.socket()
        self.addCleanup(bound.close)
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with self.forwarding(f"pod/{self.name}", port) as (process, local):
            with called(local) as call:
                self.assertEqual(heard(call), b"")
            said, _ = process.communicate(timeout=PATIENCE)
        self.assertIn(f"error forwarding port {port} to pod {self.name}, uid {self.pod['metadata']['uid']}", said)
        self.assertIn("Connection refused", said)
        self.assertIn("lost connection to pod", said)
        self.assertEqual(process.returncode, 1)

    def test_ends_with_kubectl(self):
        with self.forwarding("service/echo", 7) as (process, local), called(local) as call:
            call.sendall(b"hello")
            self.assertEqual(heard(call, 5), b"hello")
            process.kill()
            self.echo.left.get(timeout=PATIENCE)


class Exec(FromAfar):
    def run_in_pod(self, *command, given=b""):
        line = ["kubectl", "--namespace", "facemill", "exec", "--stdin", "deployment/echo", "--", *command]
        return subprocess.run(line, env=self.kubectl.environment, input=given, capture_output=True, timeout=PATIENCE,
                              check=False)

    def test_carries_megabytes_both_ways(self):
        done = self.run_in_pod("cat", given=MEGABYTES)
        self.assertEqual((done.returncode, digest(done.stdout)), (0, digest(MEGABYTES)), done.stderr)

    def test_tells_how_it_ended(self):
        done = self.run_in_pod("sh", "-c", "echo out; echo err >&2; exit 3")
        self.assertEqual((done.returncode, done.stdout), (3, b"out\n"))
        self.assertEqual(done.stderr, b"err\ncommand terminated with exit code 3\n")


class NoPod(FromAfar):
    def test_is_told_of(self):
        self.kubelet.runs = False
        for line in ("exec deployment/echo -- true", "port-forward service/echo :7"):
            code, said = self.kubectl.run(f"--namespace facemill {line}")
            self.assertEqual(code, 1)
            self.assertIn("the container is not running", said)


class Messages(unittest.TestCase):
    """A WebSocket's frames of every size: kubectl's own are small."""

    def opened(self, said):
        handler = unittest.mock.Mock(rfile=io.BytesIO(said), headers={"Sec-WebSocket-Key": "k"})
        return websocket.WebSocket(handler, "p"), handler.connection.sendall

    def framed(self, kind, payload, last=True):
        size, mask = len(payload), os.urandom(4)
        if size < 126:
            length = bytes([0x80 | size])
        else:
            length = b"\xfe" + struct.pack(">H", size) if size < 65_536 else b"\xff" + struct.pack(">Q", size)
        return bytes([last << 7 | kind]) + length + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))

    def test_are_received(self):
        for size in (0, 1, 125, 126, 127, 65_535, 65_536, 300_000):
            caller, _ = self.opened(self.framed(2, MEGABYTES[:size]))
            self.assertEqual(caller.receive(), MEGABYTES[:size])
            self.assertIsNone(caller.receive())

    def test_are_put_together_and_pings_answered_in_between(self):
        parts = self.framed(2, b"a", last=False), self.framed(9, b"?"), self.framed(0, b"b"), self.framed(8, b"")
        caller, sent = self.opened(b"".join(parts))
        self.assertEqual((caller.receive(), caller.receive()), (b"ab", None))
        sent.assert_called_once_with(b"\x8a\x01?")

    def test_are_not_taken_in_halves(self):
        caller, _ = self.opened(self.framed(2, b"whole")[:-1])
        self.assertIsNone(caller.receive())

    def test_are_sent(self):
        for size, head in ((0, b"\0"), (125, b"\x7d"), (126, b"\x7e\0\x7e"), (65_535, b"\x7e\xff\xff"),
                           (65_536, b"\x7f\0\0\0\0\0\x01\0\0")):
            caller, sent = self.opened(b"")
            caller.send(MEGABYTES[:size])
            sent.assert_called_once_with(b"\x82" + head + MEGABYTES[:size])


def called(port):
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


def heard(call, size=None):
    """So many bytes, or all until the end."""
    parts = bytearray()
    while (size is None or len(parts) < size) and (part := call.recv(1_000_000)):
        parts += part
    return bytes(parts)


def say_all(call, words):
    call.sendall(words)
    call.shutdown(socket.SHUT_WR)


def digest(data):
    return len(data), hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    unittest.main()
