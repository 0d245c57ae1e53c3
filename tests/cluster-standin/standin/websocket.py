"""The server side of a WebSocket (RFC 6455). kubectl uses it to run commands and to forward ports."""

import base64
import contextlib
import hashlib
import struct
import threading

BINARY, CLOSE, PING, PONG = 2, 8, 9, 10
NORMAL = struct.pack(">H", 1000)


def is_offered(handler, protocol):
    """Whether the client requests a WebSocket with this protocol. Responds with an error if not."""
    offered = [name.strip() for name in handler.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    if handler.headers.get("Upgrade", "").lower() == "websocket" and protocol in offered:
        return True
    # The SPDY upgrade of older kubectl versions is not supported.
    handler.answer(400, f"only WebSockets with {protocol} are supported\n".encode(), "text/plain")
    return False


class WebSocket:
    """Takes over the connection of a request that `is_offered`. Any thread may send; one thread receives."""

    def __init__(self, handler, protocol):
        self.source, self.connection, self.sending = handler.rfile, handler.connection, threading.Lock()
        self.is_closed = False
        handler.close_connection = True
        key = handler.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        handler.send_response(101)
        handler.send_header("Upgrade", "websocket")
        handler.send_header("Connection", "Upgrade")
        handler.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        handler.send_header("Sec-WebSocket-Protocol", protocol)
        handler.end_headers()
        handler.wfile.flush()

    def send(self, payload, kind=BINARY):
        size = len(payload)
        if size < 126:
            head = struct.pack(">BB", 0x80 | kind, size)
        elif size < 65_536:
            head = struct.pack(">BBH", 0x80 | kind, 126, size)
        else:
            head = struct.pack(">BBQ", 0x80 | kind, 127, size)
        with self.sending:
            if self.is_closed:
                raise BrokenPipeError("the WebSocket is closed")
            self.connection.sendall(head + payload)

    def close(self):
        """Sends a close frame, unless the client has disconnected."""
        with contextlib.suppress(ConnectionError):
            self.send(NORMAL, CLOSE)
        self.is_closed = True

    def receive(self):
        """Reads the next message; None at the end of the connection."""
        message = b""
        while (frame := self.frame()) is not None:
            kind, last, payload = frame
            if kind == CLOSE:
                return None
            # Control frames can come between the frames of a message.
            if kind == PING:
                self.send(payload, PONG)
            elif kind != PONG:
                message += payload
                if last:
                    return message
        return None

    def frame(self):
        """Reads a frame: its kind, whether it is the last of its message, and its payload; None at the end."""
        head = self.source.read(2)
        if len(head) < 2:
            return None
        size = head[1] & 127
        if size > 125:
            size = int.from_bytes(self.source.read(2 if size == 126 else 8), "big")
        mask = self.source.read(4)
        payload = self.source.read(size)
        if len(payload) < size:
            return None
        # One XOR over all bytes: the mask is repeated to the length of the payload.
        repeated = (mask * (size // 4 + 1))[:size]
        payload = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
        return head[0] & 15, bool(head[0] & 0x80), payload
