"""A DNS server for the pods of the stand-in. It reads the addresses from a hosts file.

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
# The time to live of a record in seconds. Pods change, so it is short.
TTL = 1


def known_names(file):
    """Addresses by full name. The resolver of the client completes short names (`search` in resolv.conf)."""
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
    # The name is a pointer to that of the question, at byte 12.
    answers = [b"\xc0\x0c" + struct.pack("!HHIH", ADDRESS, INTERNET, TTL, 4) + socket.inet_aton(a) for a in records]
    return query[:2] + struct.pack("!HHHHH", RESPONSE | code, 1, len(answers), 0, 0) + question + b"".join(answers)


class OverUdp(socketserver.BaseRequestHandler):
    def handle(self):
        query, back = self.request
        back.sendto(answer(query, known_names(self.server.file)), self.client_address)


class OverTcp(socketserver.StreamRequestHandler):
    def handle(self):
        while length := self.rfile.read(2):
            response = answer(self.rfile.read(int.from_bytes(length, "big")), known_names(self.server.file))
            self.wfile.write(len(response).to_bytes(2, "big") + response)


def serve(file):
    servers = [socketserver.UDPServer(("", 53), OverUdp), socketserver.ThreadingTCPServer(("", 53), OverTcp)]
    for server in servers:
        server.file = file
    threading.Thread(target=servers[1].serve_forever, daemon=True).start()
    servers[0].serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1])
