#!/usr/bin/env python3
"""Goes from a dump to a dataset that a loader reads, with the photos of the demonstration. docs/tutorial.md explains it.

    deploy/tutorial.py [--out DIR] [--program FILE] [--unattended]

On a terminal the page of curation is opened twice: to judge some faces, and to accept what the new classifier
predicts. Otherwise, or with --unattended, a rule judges in place of a person: NG where the mirror has filled much of
the crop. A run that is already in DIR is taken as it is.
"""

import argparse
import io
import json
import pathlib
import shlex
import struct
import subprocess
import sys
import zipfile

# The rule takes this share of the crop, from 0 to 1, for too much.
MIRRORED = 0.085
JUDGED = 30
SIZE = 128


class Tutorial:
    def __init__(self, program, out):
        self.program, self.out = program, out

    def command(self, *arguments):
        return [self.program, *arguments, "--out", str(self.out)]

    def echo(self, *arguments):
        print(f"\n$ facemill {shlex.join(arguments)} --out {shlex.quote(str(self.out))}", flush=True)

    def show(self, *arguments):
        """Runs a command whose output is for the reader."""
        self.echo(*arguments)
        ended = subprocess.run(self.command(*arguments), check=False).returncode
        if ended:
            sys.exit(f"facemill {arguments[0]} ended with exit code {ended}")

    def ask(self, *arguments):
        """What a command prints with --json."""
        ended = subprocess.run(self.command(*arguments, "--json"), stdout=subprocess.PIPE, check=False)
        if ended.returncode:
            sys.exit(f"facemill {arguments[0]} ended with exit code {ended.returncode}")
        return json.loads(ended.stdout)

    def faces(self, query, sort="id"):
        return self.ask("faces", "--where", query, "--sort", sort, "--limit", "1000")["faces"]

    def count(self, query):
        return self.ask("faces", "--count", "--where", query)

    def imported(self, verdicts):
        lines = "".join(json.dumps(verdict) + "\n" for verdict in verdicts)
        arguments = self.command("verdicts", "import", "-", "--format", "jsonl", "--by", "tutorial")
        ended = subprocess.run(arguments, input=lines, text=True, stdout=subprocess.DEVNULL, check=False)
        if ended.returncode:
            sys.exit(f"facemill verdicts import ended with exit code {ended.returncode}")

    def run(self):
        if (self.out / "ledger.sqlite").exists():
            print(f"{self.out} has a run: it is taken as it is")
        else:
            self.show("demo")

    def open_page(self, what):
        print(f"\n{what} End the page with Ctrl-C.")
        try:
            subprocess.run(self.command("curate"), check=False)
        except KeyboardInterrupt:
            print()

    def judge(self, is_attended):
        if is_attended:
            self.open_page(f"Open the address and judge about {JUDGED} faces, those with the largest mirrored share first: 3 is OK, 1 is NG.")
            return
        faces = self.faces("status in (ready, predicted)", "-mirrored")[:JUDGED]
        judgements = ["ng" if face["mirrored"] >= MIRRORED else "ok" for face in faces]
        self.imported({"photo_id": face["photo_id"], "judgement": judgement} for face, judgement in zip(faces, judgements))
        print(f"\nA rule has judged {len(faces)} faces.")

    def train(self):
        """Trains a classifier, scores all faces with it, and makes it the one of the run."""
        file = str(self.out / "classifier.onnx")
        self.show("train", "--to", file)
        self.echo("rescore", "--model", file)
        rescored = self.ask("rescore", "--model", file)
        print(f"{rescored['scored'] + rescored['known']} of {rescored['crops']} crops have a score")
        self.show("models", "use", rescored["model"])

    def accept(self, is_attended):
        if is_attended:
            self.open_page("Open /border on the page: look at the crops around the threshold, and accept all above.")
            return
        faces = self.faces("status=predicted")
        self.imported({"photo_id": face["photo_id"], "judgement": "ok", "view": "bulk"} for face in faces)
        print(f"\nAll {len(faces)} predicted faces are accepted, in bulk.")

    def read(self, file):
        """Reads the export as a loader does."""
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.endswith(".png")]
            sizes = {struct.unpack(">II", io.BytesIO(archive.read(name)).read(24)[16:]) for name in names}
            json.loads(archive.read("dataset.json"))
        if sizes != {(SIZE, SIZE)}:
            sys.exit(f"{file}: expected pictures of {SIZE}x{SIZE}, there are {sorted(sizes)}")
        print(f"\n{file}: {len(names)} pictures of {SIZE}x{SIZE}, read with zipfile")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out/tutorial"))
    parser.add_argument("--program", default="target/release/facemill")
    parser.add_argument("--unattended", action="store_true", help="a rule judges in place of a person")
    arguments = parser.parse_args()
    is_attended = sys.stdin.isatty() and not arguments.unattended
    tutorial = Tutorial(arguments.program, arguments.out)
    tutorial.run()
    tutorial.judge(is_attended)
    judged = {status: tutorial.count(f"status={status}") for status in ("ok", "ng", "ready", "predicted")}
    print(", ".join(f"{count} {status}" for status, count in judged.items()))
    tutorial.train()
    tutorial.accept(is_attended)
    file = arguments.out / "faces.zip"
    tutorial.show("export", "--where", "status=ok", "--size", str(SIZE), "--format", "stylegan", "--to", str(file))
    tutorial.read(file)


if __name__ == "__main__":
    main()
