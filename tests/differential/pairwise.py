"""Combinations of options in which each pair of values of two options occurs."""

import itertools


def combinations(rng, factors, possible):
    """Returns a list of {factor: value}. Pairs that `possible` forbids do not occur; it is asked with complete
    combinations only, so a pair is given up when no completion of it is found."""
    names = list(factors)
    values = {name: list(dict.fromkeys(factors[name])) for name in names}
    wanted = {(a, x, b, y) for a, b in itertools.combinations(names, 2) for x in values[a] for y in values[b]}
    order = sorted(wanted)
    rng.shuffle(order)
    found = []
    for pair in order:
        if pair not in wanted:
            continue
        a, x, b, y = pair
        best, covered = None, set()
        for _ in range(30):
            # Repeated values of a factor are more frequent.
            row = {name: rng.choice(factors[name]) for name in names}
            row[a], row[b] = x, y
            pairs = {(one, row[one], other, row[other]) for one, other in itertools.combinations(names, 2)} & wanted
            if possible(row) and len(pairs) > len(covered):
                best, covered = row, pairs
        wanted.discard(pair)
        if best:
            wanted -= covered
            found.append(best)
    return found


def shown(options):
    return " ".join(str(value) for value in options.values() if value != "") or "plain"
