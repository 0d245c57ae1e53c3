"""The part of SPDY/3 (draft-mbelshe-httpbis-spdy-00) that kubectl uses: many streams in one connection.

kubectl opens all streams. Neither kubectl nor this module implements the flow control of SPDY/3.1. An unread stream
blocks the sender and the other streams of the connection.
"""

import collections
import struct
import threading
import zlib

SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY = 1, 2, 3, 6, 7
VERSION = 3
# The flag FIN.
LAST = 1
# The maximum number of unread parts of a stream.
WAITING = 64

WORDS = (
    "options,head,post,put,delete,trace,accept,accept-charset,accept-encoding,accept-language,accept-ranges,age,allow,"
    "authorization,cache-control,connection,content-base,content-encoding,content-language,content-length,"
    "content-location,content-md5,content-range,content-type,date,etag,expect,expires,from,host,if-match,"
    "if-modified-since,if-none-match,if-range,if-unmodified-since,last-modified,location,max-forwards,pragma,"
    "proxy-authenticate,proxy-authorization,range,referer,retry-after,server,te,trailer,transfer-encoding,upgrade,"
    "user-agent,vary,via,warning,www-authenticate,method,get,status,200 OK,version,HTTP/1.1,url,public,set-cookie,"
    "keep-alive,origin"
)
TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
# The initial dictionary of the compression of headers (2.6.10.1).
DICTIONARY = b"".join(struct.pack(">I", len(word)) + word.encode() for word in WORDS.split(",")) + TEXT.encode()


class Stream:
    """A stream of a session: its headers and its received data."""

    def __init__(self, session, number, headers):
        self.session, self.number, self.headers = session, number, headers
        self.changed, self.parts = threading.Condition(), collections.deque()
        # `ended`: the peer has sent everything. `broken`: one side has reset the stream.
        self.ended, self.broken = False, False

    def read(self):
        """The next received part; empty at the end of the stream."""
        with self.changed:
            self.changed.wait_for(lambda: self.parts or self.ended or self.broken)
            if self.broken:
                raise ConnectionResetError("the stream was reset")
            part = self.parts.popleft() if self.parts else b""
            self.changed.notify_all()
            return part

    def write(self, data, last=False):
        self.session.send(struct.pack(">II", self.number, last * LAST << 24 | len(data)) + data)

    def end(self):
        self.write(b"", last=True)

    def take(self, data, last):
        """Adds received data. Blocks while too many parts are unread."""
        with self.changed:
            self.changed.wait_for(lambda: len(self.parts) < WAITING or self.broken)
            if data:
                self.parts.append(data)
            self.ended = self.ended or last
            self.changed.notify_all()

    def reset(self):
        with self.changed:
            self.broken = True
            self.parts.clear()
            self.changed.notify_all()


class Session:
    """Streams over a WebSocket, whose messages form one stream of bytes. `opened` gets each new stream."""

    def __init__(self, socket, opened):
        self.socket, self.opened = socket, opened
        self.streams, self.buffer = {}, bytearray()
        self.send = socket.send
        # All header blocks of a connection share one compression context.
        self.unpack = zlib.decompressobj(zdict=DICTIONARY)
        self.pack = zlib.compressobj(zdict=DICTIONARY)

    def serve(self):
        """Serves until the client disconnects. All streams then end."""
        try:
            while self.take_frame():
                pass
        finally:
            self.socket.close()
            for stream in self.streams.values():
                stream.reset()

    def read(self, size):
        """Reads `size` bytes; None at the end of the connection."""
        while len(self.buffer) < size:
            if (message := self.socket.receive()) is None:
                return None
            self.buffer += message
        found = bytes(self.buffer[:size])
        del self.buffer[:size]
        return found

    def take_frame(self):
        """Handles one frame. Returns False after the last."""
        if (head := self.read(8)) is None:
            return False
        first, second = struct.unpack(">II", head)
        flags, size = second >> 24, second & 0xFFFFFF
        if (body := self.read(size)) is None:
            return False
        if not first & 0x8000_0000:
            if first in self.streams:
                self.streams[first].take(body, bool(flags & LAST))
            return True
        if (version := first >> 16 & 0x7FFF) != VERSION:
            raise ValueError(f"this is SPDY/{version}")
        return self.take_control(first & 0xFFFF, flags, body)

    def take_control(self, kind, flags, body):
        if kind == GOAWAY:
            return False
        if kind == SYN_STREAM:
            stream = Stream(self, number_of(body), self.unpacked(body[10:]))
            stream.ended = bool(flags & LAST)
            self.streams[stream.number] = stream
            self.control(SYN_REPLY, body[:4] + self.packed({}))
            self.opened(stream)
        elif kind == RST_STREAM and (number := number_of(body)) in self.streams:
            self.streams[number].reset()
        elif kind == PING and number_of(body) % 2:
            # An even number is the reply to a ping of this side, which sends none.
            self.control(PING, body)
        # SETTINGS, HEADERS and WINDOW_UPDATE are ignored.
        return True

    def control(self, kind, body):
        self.send(struct.pack(">HHI", 0x8000 | VERSION, kind, len(body)) + body)

    def unpacked(self, block):
        """Decodes a header block (2.6.10)."""
        block = self.unpack.decompress(block)
        texts, offset = [], 4
        while offset < len(block):
            end = offset + 4 + number_of(block[offset:])
            texts.append(block[offset + 4 : end].decode())
            offset = end
        return dict(zip(texts[::2], texts[1::2]))

    def packed(self, headers):
        texts = [text.encode() for pair in headers.items() for text in pair]
        block = struct.pack(">I", len(headers)) + b"".join(struct.pack(">I", len(text)) + text for text in texts)
        return self.pack.compress(block) + self.pack.flush(zlib.Z_SYNC_FLUSH)


def number_of(body):
    return struct.unpack_from(">I", body)[0] & 0x7FFF_FFFF
