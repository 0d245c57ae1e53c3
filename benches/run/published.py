"""The published method, as a person would write it with dlib and OpenCV, for comparison of its cost.

    published.py LIST LANDMARKS FACES     LIST: paths of photos, one a line. Crops are written to FACES as PNG
    published.py --check                  exits with 1 and the reason if this machine cannot run it fairly

Prints one JSON object a photo, `file` and `outcome`, and at last the CPU seconds before the first photo. One thread. The
photo is turned in steps of 12 degrees in a black square; of the angles that show exactly one face the best score wins;
the line through the eyes completes the angle; the levelled photo must show one face; the crop is cut after Karras et
al. (arXiv 1710.10196, appendix C) from the photo with mirrored borders, and must show one face again. Warps are
bilinear and the centre moves by +0.1 y, as in the published scripts.
"""

import json
import math
import os
import sys
import time

os.environ["OMP_NUM_THREADS"] = "1"

try:
    import cv2
    import dlib
    import numpy
except ImportError as error:
    sys.exit(f"{error}: install dlib-bin, opencv-python-headless and numpy")

ANGLES = range(-48, 49, 12)
RIGHT_EYE, LEFT_EYE = range(36, 42), range(42, 48)
RIGHT_MOUTH, LEFT_MOUTH = 48, 54


def turn(picture, angle):
    """Turns a square picture about its centre, counter-clockwise. Beyond it is black."""
    side = picture.shape[0]
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1)
    return cv2.warpAffine(picture, matrix, (side, side), flags=cv2.INTER_LINEAR)


def padded(picture, border):
    """The picture in the middle of a square whose side is its diagonal."""
    height, width = picture.shape[:2]
    side = math.ceil(math.hypot(height, width))
    top, left = (side - height) // 2, (side - width) // 2
    return cv2.copyMakeBorder(picture, top, side - height - top, left, side - width - left, border)


class Method:
    def __init__(self, landmarks):
        self.detector = dlib.get_frontal_face_detector()
        self.predictor = dlib.shape_predictor(landmarks)

    def faces(self, picture):
        """Rectangles and scores."""
        rectangles, scores, _ = self.detector.run(picture, 0, 0.0)
        return list(zip(rectangles, scores))

    def points(self, picture, rectangle):
        shape = self.predictor(picture, rectangle)
        return numpy.array([(point.x, point.y) for point in shape.parts()], dtype=float)

    def answer(self, picture):
        """The outcome, and the crop if there is one."""
        canvas = padded(picture, cv2.BORDER_CONSTANT)
        best = None
        for angle in ANGLES:
            turned = turn(canvas, angle)
            found = self.faces(turned)
            if len(found) == 1 and (best is None or found[0][1] > best[1]):
                best = (angle, found[0][1], self.points(turned, found[0][0]))
        if best is None:
            return "no_face", None
        angle, _, points = best
        right, left = points[RIGHT_EYE].mean(axis=0), points[LEFT_EYE].mean(axis=0)
        angle += math.degrees(math.atan2(left[1] - right[1], left[0] - right[0]))
        levelled = turn(canvas, angle)
        found = self.faces(levelled)
        if len(found) != 1:
            return "not_one_after_levelling", None
        points = self.points(levelled, found[0][0])
        right, left = points[RIGHT_EYE].mean(axis=0), points[LEFT_EYE].mean(axis=0)
        eyes = (right + left) / 2
        along = left - right
        down = eyes - (points[RIGHT_MOUTH] + points[LEFT_MOUTH]) / 2
        centre = eyes + 0.1 * down
        half = max(4.0 * math.hypot(*along), 3.6 * math.hypot(*down)) / 2
        x0, y0, x1, y1 = (round(value) for value in (*(centre - half), *(centre + half)))
        side = canvas.shape[0]
        if x0 < 0 or y0 < 0 or x1 > side or y1 > side:
            return "out_of_frame", None
        crop = numpy.ascontiguousarray(turn(padded(picture, cv2.BORDER_REFLECT), angle)[y0:y1, x0:x1])
        found = self.faces(crop)
        if len(found) != 1:
            return "not_one_in_crop", None
        self.points(crop, found[0][0])
        return "ok", crop


def main():
    if not dlib.USE_AVX_INSTRUCTIONS:
        sys.exit("this build of dlib does not use AVX: the comparison would flatter us")
    if sys.argv[1:] == ["--check"]:
        return
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    photos, landmarks, faces = sys.argv[1:]
    cv2.setNumThreads(1)
    method = Method(landmarks)
    startup = time.process_time()
    with open(photos, encoding="utf-8") as lines:
        paths = lines.read().splitlines()
    for number, path in enumerate(paths):
        picture = cv2.imread(path)
        outcome, crop = "undecodable", None
        if picture is not None:
            outcome, crop = method.answer(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
        if crop is not None:
            cv2.imwrite(os.path.join(faces, f"{number}.png"), cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))
        print(json.dumps({"file": path, "outcome": outcome}), flush=True)
    print(json.dumps({"startup": startup}))


main()
