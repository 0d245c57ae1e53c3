"""Tests `kubectl exec` and `kubectl port-forward` through the stand-in. This process replaces the pods."""

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
  ports: [{name: echo, port: 7, targetPort: echo}, {name: echo-at-end, port: 8, targetPort: AT_END}]
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
    """Returns all data at once."""

    def handle(self):
        try:
            while data := self.request.recv(60_000):
                self.request.sendall(data)
        except ConnectionError:
            pass
        self.server.left.put(self.client_address)


class EchoAtEnd(socketserver.BaseRequestHandler):
    """Returns all data after the end of the input."""

    def handle(self):
        with self.request.makefile("rb") as file:
            self.request.sendall(file.read())


class SendAndClose(socketserver.BaseRequestHandler):
    """Sends data and closes the connection. Ignores the input."""

    def handle(self):
        self.request.sendall(b"data")


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
    """A kubelet. All of its pods are this process."""

    def __init__(self):
        self.runs = True
        # Pod ports that have another number in this process.
        self.moved = {}

    def running(self, pod):
        if not self.runs:
            raise Refused(500, "InternalError", "the container is not running")

    def ports(self, pod):
        return lambda port: socket.create_connection(("127.0.0.1", self.moved.get(port, port)))

    def execute(self, pod, command, with_input):
        stdin = subprocess.PIPE if with_input else subprocess.DEVNULL
        return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


class RemoteTests(WithKubectl):
    def setUp(self):
        self.kubelet = Here()
        super().setUp()
        self.echo, self.echo_at_end = Listener(Echo), Listener(EchoAtEnd)
        self.addCleanup(self.echo.close)
        self.addCleanup(self.echo_at_end.close)
        manifest = MANIFEST.replace("ECHO", str(self.echo.port)).replace("AT_END", str(self.echo_at_end.port))
        self.kubectl("--namespace facemill create --filename -", manifest)
        self.until("pods", lambda found: found["items"])
        self.pod = self.kubectl.get("pods")["items"][0]
        self.kubectl.store.update(self.pod, lambda item: item | {"status": {"phase": "Running"}})
        self.name = self.pod["metadata"]["name"]

    def forwarding(self, target, port):
        command = ["kubectl", "--namespace", "facemill", "port-forward", target, f":{port}"]
        return forwarding(command, self.kubectl.environment)


class PortForward(RemoteTests):
    def test_target_is_a_service_deployment_or_pod(self):
        for target, port in (("service/echo", 7), ("deployment/echo", "echo"), (f"pod/{self.name}", self.echo.port)):
            with self.forwarding(target, port) as (_, local), connected(local) as call:
                call.sendall(b"hello")
                self.assertEqual(received(call, 5), b"hello")

    def test_megabytes_in_both_directions_and_half_close(self):
        for service_port in (7, 8):
            with self.forwarding("service/echo", service_port) as (_, local), connected(local) as call:
                sender = threading.Thread(target=send_all, args=(call, MEGABYTES))
                sender.start()
                answer = received(call)
                sender.join()
                self.assertEqual(digest(answer), digest(MEGABYTES))

    def test_two_concurrent_connections(self):
        with self.forwarding("service/echo", 7) as (_, local), connected(local) as one, connected(local) as other:
            for call, data in ((one, b"one"), (other, b"other"), (one, b"and one"), (other, b"and the other")):
                call.sendall(data)
                self.assertEqual(received(call, len(data)), data)
            senders = [threading.Thread(target=send_all, args=(call, data)) for call, data in
                        ((one, MEGABYTES), (other, MEGABYTES[::-1]))]
            for sender in senders:
                sender.start()
            answers = []
            listener = threading.Thread(target=lambda: answers.append(received(other)))
            listener.start()
            self.assertEqual(digest(received(one)), digest(MEGABYTES))
            listener.join()
            self.assertEqual(digest(answers[0]), digest(MEGABYTES[::-1]))

    def test_connection_ends_when_the_pod_closes_it(self):
        listener = Listener(SendAndClose)
        self.addCleanup(listener.close)
        with self.forwarding(f"pod/{self.name}", listener.port) as (_, local), connected(local) as call:
            self.assertEqual(received(call), b"data")

    def test_continues_after_a_connection_reset(self):
        with self.forwarding("service/echo", 7) as (_, local):
            with connected(local) as call:
                # A reset closes the connection during the answer.
                call.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                call.sendall(MEGABYTES[:100_000])
            self.echo.left.get(timeout=PATIENCE)
            with connected(local) as call:
                call.sendall(b"still there")
                self.assertEqual(received(call, 11), b"still there")

    def test_port_without_listener_is_an_error(self):
        # A bound port without a listener stays reserved.
        bound = socket.socket()
        self.addCleanup(bound.close)
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with self.forwarding(f"pod/{self.name}", port) as (process, local):
            with connected(local) as call:
                self.assertEqual(received(call), b"")
            output, _ = process.communicate(timeout=PATIENCE)
        self.assertIn(f"error forwarding port {port} to pod {self.name}, uid {self.pod['metadata']['uid']}", output)
        self.assertIn("Connection refused", output)
        self.assertIn("lost connection to pod", output)
        self.assertEqual(process.returncode, 1)

    def test_connection_ends_with_kubectl(self):
        with self.forwarding("service/echo", 7) as (process, local), connected(local) as call:
            call.sendall(b"hello")
            self.assertEqual(received(call, 5), b"hello")
            process.kill()
            self.echo.left.get(timeout=PATIENCE)


