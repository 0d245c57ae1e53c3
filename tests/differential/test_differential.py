"""Tests of the comparison itself: what it generates, and that it finds a reader that is wrong."""

import collections
import itertools
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

import databases
import mutations
import pairwise
import reader
import values
from mariadb import MariaDb
from plants import PLANTS
from postgres import Postgres
from sqlite import Sqlite

PROGRAM = pathlib.Path(__file__).with_name("differential.py")
SERVERS = [Postgres, MariaDb, Sqlite]


def without_server(server):
    """What is generated needs no server."""
    return server.__new__(server)


class Databases(unittest.TestCase):
    def test_a_database_follows_from_its_seed(self):
        for server in map(without_server, SERVERS):
            for number in range(20):
                one, other = (databases.generate("7", server, number) for _ in range(2))
                self.assertEqual(one, other)
            self.assertNotEqual(databases.generate("8", server, 0), databases.generate("7", server, 0))

    def test_every_trait_occurs(self):
        for server in map(without_server, SERVERS):
            found = collections.Counter(
                trait for number in range(60) for trait in databases.generate("1", server, number).traits
            )
            wanted = {"no keys", "doubled ids", "dangling", "references"}
            wanted |= {
                "postgres": {"charset", "padded ids", "partitions", "inheritance"},
                "mariadb": {"charset", "collation", "zerofill ids"},
                "sqlite": {"collation"},
            }[server.name]
            self.assertEqual(wanted - found.keys(), set(), server.name)

    def test_texts_fit_their_character_set(self):
        for charset in values.REPERTOIRES:
            for text in values.texts(charset):
                text.encode(charset)
        self.assertIn(b"\\", "表".encode("cp932")[1:])


class Pairs(unittest.TestCase):
    def test_each_pair_of_options_occurs(self):
        for server in SERVERS:
            factors = server.FACTORS
            rows = pairwise.combinations(random.Random(1), factors, server.possible)
            self.assertTrue(all(server.possible(row) for row in rows))
            found = {(a, row[a], b, row[b]) for row in rows for a, b in itertools.combinations(factors, 2)}
            for a, b in itertools.combinations(factors, 2):
                for x, y in itertools.product(factors[a], factors[b]):
                    if (a, x, b, y) not in found:
                        plain = {name: found_values[0] for name, found_values in factors.items()}
                        self.assertFalse(server.possible({**plain, a: x, b: y}), (server.name, a, x, b, y))
            self.assertLess(len(rows), 120)


class Mutations(unittest.TestCase):
    SCRIPT = b"CREATE TABLE a (b int);\nINSERT INTO a VALUES\n(1),\n(2);\n-- end\n"

    def test_units_and_changes_occur(self):
        rng = random.Random(3)
        names = collections.Counter(" ".join(mutations.mutate(rng, self.SCRIPT)[0].split()[:2]) for _ in range(500))
        self.assertEqual(names.keys(), {f"{unit} {change}" for unit in mutations.UNITS for change in mutations.CHANGES})

    def test_units_make_up_the_script(self):
        for unit, pattern in mutations.UNITS.items():
            parts = [match.group() for match in pattern.finditer(self.SCRIPT)]
            self.assertEqual(b"".join(b"".join(parts).split()), b"".join(self.SCRIPT.split()), unit)

    def test_lost_doubled_and_moved_bytes_are_counted(self):
        rng = random.Random(5)
        for _ in range(300):
            name, mutated = mutations.mutate(rng, self.SCRIPT)
            self.assertNotEqual(mutated, self.SCRIPT)
            more = len(mutated) - len(self.SCRIPT)
            self.assertTrue({"lost": more < 0, "doubled": more > 0, "moved": more == 0}[name.split()[1]], name)


class Plants(unittest.TestCase):
    def test_every_planted_bug_has_its_place(self):
        names = [name for name, *_ in PLANTS]
        self.assertEqual(len(names), len(set(names)))
        self.assertGreaterEqual(len(names), 20)
        for name, path, found, replacement in PLANTS:
            text = (reader.ROOT / "src/source" / path).read_text()
            self.assertEqual(text.count(found), 1, f"{name}: the text that it replaces in {path} has changed")
            self.assertIn("BUG", replacement)


class Comparison(unittest.TestCase):
    def database(self, compare="exact", traits=()):
        database = databases.generate("1", without_server(Sqlite), 0)
        for column in database.columns.values():
            column.compare = compare
        database.traits = set(traits)
        return database

    def test_numbers_compare_by_value_and_texts_exactly(self):
        row = ["1.0", "007", "1e2", "a ", "u", None, None]
        self.assertEqual(reader.comparable(self.database("number"), [row])[0][:3], ["1", "7", "100"])
        self.assertEqual(reader.comparable(self.database(), [row])[0], row)
        self.assertEqual(reader.comparable(self.database("padded"), [row])[0][3], "a")
        self.assertEqual(reader.comparable(self.database(), [[*row[:4], None, None, None]])[0][4], "")

    def test_order_counts_except_between_ties_of_a_collation(self):
        rows = [["1", *"acdefg", "2016"], ["2", *"bcdefg", "2016"], ["3", *"bcdefg", "2015"]]
        short = [row[:7] for row in rows]
        self.assertTrue(reader.same(self.database(), rows, short))
        self.assertFalse(reader.same(self.database(), rows, [short[1], short[0], short[2]]))
        tied = self.database(traits=["collation"])
        self.assertTrue(reader.same(tied, rows, [short[1], short[0], short[2]]))
        self.assertFalse(reader.same(tied, rows, [short[0], short[2], short[1]]))
        self.assertFalse(reader.same(tied, rows, short[:2]))

    def test_refusals_have_reasons(self):
        self.assertEqual(reader.Refused("facemill: the dump is truncated at line 1").reasons, ["truncated"])
        both = reader.Refused("facemill: the collation is unknown, and only the database can tell")
        self.assertEqual(both.reasons, ["collation", "only the database"])
        self.assertEqual(reader.Refused("facemill: no").reasons, [])


class WrongReaders(unittest.TestCase):
    """The comparison fails for a reader that is wrong. A script stands in for it."""

    def run_with(self, script, *arguments):
        with tempfile.TemporaryDirectory() as folder:
            wrong = pathlib.Path(folder) / "facemill"
            wrong.write_text(f"#!/bin/sh\n{script}\n")
            wrong.chmod(0o755)
            command = [sys.executable, "-B", str(PROGRAM), "--seed", "1", "--keep", f"{folder}/kept", *arguments]
            done = subprocess.run(
                command, env={**os.environ, "FACEMILL": str(wrong)}, capture_output=True, text=True, check=False
            )
            kept = sorted(path.name for path in pathlib.Path(folder).glob("kept/*"))
        return done, kept

    def test_an_answer_without_rows_is_wrong(self):
        done, kept = self.run_with("exit 0", "--only", "sqlite/2/0")
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("sqlite/2/0: ", done.stdout)
        self.assertIn("wrong answer", done.stdout)
        self.assertEqual(kept, ["sqlite-2-0", "sqlite-2-0.txt"])

    def test_a_refusal_needs_a_reason(self):
        done, _ = self.run_with("echo 'facemill: no' >&2; exit 3", "--only", "sqlite/2/0")
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("refused", done.stdout)

    def test_a_panic_is_no_refusal(self):
        done, _ = self.run_with("echo \"thread 'main' panicked\" >&2; exit 101", "--only", "sqlite/2/0")
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("crashed", done.stdout)


if __name__ == "__main__":
    unittest.main()
