"""Writes one person mask per photograph, for `facemill synthetic --masks DIR`.

    python -m venv env && env/bin/pip install --no-deps --require-hashes -r models/synthetic/requirements.txt
    env/bin/python models/synthetic/masks.py PHOTOS MASKS

PHOTOS is a folder of photographs, with subfolders. The mask of PHOTOS/PATH is MASKS/PATH.png: 8-bit grey, the size of the
photograph after EXIF orientation, 255 where MediaPipe's selfie segmentation (general model, Apache-2.0) finds a person.
"""

import sys
from pathlib import Path

import cv2
import mediapipe

ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}


def main(photos: Path, masks: Path) -> None:
    files = sorted(p for p in photos.rglob("*") if p.suffix.lower() in ENDINGS)
    if not files:
        sys.exit(f"no photographs below {photos}")
    with mediapipe.solutions.selfie_segmentation.SelfieSegmentation(model_selection=0) as segment:
        for file in files:
            image = cv2.imread(str(file))  # applies the EXIF orientation
            if image is None:
                print(f"skipped, not an image: {file}", file=sys.stderr)
                continue
            person = segment.process(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)).segmentation_mask
            target = masks / file.relative_to(photos).parent / (file.name + ".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(target), (person * 255).round().astype("uint8"))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
