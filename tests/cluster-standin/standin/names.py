"""A DNS server for the stand-in's pods, addresses of names from a hosts file.

It runs in a pod of its own, so the network policies must allow DNS. It serves UDP and TCP. Resolvers use TCP if a
response is too long for UDP.
"""

import socket
import socketserver
import struct
import sys
import threading

ADDRESS, INTERNET = 1, 1
NO_SUCH_NAME, RESPONSE = 3, 0x8580
# Seconds that an answer may be kept: pods come and go.
KEPT = 1


def known_names(file):
    """Addresses by name. Short names are the asker's to complete (`search` in its resolv.conf)."""
    found = {}
    with open(file, encoding="utf-8") as lines:
        for address, *names in filter(None, map(str.split, lines)):
            for name in names:
                if "." in name:
                    found.setdefault(name.lower(), []).append(address)
    return found


def answer(query, names):
    """The response to a query (RFC 1035) of one question."""
    place, labels = 12, []
    while length := query[place]:
        labels.append(query[place + 1:place + 1 + length].decode("ascii", "replace").lower())
        place += 1 + length
    question = query[12:place + 5]
    kind, space = struct.unpack("!HH", question[-4:])
    addresses = names.get(".".join(labels))
    records = addresses if addresses and (kind, space) == (ADDRESS, INTERNET) else []
    code = NO_SUCH_NAME if addresses is None else 0
    # The name is the question's: a pointer to byte 12.
    said = [b"\xc0\x0c" + struct.pack("!HHIH", ADDRESS, INTERNET, KEPT, 4) + socket.inet_aton(a) for a in records]
    return query[:2] + struct.pack("!HHHHH", RESPONSE | code, 1, len(said), 0, 0) + question + b"".join(said)


class OverUdp(socketserver.BaseRequestHandler):
    def handle(self):
        query, back = self.request
        back.sendto(answer(query, known_names(self.server.file)), self.client_address)


class OverTcp(socketserver.StreamRequestHandler):
    def handle(self):
        while length := self.rfile.read(2):
            said = answer(self.rfile.read(int.from_bytes(length, "big")), known_names(self.server.file))
            self.wfile.write(len(said).to_bytes(2, "big") + said)


def serve(file):
    servers = [socketserver.UDPServer(("", 53), OverUdp), socketserver.ThreadingTCPServer(("", 53), OverTcp)]
    for server in servers:
        server.file = file
    threading.Thread(target=servers[1].serve_forever, daemon=True).start()
    servers[0].serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1])
