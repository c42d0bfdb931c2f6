#!/usr/bin/env python3
"""Makes tests/data/processors.inc: what lerobot's normalizer_processor, unnormalizer_processor and
absolute_actions_processor make of numbers.

A transcription of the rules of lerobot's src/lerobot/processor/normalize_processor.py and relative_action_processor.py, each
operation in float32 as torch does it. Numbers are written as C's hexadecimal floats: not a bit is lost.

    python3 tests/make_processor_fixtures.py
"""
import math
import pathlib

import numpy as np

F = np.float32
DIM = 12
ROWS = 8
MODES = {"MEAN_STD": ("mean", "std"), "QUANTILES": ("q01", "q99"), "MIN_MAX": ("min", "max"), "QUANTILE10": ("q10", "q90"),
         "IDENTITY": ("mean", "std")}


def normalize(mode, x, a, b, eps):
    if mode == "IDENTITY":
        return x
    if mode == "MEAN_STD":
        return (x - a) / (b + eps)
    d = b - a
    d = np.where(d == 0, eps, d)
    return F(2) * (x - a) / d - F(1)


def unnormalize(mode, y, a, b, eps):
    if mode == "IDENTITY":
        return y
    if mode == "MEAN_STD":
        return y * b + a
    d = b - a
    d = np.where(d == 0, eps, d)
    return (y + F(1)) * d / F(2) + a


def numbers(values):
    return "{" + ", ".join("-0.0" if v == 0 and math.copysign(1, v) < 0 else float(v).hex() for v in np.ravel(values)) + "}"


def statistics(rng, mode):
    a = rng.normal(0, 2, DIM).astype(F)
    span = np.abs(rng.normal(0, 2, DIM)).astype(F)
    span[0] = 0  # a joint that never moved
    span[1] = F(1e-8)
    a[1] = 0
    a[2], span[2] = F(1e-40), F(1e-30)
    a[3], span[3] = F(-1e15), F(2e15)
    a[4] = F(-0.0)
    b = span if mode in ("MEAN_STD", "IDENTITY") else np.maximum(a, a + span)
    return a, b.astype(F)


def values(rng, a, b):
    """Doubles, as robots may send them: they are rounded to float32 first."""
    x = rng.normal(0, 3, (ROWS, DIM))
    x[0] = a
    x[1] = b
    x[2] = np.nextafter(a, F(9))
    x[3] = rng.choice([0.0, -0.0, 1.0, -1.0, 1e-46, 1e5, 0.1, 16777217.0], DIM)
    return x


def main():
    rng = np.random.default_rng(5)
    out = ["/* Made by make_processor_fixtures.py. */", "/* clang-format off */", f"enum {{ DIM = {DIM}, ROWS = {ROWS} }};",
           "static const struct norm_case {\n    const char *mode, *low, *high;\n    double eps;\n    float a[DIM], b[DIM];\n"
           "    double x[ROWS * DIM], in[ROWS * DIM], out[ROWS * DIM], absolute[ROWS * DIM];\n} norm_cases[] = {"]
    old = np.seterr(all="ignore")
    for mode, names in MODES.items():
        for eps in (1e-8, 0.25):
            a, b = statistics(rng, mode)
            x = values(rng, a, b)
            x32 = x.astype(F)
            into = normalize(mode, x32, a, b, F(eps))
            back = unnormalize(mode, x32, a, b, F(eps))
            state = x32[5]
            mask = np.array([d % 3 != 1 for d in range(DIM)]).astype(F)
            absolute = back + state * mask
            for part in (into, back, absolute):
                assert part.dtype == F and np.isfinite(part).all(), (mode, eps)
            out.append(f'    {{"{mode}", "{names[0]}", "{names[1]}", {eps!r}, {numbers(a)},\n     {numbers(b)},\n     {numbers(x)},\n'
                       f"     {numbers(into)},\n     {numbers(back)},\n     {numbers(absolute)}}},")
    np.seterr(**old)
    out.append("};")
    (pathlib.Path(__file__).parent / "data" / "processors.inc").write_text("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
