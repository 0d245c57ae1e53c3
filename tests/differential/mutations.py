"""Mutations of a script: a byte, a word, a line or a statement that is lost, doubled or moved.

In a file of SQLite, bytes are mutated; most are replaced by another, since any other change moves all pages after it.
"""

import re

UNITS = {
    "byte": re.compile(rb"[\s\S]"),
    "word": re.compile(rb"[A-Za-z0-9_\x80-\xff]+|[^\sA-Za-z0-9_\x80-\xff]"),
    "line": re.compile(rb"[^\n]*\n|[^\n]+$"),
    "statement": re.compile(rb"[\s\S]*?;[ ]*\n|[\s\S]+$"),
}
CHANGES = ["lost", "doubled", "moved"]


BINARY = b"SQLite format 3\0"


def mutate(rng, script):
    """Returns the name of a mutation and the mutated script, which differs from the script."""
    while True:
        if script.startswith(BINARY) and rng.random() < 0.8:
            at = rng.randrange(len(script))
            byte = rng.choice([script[at] ^ 1 << rng.randrange(8), rng.randrange(256), script[at - 1]])
            if byte != script[at]:
                return f"byte changed at byte {at}", script[:at] + bytes([byte]) + script[at + 1 :]
            continue
        unit, change = rng.choice(list(UNITS)), rng.choice(CHANGES)
        if script.startswith(BINARY):
            unit = "byte"
        parts = [match.span() for match in UNITS[unit].finditer(script)]
        start, end = rng.choice(parts)
        part = script[start:end]
        if change == "lost":
            mutated = script[:start] + script[end:]
        elif change == "doubled":
            mutated = script[:end] + part + script[end:]
        else:
            # Half of the moves go to a neighbour.
            others = [span for span in parts if span[0] != start]
            if not others:
                continue
            to = (
                min(others, key=lambda span: abs(span[0] - end - 1))[1]
                if rng.random() < 0.5
                else rng.choice(others)[rng.randrange(2)]
            )
            mutated = (
                script[:to] + part + script[to:start] + script[end:]
                if to <= start
                else script[:start] + script[end:to] + part + script[to:]
            )
        if mutated != script:
            line = script.count(b"\n", 0, start) + 1
            return f"{unit} {change} at line {line}, byte {start}", mutated
