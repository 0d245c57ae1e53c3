"""Golden vectors for `--align ffhq` and `--fill ffhq`, written to `tests/data/ffhq.json`:

    PYTHONPATH=.cache/python-datasets python3 tests/ffhq/golden.py > tests/data/ffhq.json

Written from the description in Karras et al., arXiv 1710.10196, appendix C, and from what is publicly known of the script
that remakes FFHQ: reflected padding, a Gaussian blur that grows outwards, and a fade to the median. It shares no code with
facemill. Needs numpy and Pillow. `tests/integration/ffhq.rs` runs it, and compares what it prints with the file.
"""

import json

import numpy
from PIL import Image


def wave(at, period):
    """A triangle wave of integers from 0 to 255."""
    return abs(at % (2 * period) - period) * 255 // period


def photo(width, height):
    """A photo without a random number, so that facemill's test makes the same one."""
    y, x, channel = numpy.mgrid[0:height, 0:width, 0:3]
    value = (wave(x + 2 * y + 17 * channel, 61) + wave(3 * x + 1000 - y + 31 * channel, 97)) // 2
    return value.astype(numpy.uint8)


class OrientedSquare:
    """The square around a face, from the centres of the eyes and the corners of the mouth."""

    def __init__(self, eyes, mouth):
        eyes, mouth = numpy.array(eyes, float), numpy.array(mouth, float)
        between_eyes = eyes[1] - eyes[0]
        eye_middle, mouth_middle = eyes.mean(axis=0), mouth.mean(axis=0)
        to_mouth = mouth_middle - eye_middle
        # The paper: x' = e1 - e0, y' = middle of eyes - middle of mouth, x = normalised (x' - rotate90 y'),
        # c = middle of eyes - 0.1 y', s = max(4 |x'|, 3.6 |y'|).
        y_paper = -to_mouth
        # On a screen, where y points down, a quarter turn to the left.
        rotated = numpy.array([y_paper[1], -y_paper[0]])
        axis = between_eyes - rotated
        axis /= numpy.linalg.norm(axis)
        self.side = max(4.0 * numpy.linalg.norm(between_eyes), 3.6 * numpy.linalg.norm(to_mouth))
        self.centre = eye_middle + 0.1 * to_mouth
        half_right = axis * self.side / 2
        half_down = numpy.array([-half_right[1], half_right[0]])
        self.corners = numpy.array([
            self.centre - half_right - half_down,
            self.centre - half_right + half_down,
            self.centre + half_right + half_down,
            self.centre + half_right - half_down,
        ])


def blurred_along(image, axis, sigma):
    """One axis of a Gaussian blur that ends at four sigma; beyond its edge the image is mirrored, the edge included."""
    radius = int(4 * sigma + 0.5)
    weights = numpy.exp(-0.5 * (numpy.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    around = [(0, 0)] * image.ndim
    around[axis] = (radius, radius)
    wide = numpy.moveaxis(numpy.pad(image.astype(float), around, "symmetric"), axis, 0)
    length = image.shape[axis]
    total = sum(weight * wide[at:at + length] for at, weight in enumerate(weights))
    return numpy.moveaxis(total, 0, axis).astype(numpy.float32)


def padded(pixels, square):
    """The image with what FFHQ puts beyond the photo, the corners in it, and the pad; None where nothing is padded."""
    corners, side = square.corners.copy(), square.side
    border = max(int(numpy.rint(0.1 * side)), 3)
    height, width = pixels.shape[:2]
    left, top = (max(int(numpy.floor(corners[:, axis].min())) - border, 0) for axis in (0, 1))
    right = min(int(numpy.ceil(corners[:, 0].max())) + border, width)
    bottom = min(int(numpy.ceil(corners[:, 1].max())) + border, height)
    pixels = pixels[top:bottom, left:right]
    corners -= [left, top]
    height, width = pixels.shape[:2]

    low, high = numpy.floor(corners.min(axis=0)).astype(int), numpy.ceil(corners.max(axis=0)).astype(int)
    pad = [border - low[0], border - low[1], high[0] - width + border, high[1] - height + border]
    pad = [max(int(each), 0) for each in pad]
    if max(pad) <= border - 4:
        return pixels, corners, None
    pad = [max(each, int(numpy.rint(0.3 * side))) for each in pad]
    wide = numpy.pad(pixels.astype(numpy.float32), ((pad[1], pad[3]), (pad[0], pad[2]), (0, 0)), "reflect")
    height, width = wide.shape[:2]
    rows, columns = numpy.arange(height, dtype=numpy.float32), numpy.arange(width, dtype=numpy.float32)
    down = 1 - numpy.minimum(rows / pad[1], rows[::-1] / pad[3])
    across = 1 - numpy.minimum(columns / pad[0], columns[::-1] / pad[2])
    outwards = numpy.maximum(down[:, None], across[None, :])[:, :, None]
    sigma = 0.02 * side
    blurred = blurred_along(blurred_along(wide, 0, sigma), 1, sigma)
    wide = wide + (blurred - wide) * numpy.clip(3 * outwards + 1, 0, 1)
    middle = numpy.median(wide, axis=(0, 1))
    wide = wide + (middle - wide) * numpy.clip(outwards, 0, 1)
    wide = numpy.clip(numpy.rint(wide), 0, 255).astype(numpy.uint8)
    return wide, corners + [pad[0], pad[1]], pad


def crop(pixels, corners, size):
    """The square, sampled at four times the size and reduced."""
    large = 4 * size
    flat = (corners + 0.5).flatten()
    image = Image.fromarray(pixels).transform((large, large), Image.Transform.QUAD, flat, Image.Resampling.BILINEAR)
    return numpy.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


def samples(pixels, step):
    """Pixels on a grid that does not hit the same phase of a pattern in each row: [x, y, red, green, blue]."""
    height, width = pixels.shape[:2]
    places = [(x, y) for y in range(0, height, step) for x in range((y * 5) % step, width, step)]
    places += [(width - 1, height - 1), (0, height - 1), (width - 1, 0)]
    return [[x, y, *map(int, pixels[y, x])] for x, y in places]


CASES = {
    "within the photo": (400, 320, [[180, 150], [220, 152]], [[186, 196], [214, 198]]),
    "near the edge": (400, 320, [[64, 150], [104, 150]], [[70, 196], [98, 196]]),
    "cut off above": (400, 320, [[180, 40], [230, 44]], [[186, 96], [222, 98]]),
    "turned in a corner": (400, 320, [[320, 250], [358, 276]], [[294, 288], [322, 308]]),
    "larger than the photo": (70, 60, [[10, 24], [60, 28]], [[16, 74], [50, 77]]),
    "large": (700, 640, [[250, 90], [450, 110]], [[270, 300], [420, 310]]),
}


def main():
    cases = []
    for name, (width, height, eyes, mouth) in CASES.items():
        square = OrientedSquare(eyes, mouth)
        filled, corners, pad = padded(photo(width, height), square)
        size = min(int(numpy.rint(square.side)), 160)
        made = crop(filled, corners, size)
        cases.append({
            "name": name,
            "photo": [width, height],
            "eyes": eyes,
            "mouth": mouth,
            "corners": square.corners.round(6).tolist(),
            "pad": pad,
            "filled": None if pad is None else {
                "size": [filled.shape[1], filled.shape[0]],
                "corners": corners.round(6).tolist(),
                "samples": samples(filled, max(filled.shape[0] // 14, 1)),
            },
            "crop": {"size": size, "samples": samples(made, max(size // 12, 1))},
        })
    print("[" + ",\n".join(json.dumps(case) for case in cases) + "]")


if __name__ == "__main__":
    main()
