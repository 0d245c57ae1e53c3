"""Plants copies of photographs, sends all of them through the pipeline, and counts what `facemill duplicates` finds.

    python3 tests/copies/measure.py --photos DIR [DIR ...] --program target/release/facemill

Each photograph must show another person. Known repeats are left out first: files with the same bytes, and files of the
same name. It prints the recall of the copies, and how many pairs of different people are in one group, with the 95 %
upper bound of their share if pairs are taken as independent. Exit code 1: the recall is below 0.98, or the bound is
above 1 in 100,000. `make copies FOLDERS="DIR ..."` installs Pillow and runs it.
"""

import argparse
import collections
import concurrent.futures
import hashlib
import json
import math
import pathlib
import resource
import subprocess
import sys
import tempfile

from PIL import Image, ImageEnhance, ImageOps

PICTURES = {".jpg", ".jpeg", ".png"}
LEAST_RECALL = 0.98
MOST_FALSE = 1e-5


def rescaled(picture, share):
    size = [max(1, round(side * share)) for side in picture.size]
    return picture.resize(size, Image.Resampling.LANCZOS)


def turned(picture, degrees):
    return picture.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=(128, 128, 128))


def cut(picture, share):
    """Takes the share away from width and height, half of it on each side."""
    left, top = (round(side * share / 2) for side in picture.size)
    return picture.crop((left, top, picture.width - left, picture.height - top))


# By name: how a copy is made, and the quality of its JPEG.
COPIES = {
    "smaller": (lambda picture: rescaled(picture, 0.6), 90),
    "small": (lambda picture: rescaled(picture, 0.4), 90),
    "jpeg30": (lambda picture: picture, 30),
    "turned10": (lambda picture: turned(picture, -10), 90),
    "turned20": (lambda picture: turned(picture, 20), 90),
    "turned25": (lambda picture: turned(picture, -25), 90),
    "cut": (lambda picture: cut(picture, 0.12), 90),
    "mirrored": (ImageOps.mirror, 90),
    "grey": (lambda picture: picture.convert("L").convert("RGB"), 90),
    "bright": (lambda picture: ImageEnhance.Brightness(picture).enhance(1.4), 90),
}


def photographs(folders):
    """The pictures below the folders, without known repeats."""
    found, known = [], set()
    for folder in folders:
        for path in sorted(pathlib.Path(folder).rglob("*")):
            if path.suffix.lower() not in PICTURES:
                continue
            marks = {path.stem.lower(), hashlib.sha256(path.read_bytes()).hexdigest()}
            if marks & known:
                print(f"left out as a repeat: {path}", file=sys.stderr)
            else:
                found.append(path)
            known |= marks
    return found


def plant(number, path, folder):
    """Writes a photograph as it is, and its copies."""
    (folder / f"{number:05}-original{path.suffix.lower()}").write_bytes(path.read_bytes())
    picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    for name, (make, quality) in COPIES.items():
        make(picture).save(folder / f"{number:05}-{name}.jpg", quality=quality)


def facemill(program, arguments):
    output = subprocess.run([program, *arguments, "--json"], stdout=subprocess.PIPE, check=False)
    if output.returncode:
        sys.exit(f"facemill {arguments[0]} ended with {output.returncode}")
    return json.loads(output.stdout.splitlines()[-1])


def cpu():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def split(photo_id):
    """The number of the photograph, and the name of the copy."""
    number, rest = pathlib.PurePath(photo_id).name.split("-", 1)
    return int(number), rest.split(".")[0]


def upper_bound(count, trials):
    """The 95 % upper bound of a share of rare events: the mean at which a Poisson number is at most `count` in 5 %."""
    low, high = 0.0, 10.0 * (count + 5)
    for _ in range(200):
        mean = (low + high) / 2
        below = sum(math.exp(i * math.log(mean) - mean - math.lgamma(i + 1)) for i in range(count + 1))
        low, high = (mean, high) if below > 0.05 else (low, mean)
    return high / trials


def pairs(count):
    return count * (count - 1) // 2


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", nargs="+", required=True, metavar="DIR")
    parser.add_argument("--program", required=True)
    parser.add_argument("--limit", type=int, help="so many photographs at most")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="facemill-copies-") as scratch:
        scratch = pathlib.Path(scratch)
        planted, out = scratch / "photos", scratch / "out"
        planted.mkdir()
        found = photographs(arguments.photos)[: arguments.limit]
        with concurrent.futures.ProcessPoolExecutor() as pool:
            list(pool.map(plant, range(len(found)), found, [planted] * len(found)))
        began = cpu()
        facemill(arguments.program, ["run", str(planted), "--out", str(out)])
        through = cpu()
        faces = [json.loads(line)["photo_id"] for line in (out / "faces.jsonl").read_text().splitlines()]
        result = facemill(arguments.program, ["duplicates", "--out", str(out), "--limit", "65535"])
        searched = cpu()
    report(found, faces, result, through - began, searched - through)


def report(found, faces, result, pipeline_seconds, search_seconds):
    faces = {split(face) for face in faces}
    groups = [[split(photo) for photo in group] for group in result["listed"]]
    group_of = {photo: at for at, group in enumerate(groups) for photo in group}
    by_copy, hit = collections.Counter(), collections.Counter()
    for number, copy in faces:
        if copy == "original" or (number, "original") not in faces:
            continue
        by_copy[copy] += 1
        of_original = group_of.get((number, "original"))
        hit[copy] += of_original is not None and group_of.get((number, copy)) == of_original
    versions = collections.Counter(number for number, _ in faces)
    false = sum(pairs(len(group)) - sum(map(pairs, collections.Counter(n for n, _ in group).values())) for group in groups)
    different = pairs(len(faces)) - sum(map(pairs, versions.values()))
    copies, hits = sum(by_copy.values()), sum(hit.values())
    recall, bound = hits / copies, upper_bound(false, different)
    planted = len(found) * len(COPIES)
    print(f"{len(found)} photographs of different people, {planted} copies; {len(faces)} crops")
    print(f"pipeline {pipeline_seconds:.0f} s of CPU, search {search_seconds:.0f} s of CPU")
    for copy in COPIES:
        print(f"  {copy:<10} {hit[copy]} of {by_copy[copy]}")
    print(f"recall: {hits} of {copies} copies with a crop: {recall:.4f}")
    print(f"false matches: {false} of {different} pairs of different people; at most {bound * 1e5:.3f} in 100,000 (95 %)")
    if recall < LEAST_RECALL or bound > MOST_FALSE:
        sys.exit("this is worse than promised")


if __name__ == "__main__":
    main()
