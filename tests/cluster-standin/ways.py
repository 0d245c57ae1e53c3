"""Tries the connections of tests/deploy/connections.py between the pods of the stand-in.

A way is open when somebody at its other end answers, be it that nobody listens there; it is closed when the rules of
one of its ends say that they have dropped it. A silence that nobody answers for is neither.
"""

import contextlib
import errno
import select
import socket
import time

from standin.kubelet import inside

from connections import ALLOWED, BLOCKED, names_of, parsed

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
# DNS: who answers for the root?
QUESTION = bytes.fromhex("000101000001000000000000" "0000020001")
PATIENCE = 20
# It is taken; nobody listens; who has listened is just ending.
ANSWERS = 0, errno.ECONNREFUSED, errno.ECONNRESET


class Ways:
    """`outside`: name and address of a network namespace that is no pod's."""

    def __init__(self, kubelet, outside):
        self.kubelet, self.outside = kubelet, outside
        # (address, address, protocol, port) of each attempt.
        self.tried = set()

    def runner(self, name):
        """The youngest such pod that lives."""
        alive = (runner for runner in reversed(self.kubelet.all_runners()) if runner.has_network)
        return next((runner for runner in alive if name in names_of(runner.pod)), None)

    def are_there(self):
        """Whether every pod of the tables has its network."""
        names = {name for way in parsed(ALLOWED) for name in way[:2]}
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
        wanted = {way: "open" for way in parsed(ALLOWED)} | {way: "closed" for way in parsed(BLOCKED)}
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
