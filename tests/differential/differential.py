"""Compares the candidates that facemill reads from a dump with the answer of the database.

    tests/differential/differential.py [--comparisons N] [--mutations N] [--seed SEED] [--strict] [--only ID] [--keep FOLDER]

Part one generates databases, lets the tools of PostgreSQL, MariaDB and SQLite dump them with combined options, and
expects of each dump the database's own answer to the query. Part two changes a byte, a word, a line or a statement of
such dumps and loads them up to the first error: what the server refuses is refused, what it takes gives its answer.
A refusal where the server answers counts as stricter, and must be one of `reader.REASONS`.

Every case follows from the seed and its id, which a failure prints; `--only ID` runs it alone. The dumps of failures
stay in FOLDER.
"""

import argparse
import bz2
import collections
import concurrent.futures
import dataclasses
import gzip
import lzma
import os
import pathlib
import random
import shutil
import signal
import sys
import threading
import time

import databases
import mutations
import pairwise
import processes
import reader
from mariadb import MariaDb
from postgres import Postgres
from sqlite import Sqlite

SERVERS = {server.name: server for server in (Postgres, MariaDb, Sqlite)}
# Comparisons of each server, of 100, and dumps of each database.
SHARES = {"postgres": 34, "mariadb": 38, "sqlite": 28}
DUMPS = 4
# Mutations of one dump. The first mutation of a dump pays for the database.
MUTATIONS = 40
# Databases that are tried until one is answered alike by server and reader.
ATTEMPTS = 20
WORKERS = 2
PACKERS = {"": bytes, "gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}


class Report:
    """Counts outcomes, and keeps what failed."""

    def __init__(self, folder):
        self.folder = folder
        self.lock = threading.Lock()
        self.counts = collections.Counter()
        self.failures = []
        # What the tests themselves could not do.
        self.errors = []

    def count(self, *outcome):
        with self.lock:
            self.counts[outcome] += 1

    def fail(self, id, what, database, dump, expected, found):
        """`expected` and `found` are rows, or texts of a refusal."""
        with self.lock:
            self.failures.append((id, what))
            name = id.replace("/", "-").replace(" ", "_")
            self.folder.mkdir(parents=True, exist_ok=True)
            if isinstance(dump, bytes):
                (self.folder / name).write_bytes(dump)
            else:
                shutil.copy(dump, self.folder / name)
            lines = lambda rows: rows if isinstance(rows, str) else "\n".join(repr(row) for row in rows)
            (self.folder / f"{name}.txt").write_text(
                f"{id}: {what}\nmap: {database.map}\ntraits: {sorted(database.traits)}\n\n"
                f"expected:\n{lines(expected)}\n\nfound:\n{lines(found)}\n",
                errors="replace",
            )


class Run:
    def __init__(self, arguments, folder, report):
        self.seed = arguments.seed
        self.strict = arguments.strict
        self.folder = folder
        self.report = report
        self.servers = {}
        # The servers end with the thread that starts them.
        for name in SERVERS:
            if not arguments.only or arguments.only.startswith((name, f"mutations/{name}")):
                self.servers[name] = SERVERS[name](folder)
        rng = random.Random(f"{self.seed}/options")
        self.options = {
            name: pairwise.combinations(rng, server.FACTORS, server.possible) for name, server in SERVERS.items()
        }
        for rows in self.options.values():
            rng.shuffle(rows)

    def stop(self):
        for server in self.servers.values():
            server.stop()

    def write(self, name, content):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, 0o644)
        return path

    # Part one.

    def compare(self, name, number, dumps, only=None):
        """Compares the dumps of one database."""
        server = self.servers[name]
        database = databases.generate(self.seed, server, number)
        place = f"c_{name}_{number}"
        try:
            server.create(database, place)
            expected = reader.comparable(database, server.answer(database, place))
            for i in range(dumps):
                id = f"{name}/{number}/{i}"
                if only not in (None, id):
                    continue
                # A table of candidates cannot say that an id is the empty text. Without rows most clients write nothing.
                exportable = expected and database.charset != "nul" and all(row[0] != "" for row in expected)
                if i == 3 and number % 3 == 0 and exportable:
                    kind = server.EXPORTS[number // 3 % len(server.EXPORTS)]
                    self.compare_export(server, database, place, kind, id, expected)
                else:
                    options = self.options[name][(number * DUMPS + i) % len(self.options[name])]
                    dump, allowed = server.dump(database, place, options)
                    self.compare_dump(database, dump, options, allowed, id, expected)
        finally:
            server.drop(place)

    def compare_export(self, server, database, place, kind, id, expected):
        """Compares a table of candidates, which the server's client writes. It has one row for each photo."""
        dump = server.export(database, place, kind)
        # A table of candidates cannot say that an id is the empty text. Without rows most clients write nothing.
        if database.charset == "nul" or not expected or any(row[0] == "" for row in expected):
            return
        if kind == "--batch":
            # NULL and the empty text are the same there.
            expected = [[field or "" for field in row] for row in expected]
        if kind == ".mode csv":
            # SQLite does not quote the text `\N`, which stands for NULL elsewhere. A photo without a URL has an empty one.
            nulls = [None] * 4 + [""] + [None] * 3
            expected = [[null if field == "\\N" else field for field, null in zip(row, nulls)] for row in expected]
        photos = [row[0] for row in expected]
        allowed = set() if len(set(photos)) == len(photos) else {"doubled ids"}
        self.compare_dump(
            dataclasses.replace(database, map=[]), dump, {"kind": kind, "pack": ""}, allowed, id, expected
        )

    def compare_dump(self, database, dump, options, allowed, id, expected):
        what = pairwise.shown(options)
        if isinstance(dump, bytes):
            dump = PACKERS[options["pack"]](dump)
            path = self.write(f"{id.replace('/', '-')}.dump", dump)
        else:
            path = dump
        try:
            found = reader.comparable(database, reader.candidates(path, database.map))
        except reader.Refused as refused:
            allowed = allowed | database.traits | self.empty(database, expected)
            if reason := next((reason for reason in refused.reasons if reason in allowed), None):
                self.report.count("dump", database.server, "refused", reason)
            else:
                self.report.fail(id, f"{what}: refused", database, dump, expected, str(refused))
            return
        except reader.Crashed as crashed:
            self.report.fail(id, f"{what}: crashed", database, dump, expected, str(crashed))
            return
        finally:
            if isinstance(dump, bytes):
                os.remove(path)
        if reader.same(database, expected, found):
            self.report.count("dump", database.server, "equal")
        else:
            self.report.fail(id, f"{what}: wrong answer", database, dump, expected, found)

    @staticmethod
    def empty(database, expected):
        """Where faces have labels and nothing joins, the reader refuses."""
        return set() if expected else {"nothing joins"}

    # Part two.

    def mutate(self, name, number, count, only=None):
        """Loads mutations of one dump of a database into the server."""
        server = self.servers[name]
        rng = random.Random(f"{self.seed}/mutations/{name}/{number}")
        place = f"m_{name}_{number}"
        for attempt in range(ATTEMPTS):
            database = databases.generate(f"{self.seed}/mutations/{attempt}", server, number)
            options = {"pack": "gz"}
            if database.charset == "nul":
                continue
            while options["pack"] or not server.reloads(options):
                options = {**rng.choice(self.options[name]), "pack": ""}
            try:
                server.create(database, place)
                script, _ = server.dump(database, place, options)
            finally:
                server.drop(place)
            server.prepare(place)
            try:
                if (original := self.original(server, database, place, script, f"{name}/{number}/{attempt}")) is None:
                    continue
                for i in range(count):
                    id = f"mutations/{name}/{number}/{i}"
                    what, mutated = mutations.mutate(rng, script)
                    if only in (None, id):
                        self.compare_mutation(server, database, place, id, what, mutated, original)
                return
            finally:
                server.drop(place)
        raise RuntimeError(f"none of {ATTEMPTS} dumps is answered alike before its mutation")

    def original(self, server, database, place, script, id):
        """Returns the answer to a whole dump, if server and reader agree. Part one compares those where they do not: a
        tool may write what its server does not take, and the reader may refuse a dump for a good reason."""
        expected = self.answer_of(server, database, place, script, id)
        if isinstance(expected, processes.ToolError) or not expected:
            return None
        path = self.write(f"{id.replace('/', '-')}.sql", script)
        try:
            return (
                expected
                if reader.same(database, expected, reader.comparable(database, reader.candidates(path, database.map)))
                else None
            )
        except reader.Refused:
            return None
        finally:
            os.remove(path)

    def answer_of(self, server, database, place, script, id):
        path = self.write(f"{id.replace('/', '-')}.sql", script)
        try:
            return reader.comparable(database, server.load(database, place, path))
        except processes.ToolError as error:
            return error
        finally:
            os.remove(path)

    def compare_mutation(self, server, database, place, id, what, mutated, original):
        expected = self.answer_of(server, database, place, mutated, id)
        refused_by_server = isinstance(expected, processes.ToolError)
        path = self.write(f"{id.replace('/', '-')}.sql", mutated)
        count = lambda *outcome: self.report.count("mutation", database.server, *outcome)
        fail = lambda what, found: self.report.fail(
            id, what, database, mutated, str(expected) if refused_by_server else expected, found
        )
        try:
            found = reader.comparable(database, reader.candidates(path, database.map))
        except reader.Refused as refused:
            if refused_by_server:
                count("refused by both")
            elif refused.reasons:
                count("stricter", refused.reasons[0])
            else:
                fail(f"{what}: refused without need", str(refused))
            return
        except reader.Crashed as crashed:
            fail(f"{what}: crashed", str(crashed))
            return
        finally:
            os.remove(path)
        if refused_by_server:
            if reader.same(database, original, found) and not self.strict:
                count("only the server refuses; the answer is that of the whole dump")
            else:
                fail(f"{what}: wrong answer where the server refuses", found)
        elif reader.same(database, expected, found):
            count("equal")
        else:
            fail(f"{what}: wrong answer", found)


def tasks(run, arguments):
    """Yields what the workers do, as functions and their arguments, the servers in turn."""
    if arguments.only and arguments.only not in SERVERS:
        parts = arguments.only.split("/")
        if parts[0] == "mutations":
            yield run.mutate, parts[1], int(parts[2]), int(parts[3]) + 1, arguments.only
        else:
            yield run.compare, parts[0], int(parts[1]), DUMPS, arguments.only
        return
    for total, each, work in (
        (arguments.comparisons, DUMPS, run.compare),
        (arguments.mutations, MUTATIONS, run.mutate),
    ):
        left = {name: total * share // 100 for name, share in SHARES.items()}
        left["sqlite"] += total - sum(left.values())
        if arguments.only:
            left = {arguments.only: total}
        number = 0
        while any(left.values()):
            for name in left:
                if left[name]:
                    count = min(each, left[name])
                    left[name] -= count
                    yield work, name, number, count
            number += 1


def print_report(report, seconds):
    kinds = collections.defaultdict(collections.Counter)
    for (kind, server, *outcome), count in report.counts.items():
        kinds[kind][server, ": ".join(map(str, outcome))] += count
    for kind, counts in kinds.items():
        print(f"{kind}s compared: {sum(counts.values())}")
        for (server, outcome), count in sorted(counts.items()):
            print(f"  {server:9} {count:6}  {outcome}")
    stricter = sum(count for outcome, count in report.counts.items() if "stricter" in outcome)
    compared = sum(count for outcome, count in report.counts.items() if outcome[0] == "mutation")
    if compared:
        print(f"the reader refuses {100 * stricter / compared:.1f} % of the mutations although the server answers")
    print(f"{len(report.failures)} failures in {seconds:.0f} s")
    for id, what in sorted(report.failures)[:60]:
        print(f"  {id}: {what}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--comparisons", type=int, default=500)
    parser.add_argument("--mutations", type=int, default=300)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--strict", action="store_true", help="whatever a server refuses must be refused")
    parser.add_argument("--only", help="the id of one case, or the name of a server")
    parser.add_argument("--keep", type=pathlib.Path, default=reader.ROOT / "target/differential")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    shutil.rmtree(arguments.keep, ignore_errors=True)
    report = Report(arguments.keep)
    folder = processes.work_folder()
    start = time.monotonic()
    run = None
    try:
        run = Run(arguments, folder, report)
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            futures = [pool.submit(*task) for task in tasks(run, arguments)]
            for future, task in zip(futures, tasks(run, arguments)):
                if future.exception():
                    error = future.exception()
                    report.errors.append(f"{task[1]}/{task[2]}: {type(error).__name__}: {error}")
    finally:
        if run:
            run.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print_report(report, time.monotonic() - start)
    for error in report.errors[:20]:
        print(error, file=sys.stderr)
    if report.failures:
        print(f"the dumps are in {arguments.keep}; --seed {arguments.seed} --only ID runs one again")
    return 1 if report.failures or report.errors else 0


if __name__ == "__main__":
    sys.exit(main())
