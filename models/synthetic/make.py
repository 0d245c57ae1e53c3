#!/usr/bin/env python3
"""Makes a classifier from photographs of whole heads, and measures it on people that it has not seen.

    models/synthetic/make.py --facemill PROGRAM --work DIR --to classifier.onnx FOLDER...

`make model` runs it. DIR receives the photographs (as links), their masks, the crops, the features and one page of
figures per measurement. Everything but the features, which belong to the bytes of a crop, is made anew. The
environment of `masks.py` must be in PYTHONPATH (requirements.txt). Exit codes: 0 made, 1 a step or a check failed, 2
wrong arguments.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Those that `facemill synthetic` reads.
ENDINGS = {".jpg", ".png"}
# The threshold is chosen for this precision of OK, with the border as NG. Many people are less strict.
PRECISION = 0.8
# The share of true contents that must be predicted OK.
MIN_UNMIRRORED = 0.95
# The areas under the ROC curve between which a number says nothing of the label.
NOTHING = (0.44, 0.56)
# The least area under the ROC curve of a classifier that sees nothing but pixels.
MIN_PIXELS = 0.9


class MakeError(Exception):
    """The classifier cannot be made, or a check failed."""


def link_photos(folders, target):
    """Links the photographs of `folders`. The file name is the person: two files with one name are an error."""
    names = {}
    for folder in folders:
        found = sorted(path for path in folder.rglob("*") if path.suffix in ENDINGS) if folder.is_dir() else []
        if not found:
            raise MakeError(f"no photographs (.jpg, .png) in {folder}")
        for path in found:
            if path.stem in names:
                raise MakeError(f"{path} and {names[path.stem]} have one name, which is that of the person")
            names[path.stem] = path
    target.mkdir(parents=True)
    for path in names.values():
        (target / path.name).symlink_to(path.resolve())
    return len(names)


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def without_mirrors(line):
    """The crop as a classifier sees it that knows nothing but the pixels."""
    return {**line, "mirrored": 0.0, "mirrored_head": 0.0, "mirrored_grid": [0.0] * len(line["mirrored_grid"])}


def area(values, labels):
    """The area under the ROC curve: the share of pairs of an OK and an NG crop in which the OK crop has more."""
    ranked = sorted(zip(values, labels))
    wins, below, start = 0.0, 0, 0
    while start < len(ranked):
        end = start
        while end < len(ranked) and ranked[end][0] == ranked[start][0]:
            end += 1
        ok = sum(label for _, label in ranked[start:end])
        wins += ok * (below + (end - start - ok) / 2)
        below += end - start - ok
        start = end
    positives = sum(labels)
    if not 0 < positives < len(labels):
        raise MakeError("the crops are all OK or all NG: give more photographs")
    return wins / (positives * below)


def unrelated(name, values, labels):
    """Checks that a number of the crops says nothing of their label."""
    found = area(values, labels)
    if not NOTHING[0] <= found <= NOTHING[1]:
        raise MakeError(f"{name} predicts the label: its area under the ROC curve is {found:.3f}, not .5")
    return f"{name} predicts nothing: area under the ROC curve {found:.3f}"


class Program:
    def __init__(self, path, work):
        self.path, self.work = path, work

    def run(self, *arguments, output=None):
        command = [str(self.path), *map(str, arguments)]
        ended = subprocess.run(command, stdout=output, check=False)
        if ended.returncode:
            raise MakeError(f"facemill {arguments[0]} ended with exit code {ended.returncode}")
        return ended.stdout

    def train(self, labels, to, *arguments):
        """Returns the report of the training."""
        features = self.work / "features.sqlite"
        answer = self.run(
            "train", labels, "--to", to, "--features", features, "--json", *arguments, output=subprocess.PIPE
        )
        return json.loads(answer)["report"]

    def evaluate(self, model, labels):
        """Returns the figures on the people of the test part."""
        page = self.work / f"{labels.stem}.html"
        answer = self.run("evaluate", model, labels, "--page", page, "--json", output=subprocess.PIPE)
        return json.loads(answer)


def row(name, figures):
    recalls = [point["recall"] for point in figures["curve"] if point["precision"] >= 0.9]

    def shown(key):
        figure = figures[key]
        low, high = figure["low"], figure["high"]
        return "-" if figure["value"] is None else f"{figure['value']:.3f} ({low:.3f}-{high:.3f})"

    cells = [shown(key) for key in ("accuracy", "precision", "recall", "auc")]
    columns = "".join(f"{cell:>21}" for cell in cells)
    return f"{name:<14}{figures['crops']:>6}{columns}{max(recalls, default=0):>10.3f}"


def check_shortcuts(program, model, crops):
    """What a classifier could learn instead of what the border shows. Returns a line for each check."""
    everything = read_lines(crops / "training.jsonl")
    labels = [line["ok"] for line in everything]
    yield unrelated("the JPEG quality", [line["quality"] for line in everything], labels)
    yield unrelated("the size", [line["size"] for line in everything], labels)

    figures = program.evaluate(model, crops / "unmirrored.jsonl")
    kept = figures["recall"]["value"] or 0.0
    if kept < MIN_UNMIRRORED:
        raise MakeError(f"only {kept:.3f} of {figures['crops']} windows with their true content are predicted OK")
    yield f"{kept:.3f} of {figures['crops']} windows with their true content in place of the mirror are predicted OK"

    pixels = crops / "pixels.jsonl"
    write_lines(pixels, map(without_mirrors, everything))
    found = program.train(pixels, program.work / "pixels.onnx")["model"]["auc"]
    if found is None or found < MIN_PIXELS:
        raise MakeError(f"the label cannot be seen in the pixels alone: area under the ROC curve {found}")
    yield f"a classifier of the pixels alone has an area under the ROC curve of {found:.3f}"


def make(options):
    work, crops = options.work, options.work / "crops"
    for name in ("photos", "masks", "crops"):
        shutil.rmtree(work / name, ignore_errors=True)
    photos = link_photos(options.folders, work / "photos")
    print(f"{photos} photographs", flush=True)
    masks = [sys.executable, "-B", str(HERE / "masks.py"), str(work / "photos"), str(work / "masks")]
    with open(work / "masks.log", "w", encoding="utf-8") as log:
        if subprocess.run(masks, stderr=log, check=False).returncode:
            raise MakeError(f"masks.py failed: {log.name} says why")
    program = Program(options.facemill, work)
    program.run(
        "synthetic", work / "photos", "--masks", work / "masks", "--out", crops,
        "--per-photo", options.per_photo, "--seed", options.seed,
    )  # fmt: skip
    new = work / "classifier.onnx"
    learn(program, crops, new)
    shutil.copyfile(new, options.to)
    print(f"{hashlib.sha256(options.to.read_bytes()).hexdigest()}  {options.to}")


def learn(program, crops, new):
    """Trains on the crops, prints the figures on the people of the test part, and checks shortcuts."""
    clear, border = read_lines(crops / "labels.jsonl"), read_lines(crops / "border.jsonl")
    write_lines(crops / "everything.jsonl", clear + border)
    write_lines(crops / "training.jsonl", clear + [{**line, "ok": False} for line in border])
    people = len({line["group"] for line in clear})
    created_from = f"{len(clear) + len(border)} crops of {people} people, made by models/synthetic/make.py"
    settings = ["--created-from", created_from, "--threshold-for-precision", PRECISION]
    report = program.train(crops / "training.jsonl", new, *settings)
    print(
        f"trained: {report['head']}, penalty {report['penalty']}, {report['training']['crops']} crops of "
        f"{report['training']['groups']} people, threshold {report['model']['threshold']:.3f}"
    )
    print(f"the mirrored grid alone: recall {report['grid']['recall_at_precision_90']:.3f} at a precision of .90\n")
    columns = "".join(f"{name:>21}" for name in ("accuracy", "precision", "recall", "area (ROC)"))
    print(f"{'test part':<14}{'crops':>6}{columns}{'recall@.9':>10}")
    files = {"clear crops": "labels.jsonl", "border is NG": "training.jsonl", "with border": "everything.jsonl"}
    for name, file in files.items():
        print(row(name, program.evaluate(new, crops / file)), flush=True)
    if not report["beats_grid"]:
        raise MakeError("the classifier is no better than the mirrored grid alone")
    for line in check_shortcuts(program, new, crops):
        print(line, flush=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Makes a classifier from photographs of whole heads.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="photographs, named after the person")
    parser.add_argument("--facemill", type=Path, required=True, help="the program")
    parser.add_argument("--work", type=Path, required=True, help="folder for photographs, masks, crops and figures")
    parser.add_argument("--to", type=Path, required=True, help="the classifier")
    parser.add_argument("--per-photo", type=int, default=40, help="clear crops per photograph (40)")
    parser.add_argument("--seed", type=int, default=1, help="of the random windows (1)")
    options = parser.parse_args(arguments)
    try:
        make(options)
    except (MakeError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
