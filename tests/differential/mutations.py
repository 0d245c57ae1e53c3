"""Mutations of a script: a byte, a word, a line or a statement that is lost, doubled or moved."""

import re

UNITS = {
    "byte": re.compile(rb"[\s\S]"),
    "word": re.compile(rb"[A-Za-z0-9_\x80-\xff]+|[^\sA-Za-z0-9_\x80-\xff]"),
    "line": re.compile(rb"[^\n]*\n|[^\n]+$"),
    "statement": re.compile(rb"[\s\S]*?;[ ]*\n|[\s\S]+$"),
}
CHANGES = ["lost", "doubled", "moved"]


def mutate(rng, script):
    """Returns the name of a mutation and the mutated script, which differs from the script."""
    while True:
        unit, change = rng.choice(list(UNITS)), rng.choice(CHANGES)
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
