#!/usr/bin/env python3
"""Makes tests/data/robot.inc: states, pictures and actions of robots, and what openpi's numpy makes of them.

A transcription of openpi's policies/libero_policy.py, droid_policy.py, aloha_policy.py and of Normalize, Unnormalize and
AbsoluteActions in transforms.py, all float64. Numbers are written as C's hexadecimal floats: not a bit is lost.

    python3 tests/make_robot_fixtures.py
"""
import math
import pathlib

import numpy as np

FLIP = np.array([1, -1, -1, 1, 1, 1, 1] * 2)
GRIPPERS = [6, 13]
DELTA = np.array([True] * 6 + [False] + [True] * 6 + [False])
HORIZON = 4


def normalize(x, low, high):
    return (x - low) / (high - low)


def unnormalize(x, low, high):
    return x * (high - low) + low


def asin(x):  # that of the C library: numpy's own may differ in the last bit
    return np.array([math.asin(v) for v in x])


def gripper_to_angular(value):
    value = unnormalize(value, 0.01844, 0.05800)
    with np.errstate(divide="ignore"):
        value = (0.022**2 + value**2 - 0.036**2) / (2 * 0.022 * value)
    return normalize(asin(np.clip(value, -1.0, 1.0)), 0.5476, 1.6296)


def aloha_state(state):
    state = FLIP * state
    state[GRIPPERS] = gripper_to_angular(state[GRIPPERS])
    return state


def aloha_actions(actions):
    actions = FLIP * actions[:, :14]
    actions[:, GRIPPERS] = normalize(actions[:, GRIPPERS] + 0.5476, -0.6213, 1.4910)
    return actions


def round_trip(x, q01, q99):
    y = (x - q01) / (q99 - q01 + 1e-6) * 2.0 - 1.0
    return (y + 1.0) / 2.0 * (q99 - q01 + 1e-6) + q01


def add_state(actions, state):
    actions = actions.copy()
    actions[:, :14] += np.where(DELTA, state, 0)
    return actions


def c_doubles(values):
    return "{" + ", ".join("-0.0" if v == 0 and math.copysign(1, v) < 0 else float(v).hex() for v in np.ravel(values)) + "}"


def edge_states(rng):
    for _ in range(24):
        state = rng.uniform(-math.pi, math.pi, 14)
        state[GRIPPERS] = rng.uniform(0, 1, 2)
        yield state
    for a, b in [(0, 1), (-0.0, -1), (2, 5), (1e-300, 1e300 * 1e-150), (-0.46612740141557125, -0.4661), (0.3, 12), (-0.25, -0.2)]:
        state = rng.choice([0.0, -0.0, 1e-310, -math.pi, 1e8], 14)
        state[GRIPPERS] = a, b
        yield state
    yield rng.uniform(-2, 2, 14).astype(np.float32).astype(np.float64)


def aloha(rng, out):
    q01 = rng.uniform(-3, -1, 14)
    q99 = rng.uniform(1, 3, 14)
    out.append(f"static const double aloha_q01[14] = {c_doubles(q01)};")
    out.append(f"static const double aloha_q99[14] = {c_doubles(q99)};")
    out.append("static const struct aloha_case {\n    double state[14], policy_state[14];\n"
               f"    double actions[{HORIZON} * 16], plain[{HORIZON} * 14], with_statistics[{HORIZON} * 14];\n}} aloha_cases[] = {{")
    for state in edge_states(rng):
        actions = rng.normal(0, 2, (HORIZON, 16))
        actions[0] = rng.choice([0.0, -0.0, 1.0, -1.0, 1e9, 1e-310], 16)
        policy = aloha_state(state)
        plain = aloha_actions(add_state(actions, policy))
        returned = aloha_actions(add_state(actions, round_trip(policy, q01, q99)))
        out.append(f"    {{{c_doubles(state)},\n     {c_doubles(policy)},\n     {c_doubles(actions)},\n"
                   f"     {c_doubles(plain)},\n     {c_doubles(returned)}}},")
    out.append("};")


def floats(rng, out):
    """(255 * image).astype(uint8) in the picture's own precision, near every edge between two levels."""
    for name, dtype in (("float", np.float32), ("double", np.float64)):
        level = np.arange(256, dtype=dtype) / dtype(255)
        values = np.concatenate([level, np.nextafter(level, dtype(-1)), np.nextafter(level, dtype(2)),
                                 rng.uniform(0, 1, 768).astype(dtype)])
        values = values[(values >= 0) & (values <= 1)]
        values = values[: len(values) // 3 * 3]
        unit = (255 * values).astype(np.uint8)
        out.append(f"enum {{ {name}_n = {len(values)} }};")
        out.append(f"static const {name} {name}_in[] = {c_doubles(values)};")
        out.append(f"static const uint8_t {name}_out[] = {{{', '.join(str(v) for v in unit)}}};")


def main():
    rng = np.random.default_rng(14)
    out = ["/* Made by make_robot_fixtures.py. */", "/* clang-format off */"]
    aloha(rng, out)
    floats(rng, out)
    (pathlib.Path(__file__).parent / "data" / "robot.inc").write_text("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
