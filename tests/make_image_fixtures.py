#!/usr/bin/env python3
"""Makes tests/data/resize.inc: what Pillow's resize-with-pad makes of deterministic pictures.

Needs numpy and pillow 11.2.1, which openpi pins: later ones resize tall pictures in another order of passes.

openpi's policies resize with PIL (openpi_client/image_tools.py): shrink or grow by the larger ratio, truncate both
sides, bilinear, paste on black at half the rest. Large results are kept as FNV-1a 64 hashes, small ones whole.

    python3 tests/make_image_fixtures.py
"""
import pathlib
import random

import numpy as np
import PIL
from PIL import Image


def picture(width, height, seed, hard):
    """Noise, or black and white noise (`hard`, where rounding and clipping show); tests/image.c makes the same."""
    i = np.arange(width * height * 3, dtype=np.uint32)
    h = (i ^ np.uint32(seed)) * np.uint32(0x9E3779B1)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x85EBCA77)
    h ^= h >> np.uint32(13)
    byte = (h >> np.uint32(24)).astype(np.uint8)
    if hard:
        byte = np.where(byte & 1, 255, 0).astype(np.uint8)
    return byte.reshape(height, width, 3)


def resize_with_pad(pixels, side):
    height, width = pixels.shape[:2]
    if (height, width) == (side, side):
        return pixels
    ratio = max(width / side, height / side)
    small = Image.fromarray(pixels).resize((int(width / ratio), int(height / ratio)), Image.Resampling.BILINEAR)
    square = Image.new("RGB", (side, side), 0)
    square.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    return np.asarray(square)


def fnv1a(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


SIZES = [
    (224, 224), (224, 168), (168, 224), (224, 1), (1, 224), (1, 1), (2, 2), (3, 5), (1, 7), (7, 1), (100, 1),
    (640, 480), (480, 640), (1280, 720), (720, 1280), (1920, 1080), (256, 256), (223, 225), (225, 223), (222, 224),
    (224, 225), (225, 224), (448, 448), (447, 449), (112, 112), (113, 111), (56, 56), (55, 57), (320, 180), (180, 320),
    (848, 480), (400, 4), (5, 333), (2000, 31), (8192, 37), (37, 8192), (8192, 64), (333, 1001), (17, 19), (640, 360),
]


def main():
    assert PIL.__version__ == "11.2.1", "see above"
    rng = random.Random(5)
    cases = [(w, h, side) for w, h in SIZES for side in (224, 56)]
    cases += [(rng.randint(1, 400), rng.randint(1, 400), rng.choice((224, 56, 57, 99))) for _ in range(120)]
    cases = [(w, h, s) for w, h, s in cases if min(int(v / max(w / s, h / s)) for v in (w, h)) > 0]
    lines = [f"/* Made by make_image_fixtures.py with Pillow {PIL.__version__}. */", "static const struct hashed {",
             "    int width, height, side, hard;", "    uint64_t hash;", "} hashed[] = {"]
    for n, (w, h, side) in enumerate(cases):
        hard = n % 3 == 2
        result = resize_with_pad(picture(w, h, n, hard), side)
        lines.append(f"    {{{w}, {h}, {side}, {int(hard)}, 0x{fnv1a(result.tobytes()):016x}}},")
    lines += ["};", "", "#define WHOLE_SIDE 8", "static const struct whole {", "    int width, height;",
              "    uint8_t rgb[WHOLE_SIDE * WHOLE_SIDE * 3];", "} whole[] = {"]
    for w, h in ((20, 13), (3, 4), (8, 5), (5, 8), (8, 8), (1, 1)):
        result = resize_with_pad(picture(w, h, 1000 + w, False), 8).tobytes()
        lines.append(f"    {{{w}, {h}, {{")
        lines += ["        " + ", ".join(map(str, result[i:i + 24])) + "," for i in range(0, len(result), 24)]
        lines.append("    }},")
    lines.append("};")
    (pathlib.Path(__file__).parent / "data" / "resize.inc").write_text("\n".join(lines) + "\n")


main()
