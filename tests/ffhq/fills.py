"""Which fill makes more cut-off faces usable: cuts portraits so that the square of the face leaves the photo, and
prepares what a judge sees, without the name of the fill.

    python3 tests/ffhq/fills.py make --photos DIR --program target/release/facemill --to WORK
    python3 tests/ffhq/fills.py report tests/ffhq/fills.tsv

`make` takes portraits that show one whole head each, of another person each. It cuts 48 windows for each of five
amounts of the square beyond the photo, between 3 and 35 %, turned, and cut on one side or on several. The windows go
through the whole pipeline with `--fill mirror`, and again with `--fill ffhq`. 200 faces that both have are taken, 40 of
each amount where there are so many. Their crops are shuffled, and 60 come a second time. WORK then has sheets of
four numbered crops at 512 pixels, and `key.tsv` says which crop a number is. Numbers and verdicts are joined
into `fills.tsv` after all verdicts are written down.
`report` prints the shares of OK with 95 % intervals. Needs numpy and Pillow.
"""

import argparse
import csv
import json
import math
import pathlib
import random
import subprocess

import numpy
from PIL import Image, ImageDraw

SEED = 15
AMOUNTS = [(0.03, 0.08), (0.08, 0.13), (0.13, 0.20), (0.20, 0.27), (0.27, 0.35)]
FACES, EACH, AGAIN = 200, 40, 60
FILLS = ["mirror", "ffhq"]
SIDE = 512
# Windows that are drawn for a face until one has the wanted amount and lies inside the photograph.
TRIES = 60_000
# Deepest cut of each side of the square: beyond these, eyes or mouth are gone.
DEEPEST = {"left": 0.22, "top": 0.3, "right": 0.22, "bottom": 0.15}


