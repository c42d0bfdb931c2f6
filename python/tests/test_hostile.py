"""Observations of anything: an answer or an Error, nothing else, and the policy goes on."""

import random

import numpy as np
import pytest

import pivot
from conftest import CAMERAS, observation, picture

ROBOT_KEYS = ("observation/image", "observation/wrist_image", "observation/state", "prompt", "observation", "x/y")
PLAIN_KEYS = ("images", "state", "tokens", "prompt", "noise", "promt")
SHAPES = [(), (0,), (1,), (3,), (8,), (33,), (5, 4), (48, 64, 3), (3, 48, 64), (1, 2, 3, 4), (1,) * 5, (1,) * 9]
DTYPES = "u1 i1 u2 i4 u4 i8 u8 f2 f4 f8 >f4 >i8 f16 c8 ? S3 U3 O M8[s] V4 f4,i2".split()


def thing(choose: random.Random, deep: int = 0) -> object:
    """Something that may stand in an observation."""
    kind = choose.randrange(8 if deep > 2 else 10)
    if kind < 4:
        shape = choose.choice(SHAPES)
        array = np.zeros(shape, choose.choice(DTYPES))
        if array.dtype.kind in "fc":
            array[...] = choose.choice([0, 1, -1e30, np.inf, np.nan])
        return array[::-1] if shape and choose.random() < 0.3 else array
    if kind == 4:
        return choose.choice(["", "open it", "\0", "\ud800", "x" * 5000, b"", b"\xff", b"open it"])
    if kind == 5:
        return choose.choice([None, True, -1, 2**40, 2**200, 1.5, float("nan"), 1j])
    if kind == 6:
        return choose.choice([[], [[]], [1, 2, 3], [[1], [2, 3]], ["a"], (1.0, None), {1, 2}, object(), range(3), [2**70]])
    if kind == 7:
        return picture(0)
    keys = [*CAMERAS, *ROBOT_KEYS, "image", "state", b"image", 3, None, "", "a\0b"]
    return {choose.choice(keys): thing(choose, deep + 1) for _ in range(choose.randrange(4))}


@pytest.mark.parametrize("robot", [None, "libero"])
@pytest.mark.filterwarnings("ignore")  # numpy's, of ragged lists and casts
def test_anything(robot):
    fine = observation() if not robot else {
        "observation": {"image": picture(1), "wrist_image": picture(2), "state": np.zeros(8)}, "prompt": "open it",
    }  # fmt: skip
    choose = random.Random(7)
    answers, refused = 0, {}
    with pivot.load("synth:tiny", "cpu", robot=robot, allow_truncation=True) as policy:
        if robot and not policy.info.has_tokenizer:
            pytest.skip("built without SentencePiece")
        before = policy.infer(fine, seed=1)["actions"].tobytes()
        for _ in range(1500):
            seen = dict(fine)
            for _ in range(choose.randrange(1, 3)):
                seen[choose.choice(ROBOT_KEYS if robot else PLAIN_KEYS)] = thing(choose)
            try:
                policy.infer(seen)
                answers += 1
            except pivot.Error as error:
                assert str(error)
                refused[type(error)] = refused.get(type(error), 0) + 1
        assert policy.infer(fine, seed=1)["actions"].tobytes() == before
    assert answers > 10 and refused[pivot.ShapeError] > 50 and refused[pivot.ArgumentError] > 50
