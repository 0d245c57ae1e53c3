"""The server's side of `kubectl exec`: a WebSocket (RFC 6455) whose messages begin with the number of a stream.

Streams: 0 standard input, 1 output, 2 errors, 3 how it ended, 255 one that is closed (v5.channel.k8s.io).
"""

import base64
import hashlib
import json
import struct
import threading

PROTOCOL = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, OUTCOME, CLOSED = 0, 1, 2, 3, 255
BINARY, CLOSE, PING, PONG = 2, 8, 9, 10


def serve(handler, start):
    """Runs the process that `start` gives, with the streams of the caller's connection."""
    if handler.headers.get("Upgrade", "").lower() != "websocket":
        # kubectl then says so: SPDY is not spoken here.
        return handler.answer(400, b"only WebSockets are spoken here\n", "text/plain")
    key = handler.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    handler.send_response(101)
    handler.send_header("Upgrade", "websocket")
    handler.send_header("Connection", "Upgrade")
    handler.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
    handler.send_header("Sec-WebSocket-Protocol", PROTOCOL)
    handler.end_headers()
    handler.wfile.flush()
    process = start()
    writing = threading.Lock()

    def send(kind, payload):
        size = len(payload)
        head = bytes([0x80 | kind, size]) if size < 126 else bytes([0x80 | kind, 126]) + struct.pack(">H", size)
        with writing:
            handler.wfile.write(head + payload)
            handler.wfile.flush()

    def pass_on(stream, number):
        while data := stream.read1(32_000):
            send(BINARY, bytes([number]) + data)

    readers = [threading.Thread(target=pass_on, args=(process.stdout, STDOUT)),
               threading.Thread(target=pass_on, args=(process.stderr, STDERR))]
    for reader in readers:
        reader.start()
    threading.Thread(target=take_input, args=(handler.rfile, process, send), daemon=True).start()
    for reader in readers:
        reader.join()
    send(BINARY, bytes([OUTCOME]) + json.dumps(outcome(process.wait())).encode())
    send(CLOSE, struct.pack(">H", 1000))


def outcome(code):
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": f"command terminated with exit code {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def take_input(stream, process, send):
    """Gives the process what is meant for it. The caller's end is the process's end of input."""
    try:
        while (message := receive(stream)) is not None:
            kind, payload = message
            if kind == PING:
                send(PONG, payload)
            elif kind == CLOSE:
                break
            elif payload[:1] == bytes([STDIN]) and process.stdin:
                process.stdin.write(payload[1:])
                process.stdin.flush()
            elif payload == bytes([CLOSED, STDIN]):
                break
        if process.stdin:
            process.stdin.close()
    except (OSError, ValueError):
        # It ended without reading everything.
        pass


def receive(stream):
    """One message, put together from its frames; None at the end of the connection."""
    message, first = b"", None
    while True:
        head = stream.read(2)
        if len(head) < 2:
            return None
        size = head[1] & 127
        if size > 125:
            size = int.from_bytes(stream.read(2 if size == 126 else 8), "big")
        mask = stream.read(4)
        payload = stream.read(size)
        # All bytes at once: the mask is as long as the payload.
        repeated = (mask * (size // 4 + 1))[:size]
        message += (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
        first = head[0] & 15 if first is None else first
        if head[0] & 0x80:
            return first, message
