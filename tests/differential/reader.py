"""The reader under test: `facemill candidates`, and how its answers compare with those of a server."""

import decimal
import json
import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Seconds.
TIMEOUT = 30

# Names for refusals that say why the reader does not answer where the database does. The share of each is reported.
REASONS = {
    "truncated": r"is truncated",
    "charset": r"not UTF-8|not valid |character set",
    "binary": r"bytes that are no text",
    "no columns": r"no CREATE TABLE defines them",
    "no types": r"types and collations are not known",
    "data only": r"does not fit",
    "collation": r"collation",
    "nothing joins": r"no labelled face joins|joins? nothing",
    "doubled ids": r"twice|two rows|the same id",
    # The others say more.
    "only the database": r"only the database|without the database",
}


def binary():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    return os.environ.get("FACEMILL") or str(target / "debug/facemill")


class Refused(Exception):
    """The reader ended with an error that explains itself."""

    @property
    def reasons(self):
        """All reasons that the error names. The first says most."""
        return [name for name, words in REASONS.items() if re.search(words, str(self))]


class Crashed(Exception):
    """The reader panicked, was killed or ran too long."""


def candidates(path, map=()):
    """Returns the rows of the reader in the order of the query's columns."""
    command = [binary(), "candidates", "--format", "jsonl", str(path)]
    for entry in map:
        command += ["--map", entry]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL, check=False)
    except subprocess.TimeoutExpired:
        raise Crashed(f"no answer within {TIMEOUT} s") from None
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip()
        if done.returncode not in (1, 3) or "panicked" in message or not message.startswith("facemill: "):
            raise Crashed(f"exit code {done.returncode}: {message}")
        raise Refused(message)
    columns = ["photo_id", "face_id", "label_id", "label_name", "photo_url", "source_url", "posted_at"]
    rows = (json.loads(line, parse_int=str, parse_float=str) for line in done.stdout.decode().split("\n") if line)
    return [[row[column] for column in columns] for row in rows]


def number(text):
    """1.0 and 0001 are 1."""
    try:
        return format(decimal.Decimal(text).normalize(), "f")
    except (decimal.InvalidOperation, TypeError):
        return text


COMPARED = {
    "exact": lambda text: text,
    "binary": lambda text: text,
    "number": number,
    "padded": lambda text: text and text.rstrip(" "),
}


def comparable(database, rows):
    """Rows as texts that are equal if the database takes the values for the same."""
    columns = [
        ("photos", "id"),
        ("faces", "id"),
        ("labels", "id"),
        ("labels", "name"),
        ("photos", "photo_url"),
        ("photos", "source_url"),
        ("photos", "posted_at"),
    ]
    rules = [COMPARED[database.columns[column].compare] for column in columns]
    found = []
    for row in rows:
        row = [rule(field) for rule, field in zip(rules, row)] + row[len(rules) :]
        # A candidate without a URL has an empty one.
        row[4] = row[4] or ""
        found.append(row)
    return found


def same(database, expected, found):
    """Whether the rows of the reader are those of the server, in order. Faces of one time are in the order of their
    ids; where a collation orders these, any order will do. So it will for the labels of one face."""
    if len(expected) != len(found):
        return False
    tied = [row[7:] if "collation" in database.traits else [row[7], row[1]] for row in expected]

    def in_order(rows):
        return sorted(zip(map(tied.index, tied), rows), key=lambda pair: (pair[0], list(map(str, pair[1]))))

    return in_order(row[:7] for row in expected) == in_order(found)
