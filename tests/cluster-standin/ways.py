"""Tries the connections of tests/deploy/connections.py between the pods of the stand-in.

A connection is open if its target answers. A refusal is an answer. A connection is closed if the rules of one of its
ends report a drop. A connection with neither result is an error.
"""

import contextlib
import errno
import select
import socket
import time

from standin.kubelet import inside

from connections import ALLOWED, BLOCKED, names_of, parsed

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
# A DNS query for the name servers of the root.
QUESTION = bytes.fromhex("000101000001000000000000" "0000020001")
PATIENCE = 20
# Connection accepted, no listener, listener closing.
ANSWERS = 0, errno.ECONNREFUSED, errno.ECONNRESET


class Ways:
    """`outside`: name and address of a network namespace without a pod."""

    def __init__(self, kubelet, outside):
        self.kubelet, self.outside = kubelet, outside
        # (source address, target address, protocol, port) of each attempt.
        self.tried = set()

    def runner(self, name):
        """Returns the runner of the newest pod with this name and a network."""
        alive = (runner for runner in reversed(self.kubelet.all_runners()) if runner.has_network)
        return next((runner for runner in alive if name in names_of(runner.pod)), None)

    def are_there(self):
        """Returns whether every pod of the tables has its network."""
        names = {name for way in parsed(ALLOWED) for name in way[:2]}
        return all(self.runner(name) for name in names - {"outside"})

    def end(self, name):
        """Returns the runner or None, the network namespace, and the address of an end."""
        if name == "outside":
            return None, *self.outside
        if runner := self.runner(name):
            return runner, runner.netns, runner.address
        # An end that is only an address starts no connections.
        return None, None, name

    def check(self):
        """Checks that the connections of both tables are open or closed as listed."""
        wanted = {way: "open" for way in parsed(ALLOWED)} | {way: "closed" for way in parsed(BLOCKED)}
        found = self.try_all(wanted)
        faults = [f"{way[0]} -> {way[1]}, {way[2]} {way[3]}, is {result}, not {wanted[way]}"
                  for way, result in found.items() if result != wanted[way]]
        assert not faults, "\n".join(faults)
        count = list(wanted.values()).count
        return f"{count('open')} connections are open and {count('closed')} are closed, as expected"

    def try_all(self, ways):
        """Returns the result for each connection: `open`, `closed`, or an error text."""
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
            found[way] = "neither open nor closed: no answer and no drop"
            attempt.close()
        return found

    def dropped(self, ways):
        drops = {}
        for way in ways:
            start, end, *what = way
            (sender, _, source), (receiver, _, target) = self.end(start), self.end(end)
            self.tried.add((source, target, *what))
            for runner, direction, other in ((sender, "egress", target), (receiver, "ingress", source)):
                if runner is not None and runner not in drops:
                    drops[runner] = runner.drops()
                if runner is not None and (direction, other, *what) in drops[runner]:
                    yield way, "closed"

    def surprises(self):
        """Yields the drops that this test did not cause.

        Ignores the drops of pods that end without notice: the rules of the other pods remove these pods at once, and
        their last packets can arrive later.
        """
        lost = {runner.address for runner in self.kubelet.all_runners() if runner.lost}
        for runner in self.kubelet.all_runners():
            for direction, other, protocol, port in sorted(runner.drops()):
                way = (runner.address, other) if direction == "egress" else (other, runner.address)
                if (*way, protocol, port) not in self.tried and not lost & set(way):
                    yield f"{runner.name}: {direction}, {other}, {protocol} {port}"


def connecting(netns, targets):
    """Returns sockets of a network namespace that have started to connect."""
    sockets = {}
    with inside(netns):
        for way, target in targets.items():
            sockets[way] = socket.socket(type=KINDS[way[2]])
            sockets[way].setblocking(False)
            sockets[way].connect_ex(target)
            if way[2] == "udp":
                # If the egress rules drop it, the kernel returns an error at once, and the rules list the drop.
                with contextlib.suppress(PermissionError):
                    sockets[way].send(QUESTION)
    return sockets


def answered(waiting, patience=0.1):
    """Yields the connections that have an answer within `patience` seconds, with the result."""
    ways = {attempt.fileno(): way for way, attempt in waiting.items()}
    poll = select.poll()
    for number, way in ways.items():
        poll.register(number, select.POLLIN if way[2] == "udp" else select.POLLOUT)
    for number, _ in poll.poll(1000 * patience):
        way = ways[number]
        error = waiting[way].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        is_open = error in ANSWERS
        yield way, "open" if is_open else f"neither open nor closed: {errno.errorcode[error]}"
