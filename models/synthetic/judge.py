#!/usr/bin/env python3
"""Chooses crops for a judgement by eye, and shows them without their labels; or gives judged crops their verdicts.

    models/synthetic/judge.py CROPS... --sheets DIR     # first-01.png ..., second-01.png ..., order.json
    models/synthetic/judge.py CROPS... --labels FILE    # labels of the test part, for `facemill evaluate FILE --all`

CROPS are folders that `facemill synthetic` wrote. The same folders and the same seed give the same crops in the same
order. A sheet shows nine crops with 364 pixels each (crops have at most 320), numbered row by row. `second` shows the
crops of the test part again, in another order. The people of the test part are those that `facemill train` never learns from
(docs/training.md), and all people of the folders that --unseen names. Sheets need Pillow (requirements.txt).

judgements.tsv has the verdicts by the SHA-256 of the crop. A label is the first verdict.
"""

import argparse
import hashlib
import json
import random
from collections import Counter
from pathlib import Path

SIDE, ACROSS = 364, 3
# A part of the crops by the rule of `facemill synthetic`, with the share of each kind.
KINDS = {"ok": 0.35, "border": 0.38, "ng": 0.27}
MOST_PER_PERSON = 5


def is_test(person):
    """The rule of src/training/example.rs."""
    digest = hashlib.sha256(f"side/{person}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53) < 0.25


def read(folder, is_unseen):
    for name in ("labels", "border"):
        for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            line = json.loads(line)
            kind = "border" if name == "border" else "ok" if line["ok"] else "ng"
            side = "test" if is_unseen or is_test(line["group"]) else "training"
            yield {"path": folder / line["file"], "kind": kind, "side": side, "group": line["group"]}


def hash_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def judgements():
    lines = (Path(__file__).resolve().parent / "judgements.tsv").read_text(encoding="utf-8").splitlines()
    names = lines[0].split("\t")
    return [dict(zip(names, line.split("\t"))) for line in lines[1:]]


def labelled(folders, verdicts):
    """The lines of the crops in `folders` that have a verdict, with this verdict and an absolute path."""
    found = []
    for folder in folders:
        for name in ("labels", "border"):
            for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
                line = json.loads(line)
                path = folder.resolve() / line["file"]
                if verdict := verdicts.get(hash_of(path)):
                    found.append({**line, "file": str(path), "ok": verdict == "ok"})
    return found


def choose(crops, count, generator):
    """So many of `crops`: a fixed share of each kind, and at most MOST_PER_PERSON of a person."""
    crops = sorted(crops, key=lambda crop: str(crop["path"].name))
    generator.shuffle(crops)
    chosen, people = [], Counter()
    for kind, share in KINDS.items():
        left = round(share * count)
        for crop in crops:
            if left and crop["kind"] == kind and people[crop["group"]] < MOST_PER_PERSON:
                chosen.append(crop)
                people[crop["group"]] += 1
                left -= 1
    generator.shuffle(chosen)
    return chosen


def draw(crops, folder, name):
    from PIL import Image, ImageDraw

    for first in range(0, len(crops), ACROSS * ACROSS):
        sheet = Image.new("RGB", (SIDE * ACROSS, SIDE * ACROSS))
        pen = ImageDraw.Draw(sheet)
        for i, crop in enumerate(crops[first : first + ACROSS * ACROSS]):
            x, y = SIDE * (i % ACROSS), SIDE * (i // ACROSS)
            with Image.open(crop["path"]) as picture:
                sheet.paste(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, y))
            pen.rectangle((x, y, x + 22, y + 11), fill="white")
            pen.text((x + 1, y), str(first + i + 1), fill="black")
        sheet.save(folder / f"{name}-{first // (ACROSS * ACROSS) + 1:02}.png")


def main():
    parser = argparse.ArgumentParser(description="Sheets of crops for a judgement by eye, and labels from verdicts.")
    parser.add_argument("crops", nargs="+", type=Path, metavar="CROPS")
    parser.add_argument(
        "--unseen", action="append", default=[], type=Path, metavar="CROPS", help="crops of people of the test part"
    )
    outputs = parser.add_mutually_exclusive_group(required=True)
    outputs.add_argument("--sheets", type=Path, metavar="DIR")
    outputs.add_argument("--labels", type=Path, metavar="FILE")
    parser.add_argument("--part", choices=("test", "training"), default="test", help="of the labels (test)")
    parser.add_argument("--each", type=int, default=324, help="crops of either part (324)")
    parser.add_argument("--seed", type=int, default=16)
    options = parser.parse_args()
    if options.labels:
        verdicts = {row["crop"]: row["first"] for row in judgements() if row["part"] == options.part}
        lines = labelled(options.crops + options.unseen, verdicts)
        options.labels.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        print(f"{len(lines)} of {len(verdicts)} judged crops found")
        return
    crops = [crop for folder in options.crops for crop in read(folder, False)]
    crops += [crop for folder in options.unseen for crop in read(folder, True)]
    generator = random.Random(options.seed)
    of_side = {side: [crop for crop in crops if crop["side"] == side] for side in ("test", "training")}
    sides = {side: choose(of_side[side], options.each, generator) for side in ("test", "training")}
    first = sides["test"] + sides["training"]
    generator.shuffle(first)
    second = list(sides["test"])
    generator.shuffle(second)
    options.sheets.mkdir(parents=True, exist_ok=True)
    order = {}
    for name, chosen in (("first", first), ("second", second)):
        draw(chosen, options.sheets, name)
        order[name] = [hash_of(crop["path"]) for crop in chosen]
    (options.sheets / "order.json").write_text(json.dumps(order), encoding="utf-8")


if __name__ == "__main__":
    main()
