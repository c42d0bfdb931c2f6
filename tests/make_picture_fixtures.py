#!/usr/bin/env python3
"""Makes tests/data/pictures.inc: small JPEG and PNG files and FNV-1a 64 of the RGB that Pillow reads from them.

16-bit, 1..4-bit and interlaced PNGs, which Pillow does not write, are put together here. Needs pillow and numpy.

    python3 tests/make_picture_fixtures.py
"""
import io
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image

W, H = 29, 18


def fnv1a(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def scene():
    y, x = np.mgrid[0:H, 0:W]
    rgb = np.stack([x * 8, y * 14, (x + y) * 5], axis=-1).astype(np.uint8)
    rgb[4:9, 5:14] = (250, 20, 60)
    rgb[10:, 20] = 255
    return rgb


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png(bits, colour, samples, interlace=False):
    """samples [H][W][channels] of `bits` each; no filter; Adam7 by hand."""
    def rows(s):
        out = b""
        for row in s.reshape(s.shape[0], -1):
            text = "".join(format(int(v), f"0{bits}b") for v in row)
            text += "0" * (-len(text) % 8)
            out += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
        return out

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [samples[y::dy, x::dx] for y, x, dy, dx in passes] if interlace else [samples]
    data = zlib.compress(b"".join(rows(p) for p in parts if p.size), 9)
    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], bits, colour, 0, 0, int(interlace))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def main():
    rgb = scene()
    image = Image.fromarray(rgb)
    grey = np.asarray(image.convert("L"))
    wide = rgb.astype(np.uint16) * 256 + 77
    rgba = image.convert("RGBA")
    rgba.putalpha(Image.fromarray((grey // 2).astype(np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees: must not happen
    palette = image.quantize(16)
    as_read = lambda f: np.asarray(Image.open(io.BytesIO(f)).convert("RGB"))  # noqa: E731
    three = lambda g: np.repeat(g[..., None], 3, axis=-1).astype(np.uint8)  # noqa: E731
    cases = {}
    for name, f in {
        "jpeg_420": saved(image, "JPEG", quality=85), "jpeg_444": saved(image, "JPEG", quality=90, subsampling=0),
        "jpeg_422": saved(image, "JPEG", quality=75, subsampling=1), "jpeg_grey": saved(image.convert("L"), "JPEG"),
        "jpeg_progressive": saved(image, "JPEG", quality=80, progressive=True),
        "jpeg_exif_turned": saved(image, "JPEG", quality=80, exif=exif),
        "png_rgb": saved(image, "PNG"), "png_grey": saved(image.convert("L"), "PNG"),
        "png_rgba": saved(rgba, "PNG"), "png_grey_alpha": saved(rgba.convert("LA"), "PNG"),
        "png_palette": saved(palette, "PNG"), "png_palette_clear": saved(palette, "PNG", transparency=3),
        "png_gamma_kept": saved(image, "PNG")[:33] + bytes.fromhex("0000000467414d410000b18f0bfc6105")
        + saved(image, "PNG")[33:],
    }.items():
        cases[name] = (f, as_read(f))
    assert (cases["png_rgba"][1] == rgb).all() and cases["jpeg_exif_turned"][1].shape == (H, W, 3)
    cases["png_interlaced"] = (png(8, 2, rgb, interlace=True), rgb)
    assert (as_read(cases["png_interlaced"][0]) == rgb).all()
    cases["png_rgb_16"] = (png(16, 2, wide), rgb)
    assert (as_read(cases["png_rgb_16"][0]) == rgb).all()
    cases["png_grey_16"] = (png(16, 0, wide[..., :1]), three(rgb[..., 0]))
    for bits in (1, 2, 4):
        level = grey[..., None] >> (8 - bits)
        cases[f"png_grey_{bits}"] = (png(bits, 0, level), three(level[..., 0].astype(int) * 255 // (2**bits - 1)))
        assert (as_read(cases[f"png_grey_{bits}"][0]) == cases[f"png_grey_{bits}"][1]).all()
    lines = ["/* Made by make_picture_fixtures.py. */"]

    def array(name, data):
        lines.append(f"static const uint8_t {name}[] = {{")
        lines.extend("    " + ", ".join(f"0x{b:02x}" for b in data[i:i + 18]) + "," for i in range(0, len(data), 18))
        lines.append("};")

    for name, (f, _) in cases.items():
        array(name, f)
    array("jpeg_cmyk", saved(image.convert("CMYK"), "JPEG"))
    array("png_wide", png(8, 0, np.zeros((1, 8193, 1), np.uint8)))
    array("scene_rgb", rgb.tobytes())
    lines += [f"#define SCENE_WIDTH  {W}", f"#define SCENE_HEIGHT {H}", "static const struct file {",
              "    const char *name;", "    const uint8_t *p;", "    size_t n;", "    uint64_t hash;", "} files[] = {"]
    lines += [f'    {{"{n}", {n}, sizeof {n}, 0x{fnv1a(r.tobytes()):016x}}},' for n, (_, r) in cases.items()]
    lines.append("};")
    (pathlib.Path(__file__).parent / "data" / "pictures.inc").write_text("\n".join(lines) + "\n")


main()
