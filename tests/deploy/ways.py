"""Which ways between pods are open and which are closed, tried with real connections in the stand-in.

A way is open when somebody at its other end answers, be it that nobody listens there; it is closed when the rules of
one of its ends say that they have dropped it. A silence that nobody answers for is neither.
"""

import contextlib
import errno
import select
import socket
import time

from standin.kubelet import NODE, inside

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
# DNS: who answers for the root?
QUESTION = bytes.fromhex("000101000001000000000000" "0000020001")
PATIENCE = 20
# It is taken; nobody listens; who has listened is just ending.
ANSWERS = 0, errno.ECONNREFUSED, errno.ECONNRESET

# What is at each end: a worker of a stage, a server, a pod or namespace of around.yaml, `outside` (the photos'
# host), an address.
OPEN = """
fetch detect crop classify -> rabbitmq:5672 rabbitmq:15672 redis:6379 seaweedfs:8333 jaeger:4317 jaeger:4318
fetch detect crop classify rabbitmq redis seaweedfs jaeger -> names:53 names:53/udp
fetch -> outside:80
prometheus -> fetch:9100 detect:9100 crop:9100 classify:9100 rabbitmq:15692
keda -> rabbitmq:15672
"""
CLOSED = f"""
fetch detect crop classify -> rabbitmq:4369 rabbitmq:15692 redis:16379 seaweedfs:9333 seaweedfs:8888 jaeger:16686
fetch detect crop classify -> names:80 prometheus:9090 {NODE}:10250 169.254.169.254:80
fetch -> detect:9100 172.16.0.1:80 192.168.0.1:80 100.64.0.1:80 198.18.0.1:80 240.0.0.1:80
detect crop classify -> outside:80 fetch:9100
rabbitmq redis seaweedfs jaeger -> outside:80 fetch:9100
rabbitmq -> redis:6379
redis -> rabbitmq:5672
seaweedfs -> redis:6379
outside -> rabbitmq:5672 redis:6379 seaweedfs:8333 jaeger:4317 jaeger:16686 fetch:9100 classify:9100
prometheus -> rabbitmq:5672 rabbitmq:15672 redis:6379 seaweedfs:8333
keda -> rabbitmq:5672 redis:6379 fetch:9100
"""


def listed(table):
    """(from, to, protocol, port) of each way."""
    for line in table.strip().splitlines():
        starts, ends = line.split(" -> ")
        for start in starts.split():
            for end, port in (end.split(":") for end in ends.split()):
                port, _, protocol = port.partition("/")
                yield start, end, protocol or "tcp", int(port)


def known_as(pod):
    """What the tables call a pod."""
    meta = pod["metadata"]
    labels = [meta["labels"].get(f"app.kubernetes.io/{key}") for key in ("component", "name")]
    return {meta["name"], *labels} - {"facemill", None}


class Ways:
    """`outside`: name and address of a network namespace that is no pod's."""

    def __init__(self, kubelet, outside):
        self.kubelet, self.outside = kubelet, outside
        # (address, address, protocol, port) of each attempt.
        self.tried = set()

    def runner(self, name):
        """The youngest such pod that lives."""
        alive = (runner for runner in reversed(self.kubelet.all_runners()) if runner.has_network)
        return next((runner for runner in alive if name in known_as(runner.pod)), None)

    def are_there(self):
        """Whether every pod of the tables has its network."""
        names = {name for way in listed(OPEN) for name in way[:2]}
        return all(self.runner(name) for name in names - {"outside"})

    def end(self, name):
        """Its runner, where it has one; its network namespace; its address."""
        if name == "outside":
            return None, *self.outside
        if runner := self.runner(name):
            return runner, runner.netns, runner.address
        # An address: where it is, nobody starts.
        return None, None, name

    def check(self):
        """Every way of both tables is as it is there."""
        wanted = {way: "open" for way in listed(OPEN)} | {way: "closed" for way in listed(CLOSED)}
        found = self.try_all(wanted)
        faults = [f"{way[0]} -> {way[1]}, {way[2]} {way[3]}, is not {wanted[way]}, but {is_now}"
                  for way, is_now in found.items() if is_now != wanted[way]]
        assert not faults, "\n".join(faults)
        count = list(wanted.values()).count
        return f"{count('open')} ways are open and {count('closed')} closed, as they should be"

    def try_all(self, ways):
        """What became of each: `open`, `closed`, or why it is neither."""
        found, waiting = {}, {}
        for start in dict.fromkeys(way[0] for way in ways):
            targets = {way: (self.end(way[1])[2], way[3]) for way in ways if way[0] == start}
            waiting |= connecting(self.end(start)[1], targets)
        deadline = time.monotonic() + PATIENCE
        while waiting and time.monotonic() < deadline:
            for way, outcome in [*answered(waiting), *self.dropped(waiting)]:
                found.setdefault(way, outcome)
            for way in found.keys() & waiting.keys():
                waiting.pop(way).close()
        for way, attempt in waiting.items():
            found[way] = "neither: nobody answers, and nobody has dropped it"
            attempt.close()
        return found

    def dropped(self, ways):
        said = {}
        for way in ways:
            start, end, *what = way
            (sender, _, source), (receiver, _, target) = self.end(start), self.end(end)
            self.tried.add((source, target, *what))
            for runner, direction, other in ((sender, "egress", target), (receiver, "ingress", source)):
                if runner is not None and runner not in said:
                    said[runner] = runner.drops()
                if runner is not None and (direction, other, *what) in said[runner]:
                    yield way, "closed"

    def surprises(self):
        """What was dropped though nobody here has tried it: somebody needed it. Who is lost without a goodbye is
        forgotten at once by everybody else's rules, and may still say a last word."""
        lost = {runner.address for runner in self.kubelet.all_runners() if runner.lost}
        for runner in self.kubelet.all_runners():
            for direction, other, protocol, port in sorted(runner.drops()):
                way = (runner.address, other) if direction == "egress" else (other, runner.address)
                if (*way, protocol, port) not in self.tried and not lost & set(way):
                    yield f"{runner.name}: {direction}, {other}, {protocol} {port}"


def connecting(netns, targets):
    """Sockets of a network namespace that have begun to connect."""
    begun = {}
    with inside(netns):
        for way, target in targets.items():
            begun[way] = socket.socket(type=KINDS[way[2]])
            begun[way].setblocking(False)
            begun[way].connect_ex(target)
            if way[2] == "udp":
                # Where its own rules drop it, the kernel says so at once, and they have it in writing.
                with contextlib.suppress(PermissionError):
                    begun[way].send(QUESTION)
    return begun


def answered(waiting, patience=0.1):
    """Those of whom somebody has said something within so many seconds."""
    ways = {attempt.fileno(): way for way, attempt in waiting.items()}
    poll = select.poll()
    for number, way in ways.items():
        poll.register(number, select.POLLIN if way[2] == "udp" else select.POLLOUT)
    for number, _ in poll.poll(1000 * patience):
        way = ways[number]
        error = waiting[way].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        is_open = error in ANSWERS
        yield way, "open" if is_open else f"neither: {errno.errorcode[error]}"