class Exec(RemoteTests):
    def run_in_pod(self, *command, stdin=b""):
        line = ["kubectl", "--namespace", "facemill", "exec", "--stdin", "deployment/echo", "--", *command]
        return subprocess.run(line, env=self.kubectl.environment, input=stdin, capture_output=True, timeout=PATIENCE,
                              check=False)

    def test_megabytes_in_both_directions(self):
        done = self.run_in_pod("cat", stdin=MEGABYTES)
        self.assertEqual((done.returncode, digest(done.stdout)), (0, digest(MEGABYTES)), done.stderr)

    def test_exit_code_and_both_outputs(self):
        done = self.run_in_pod("sh", "-c", "echo out; echo err >&2; exit 3")
        self.assertEqual((done.returncode, done.stdout), (3, b"out\n"))
        self.assertEqual(done.stderr, b"err\ncommand terminated with exit code 3\n")


class StoppedContainer(RemoteTests):
    def test_is_an_error(self):
        self.kubelet.runs = False
        for line in ("exec deployment/echo -- true", "port-forward service/echo :7"):
            code, output = self.kubectl.run(f"--namespace facemill {line}")
            self.assertEqual(code, 1)
            self.assertIn("the container is not running", output)


class Messages(unittest.TestCase):
    """WebSocket frames of every size. The frames of kubectl are small."""

    def opened(self, data):
        handler = unittest.mock.Mock(rfile=io.BytesIO(data), headers={"Sec-WebSocket-Key": "k"})
        return websocket.WebSocket(handler, "p"), handler.connection.sendall

    def framed(self, kind, payload, last=True):
        size, mask = len(payload), os.urandom(4)
        if size < 126:
            length = bytes([0x80 | size])
        else:
            length = b"\xfe" + struct.pack(">H", size) if size < 65_536 else b"\xff" + struct.pack(">Q", size)
        return bytes([last << 7 | kind]) + length + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))

    def test_frames_of_each_size_are_received(self):
        for size in (0, 1, 125, 126, 127, 65_535, 65_536, 300_000):
            caller, _ = self.opened(self.framed(2, MEGABYTES[:size]))
            self.assertEqual(caller.receive(), MEGABYTES[:size])
            self.assertIsNone(caller.receive())

    def test_fragments_are_joined_and_pings_are_answered(self):
        parts = self.framed(2, b"a", last=False), self.framed(9, b"?"), self.framed(0, b"b"), self.framed(8, b"")
        caller, sent = self.opened(b"".join(parts))
        self.assertEqual((caller.receive(), caller.receive()), (b"ab", None))
        sent.assert_called_once_with(b"\x8a\x01?")

    def test_incomplete_frame_is_ignored(self):
        caller, _ = self.opened(self.framed(2, b"whole")[:-1])
        self.assertIsNone(caller.receive())

    def test_frames_of_each_size_are_sent(self):
        for size, head in ((0, b"\0"), (125, b"\x7d"), (126, b"\x7e\0\x7e"), (65_535, b"\x7e\xff\xff"),
                           (65_536, b"\x7f\0\0\0\0\0\x01\0\0")):
            caller, sent = self.opened(b"")
            caller.send(MEGABYTES[:size])
            sent.assert_called_once_with(b"\x82" + head + MEGABYTES[:size])


def connected(port):
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


def received(call, size=None):
    """Returns `size` bytes, or all bytes until the end."""
    parts = bytearray()
    while (size is None or len(parts) < size) and (part := call.recv(1_000_000)):
        parts += part
    return bytes(parts)


def send_all(call, data):
    call.sendall(data)
    call.shutdown(socket.SHUT_WR)


def digest(data):
    return len(data), hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    unittest.main()