def facemill(program, *arguments):
    subprocess.run([program, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def faces(out):
    lines = (out / "faces.jsonl").read_text().splitlines()
    return {face["photo_id"]: face for face in map(json.loads, lines)}


def window(face, size, amount, numbers):
    """A turned window around a face: turn in degrees, and left, top, right, bottom in sides of the square, whose middle
    is 0. None: the photograph is too small for such a window."""
    turn = numpy.clip(numbers.normal(0, 10, TRIES), -30, 30)
    edges = []
    for side in ["left", "top", "right", "bottom"]:
        is_cut = numbers.random(TRIES) < 0.5
        edges.append(0.5 + numpy.where(
            is_cut, -DEEPEST[side] * numbers.random(TRIES), 0.6 * numbers.random(TRIES) ** 2))
    left, top, right, bottom = edges
    left, top = -left, -top
    fits = numpy.ones(TRIES, bool)
    for along, down in [(left, top), (right, top), (right, bottom), (left, bottom)]:
        x, y = in_photo(face, turn, along, down)
        fits &= (x >= 1) & (y >= 1) & (x <= size[0] - 2) & (y <= size[1] - 2)
    for at in numpy.flatnonzero(fits)[:2000]:
        shape = turn[at], left[at], top[at], right[at], bottom[at]
        if amount[0] <= beyond(*shape) < amount[1]:
            return shape
    return None


def beyond(turn, left, top, right, bottom):
    """The share of the square outside a window."""
    points = (numpy.arange(24) + 0.5) / 24 - 0.5
    x, y = numpy.meshgrid(points, points)
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    # The points of the square in the axes of the window.
    along, down = cos * x + sin * y, cos * y - sin * x
    return 1 - numpy.mean((along >= left) & (along <= right) & (down >= top) & (down <= bottom))


def in_photo(face, turn, along, down):
    """Where a point in the axes of a window is in the photograph."""
    angle = numpy.radians(face["angle"] + turn)
    x, y = along * face["side"], down * face["side"]
    return (face["centre"][0] + numpy.cos(angle) * x - numpy.sin(angle) * y,
            face["centre"][1] + numpy.sin(angle) * x + numpy.cos(angle) * y)


def cut(photo, face, shape):
    turn, left, top, right, bottom = shape
    side = face["side"]
    size = round((right - left) * side), round((bottom - top) * side)
    (x, y), angle = in_photo(face, turn, left, top), math.radians(face["angle"] + turn)
    cos, sin = math.cos(angle), math.sin(angle)
    return photo.transform(size, Image.Transform.AFFINE, (cos, -sin, x, sin, cos, y), Image.Resampling.BICUBIC)


def make(arguments):
    work, program = arguments.to, arguments.program
    work.mkdir(parents=True)
    facemill(program, "run", arguments.photos, "--out", work / "whole")
    portraits = [face for face in faces(work / "whole").values() if face["mirrored"] < 0.01]
    portraits.sort(key=lambda face: face["photo_id"])
    random.Random(SEED).shuffle(portraits)
    windows = work / "windows"
    windows.mkdir()
    # The larger amounts are harder to find and to pass: they choose first, and a fifth more is cut than is needed.
    wanted = {amount: EACH * 6 // 5 for amount in AMOUNTS}
    for number, face in enumerate(portraits):
        photo = Image.open(arguments.photos / face["photo_id"]).convert("RGB")
        numbers = numpy.random.default_rng([SEED, number])
        for amount in sorted(AMOUNTS, key=lambda amount: wanted[amount], reverse=True):
            shape = window(face, photo.size, amount, numbers) if wanted[amount] else None
            if shape:
                wanted[amount] -= 1
                name = f"{AMOUNTS.index(amount)}-{number:03}.jpg"
                cut(photo, face, shape).save(windows / name, quality=95)
                break
    for fill in FILLS:
        facemill(program, "run", windows, "--out", work / fill, "--fill", fill)
    show(work)


def show(work):
    """Chooses the faces, and writes the sheets and their key."""
    by_fill = {fill: faces(work / fill) for fill in FILLS}
    windows = work / "windows"
    cuts = len(list(windows.iterdir()))
    print(f"{cuts} windows;", *(f"{len(by_fill[fill])} have a face with {fill};" for fill in FILLS))
    both = sorted(set.intersection(*(set(found) for found in by_fill.values())))
    taken = [name for at in range(len(AMOUNTS)) for name in [one for one in both if one[0] == str(at)][:EACH]]
    # Where an amount has too few, those with less take their place.
    taken += [name for name in both if name not in taken][: FACES - len(taken)]
    print(f"{len(both)} with both, {len(taken)} of {FACES} taken")
    shown = [(name, fill) for name in taken for fill in FILLS]
    order = random.Random(SEED)
    order.shuffle(shown)
    again = shown[:]
    order.shuffle(again)
    shown += again[:AGAIN]
    with open(work / "key.tsv", "w", newline="") as file:
        rows = csv.writer(file, delimiter="\t", lineterminator="\n")
        rows.writerow(["number", "face", "fill", "mirrored", "mirrored_head"])
        for number, (name, fill) in enumerate(shown, 1):
            face = by_fill[fill][name]
            rows.writerow([number, name.split(".")[0], fill, f"{face['mirrored']:.4f}", f"{face['mirrored_head']:.4f}"])
    sheets = work / "sheets"
    sheets.mkdir()
    for first in range(0, len(shown), 4):
        sheet = Image.new("RGB", (2 * SIDE, 2 * SIDE))
        draw = ImageDraw.Draw(sheet)
        for at, (name, fill) in enumerate(shown[first : first + 4]):
            crop = Image.open(work / fill / by_fill[fill][name]["file"]).convert("RGB")
            place = at % 2 * SIDE, at // 2 * SIDE
            sheet.paste(crop.resize((SIDE, SIDE), Image.Resampling.LANCZOS), place)
            draw.rectangle((*place, place[0] + 44, place[1] + 20), fill="black")
            draw.text((place[0] + 4, place[1] + 2), str(first + at + 1), fill="white", font_size=16)
        sheet.save(sheets / f"{first // 4 + 1:03}.png", compress_level=1)


def wilson(successes, trials):
    """Share and 95 % interval: the score interval of Wilson (1927)."""
    z = 1.959963984540054
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return share, max(0.0, centre - half), min(1.0, centre + half)


def shown(successes, trials):
    share, low, high = wilson(successes, trials)
    return f"{successes:3} of {trials:3}  {share:.3f} ({low:.3f} to {high:.3f})"


def mcnemar(one, other):
    """The exact p of McNemar's test for pairs that only one of two has."""
    pairs = one + other
    tail = sum(math.comb(pairs, i) for i in range(min(one, other) + 1)) / 2**pairs
    return min(1.0, 2 * tail)


def report(arguments):
    with open(arguments.verdicts, newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    ok = {(row["face"], row["fill"]): row["verdict"] == "ok" for row in rows}
    beyond = {row["face"]: float(row["mirrored"]) for row in rows}
    edges = sorted({low for low, _ in AMOUNTS[1:]})
    parts = [("all", lambda _: True)]
    for low, high in zip([0.0, *edges], [*edges, 1.0]):
        parts.append((f"{low:.0%} to {high:.0%}", lambda share, low=low, high=high: low <= share < high))
    for name, has in parts:
        of_part = [face for face, share in beyond.items() if has(share)]
        if not of_part:
            continue
        counts = [sum(ok[face, fill] for face in of_part) for fill in FILLS]
        only = [sum(ok[face, a] and not ok[face, b] for face in of_part) for a, b in [FILLS, FILLS[::-1]]]
        difference = (counts[1] - counts[0]) / len(of_part)
        # Wald's interval of a difference of pairs.
        spread = math.sqrt((only[0] + only[1]) / len(of_part) - difference**2) / math.sqrt(len(of_part))
        print(f"{name:>12}:", "; ".join(f"{fill} {shown(count, len(of_part))}" for fill, count in zip(FILLS, counts)))
        print(f"{'':14}ffhq - mirror {difference:+.3f} ± {1.96 * spread:.3f}; only mirror OK {only[0]}, only ffhq OK",
              f"{only[1]}, p of McNemar {mcnemar(*only):.2g}")
    again = [row for row in rows if row["again"]]
    same = sum(row["verdict"] == row["again"] for row in again)
    print(f"judged twice: {len(again)}, the same verdict {shown(same, len(again))}")


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    of_make = commands.add_parser("make")
    of_make.add_argument("--photos", type=pathlib.Path, required=True, metavar="DIR")
    of_make.add_argument("--program", required=True)
    of_make.add_argument("--to", type=pathlib.Path, required=True, metavar="WORK")
    of_make.set_defaults(do=make)
    of_report = commands.add_parser("report")
    of_report.add_argument("verdicts", type=pathlib.Path)
    of_report.set_defaults(do=report)
    arguments = parser.parse_args()
    arguments.do(arguments)


if __name__ == "__main__":
    main()
