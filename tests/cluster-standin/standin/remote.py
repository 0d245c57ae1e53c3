"""Serves `kubectl exec` and `kubectl port-forward`."""

import contextlib
import json
import socket
import threading

from . import spdy, websocket

# The streams of a command share a WebSocket. The first byte of a message is the number of its stream.
EXEC = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, OUTCOME, CLOSED = 0, 1, 2, 3, 255
# The WebSocket carries SPDY frames.
FORWARD = "SPDY/3.1+portforward.k8s.io"
# The maximum size of a message in bytes. It is larger than a short WebSocket frame, so tests cover long frames.
PART = 256 * 1024


def execute(handler, start):
    """Starts a process with `start` and connects its streams to the client."""
    if not websocket.is_offered(handler, EXEC):
        return
    process = start()
    client = websocket.WebSocket(handler, EXEC)

    def pass_on(stream, number):
        while data := stream.read1(PART):
            client.send(bytes([number]) + data)

    readers = [threading.Thread(target=pass_on, args=(process.stdout, STDOUT)),
               threading.Thread(target=pass_on, args=(process.stderr, STDERR))]
    with process.stdout, process.stderr:
        for reader in readers:
            reader.start()
        threading.Thread(target=send_input, args=(client, process), daemon=True).start()
        for reader in readers:
            reader.join()
    client.send(bytes([OUTCOME]) + json.dumps(outcome(process.wait())).encode())
    client.close()


def outcome(code):
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": f"command terminated with exit code {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def send_input(client, process):
    """Sends the client's input to the process, and closes the input when the client does."""
    try:
        while (message := client.receive()) is not None:
            if message == bytes([CLOSED, STDIN]):
                break
            if message[:1] == bytes([STDIN]) and process.stdin:
                process.stdin.write(message[1:])
                process.stdin.flush()
        if process.stdin:
            process.stdin.close()
    except (OSError, ValueError):
        # The process ended without reading everything.
        pass


def forward(handler, pod, connect):
    """Forwards connections to ports of a pod, opened by `connect`. Each has two streams: data and errors."""
    if not websocket.is_offered(handler, FORWARD):
        return
    requests = {}

    def opened(stream):
        streams = requests.setdefault(stream.headers["requestid"], {})
        streams[stream.headers["streamtype"]] = stream
        if len(streams) == 2:
            request = requests.pop(stream.headers["requestid"])
            ends = (pod, connect, request["data"], request["error"])
            threading.Thread(target=forward_connection, args=ends, daemon=True).start()

    spdy.Session(websocket.WebSocket(handler, FORWARD), opened).serve()


def forward_connection(pod, connect, data, errors):
    """Forwards one connection until both ends are closed or one fails. Errors have the wording of the kubelet."""
    port, meta = int(data.headers["port"]), pod["metadata"]
    # Ignored if kubectl has disconnected.
    with contextlib.suppress(ConnectionError):
        try:
            with connect(port) as port_socket:
                upwards = threading.Thread(target=send_data, args=(data, port_socket), daemon=True)
                upwards.start()
                while part := port_socket.recv(PART):
                    data.write(part)
                data.end()
                upwards.join()
        except OSError as error:
            message = f"error forwarding port {port} to pod {meta['name']}, uid {meta['uid']}: {error}"
            errors.write(message.encode())
            data.end()
        finally:
            data.reset()
            errors.end()


def send_data(data, port_socket):
    """Sends the client's data to the pod. After its end, the pod can still respond."""
    how = socket.SHUT_RDWR
    with contextlib.suppress(OSError):
        while part := data.read():
            port_socket.sendall(part)
        how = socket.SHUT_WR
    with contextlib.suppress(OSError):
        port_socket.shutdown(how)
