"""Serves `kubectl exec` and `kubectl port-forward`."""

import contextlib
import json
import socket
import threading

from . import spdy, websocket

# A command's streams share a WebSocket; each message begins with the number of one.
EXEC = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, OUTCOME, CLOSED = 0, 1, 2, 3, 255
# The WebSocket carries SPDY frames.
FORWARD = "SPDY/3.1+portforward.k8s.io"
# Bytes that a pod says at once, at most: more than a short frame of a WebSocket takes.
PART = 256 * 1024


def execute(handler, start):
    """Runs the process that `start` gives, with the streams of the caller's connection."""
    if not websocket.is_offered(handler, EXEC):
        return
    process = start()
    caller = websocket.WebSocket(handler, EXEC)

    def pass_on(stream, number):
        while data := stream.read1(PART):
            caller.send(bytes([number]) + data)

    readers = [threading.Thread(target=pass_on, args=(process.stdout, STDOUT)),
               threading.Thread(target=pass_on, args=(process.stderr, STDERR))]
    with process.stdout, process.stderr:
        for reader in readers:
            reader.start()
        threading.Thread(target=take_input, args=(caller, process), daemon=True).start()
        for reader in readers:
            reader.join()
    caller.send(bytes([OUTCOME]) + json.dumps(outcome(process.wait())).encode())
    caller.close()


def outcome(code):
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": f"command terminated with exit code {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def take_input(caller, process):
    """Gives the process what is meant for it. The caller's end is the process's end of input."""
    try:
        while (message := caller.receive()) is not None:
            if message == bytes([CLOSED, STDIN]):
                break
            if message[:1] == bytes([STDIN]) and process.stdin:
                process.stdin.write(message[1:])
                process.stdin.flush()
        if process.stdin:
            process.stdin.close()
    except (OSError, ValueError):
        # It ended without reading everything.
        pass


def forward(handler, pod, connect):
    """Carries connections to a pod's ports, which `connect` opens. Each has two streams: its data, and its errors."""
    if not websocket.is_offered(handler, FORWARD):
        return
    requests = {}

    def opened(stream):
        streams = requests.setdefault(stream.headers["requestid"], {})
        streams[stream.headers["streamtype"]] = stream
        if len(streams) == 2:
            request = requests.pop(stream.headers["requestid"])
            threading.Thread(target=carry, args=(pod, connect, request["data"], request["error"]), daemon=True).start()

    spdy.Session(websocket.WebSocket(handler, FORWARD), opened).serve()


def carry(pod, connect, data, errors):
    """One connection, until both ends are closed or one is broken. Errors have the kubelet's wording."""
    port, meta = int(data.headers["port"]), pod["metadata"]
    # Ignored if kubectl has disconnected.
    with contextlib.suppress(ConnectionError):
        try:
            with connect(port) as there:
                upwards = threading.Thread(target=carry_up, args=(data, there), daemon=True)
                upwards.start()
                while part := there.recv(PART):
                    data.write(part)
                data.end()
                upwards.join()
        except OSError as error:
            said = f"error forwarding port {port} to pod {meta['name']}, uid {meta['uid']}: {error}"
            errors.write(said.encode())
            data.end()
        finally:
            data.give_up()
            errors.end()


def carry_up(data, there):
    """Sends the client's data to the pod. After its end, the pod can still respond."""
    how = socket.SHUT_RDWR
    with contextlib.suppress(OSError):
        while part := data.read():
            there.sendall(part)
        how = socket.SHUT_WR
    with contextlib.suppress(OSError):
        there.shutdown(how)
