"""What does not fit is an exception of the right class, whose words name what came; the policy goes on afterwards."""

import numpy as np
import pytest

import pivot
from conftest import CAMERAS, observation, picture

BASE = CAMERAS[0]
FINE = np.zeros((10, 32), np.float32)


def spoilt(value):
    noise = FINE.copy()
    noise[3, 4] = value
    return noise


OBSERVATIONS = {
    "not a dict": ([1, 2], pivot.ArgumentError, "list"),
    "misspelt key": (observation(promt="x"), pivot.ArgumentError, "'promt'"),
    "no pictures": (observation(images={}), pivot.ArgumentError, "camera"),
    "pictures without names": (observation(images=[picture(0)]), pivot.ArgumentError, "list"),
    "a camera's name is no text": (observation(images={3: picture(0)}), pivot.ArgumentError, "int"),
    "another's camera": (observation(images={"cam_high": picture(0)}), pivot.ArgumentError, "'cam_high'"),
    "float picture": (observation(images={BASE: np.zeros((8, 8, 3))}), pivot.ShapeError, r"float64 of shape \(8, 8, 3\)"),
    "channels first": (observation(images={BASE: np.zeros((3, 8, 8), np.uint8)}), pivot.ShapeError, r"\(3, 8, 8\)"),
    "grey": (observation(images={BASE: np.zeros((8, 8), np.uint8)}), pivot.ShapeError, BASE),
    "with alpha": (observation(images={BASE: np.zeros((8, 8, 4), np.uint8)}), pivot.ShapeError, r"\(8, 8, 4\)"),
    "batch of pictures": (observation(images={BASE: picture(0)[None]}), pivot.ShapeError, r"\(1, 48, 64, 3\)"),
    "picture of nothing": (observation(images={BASE: np.zeros((0, 8, 3), np.uint8)}), pivot.ShapeError, "8 x 0"),
    "picture too large": (observation(images={BASE: np.zeros((1, 8193, 3), np.uint8)}), pivot.ShapeError, "8193"),
    "picture is a file's name": (observation(images={BASE: "front.png"}), pivot.ShapeError, BASE),
    "picture is None": (observation(images={BASE: None}), pivot.ShapeError, BASE),
    "ragged": (observation(images={BASE: [[1, 2], [3]]}), pivot.ShapeError, BASE),
    "neither words nor tokens": (observation(tokens=None), pivot.ArgumentError, "prompt"),
    "words and tokens": (observation(prompt="x"), pivot.ArgumentError, "exclude"),
    "prompt of bytes": (observation(tokens=None, prompt=b"x"), pivot.ArgumentError, "bytes"),
    "prompt with NUL": (observation(tokens=None, prompt="open\0it"), pivot.ArgumentError, "NUL character, at byte 4"),
    "prompt with half a character": (observation(tokens=None, prompt="\ud800"), pivot.ArgumentError, "Unicode"),
    "no tokens": (observation(tokens=[]), pivot.ArgumentError, "came 0"),
    "too many tokens": (observation(tokens=[2] * 24), pivot.ArgumentError, "came 24"),
    "unknown token": (observation(tokens=[2, 503]), pivot.ArgumentError, "503"),
    "token below 0": (observation(tokens=[2, -1]), pivot.ArgumentError, "-1"),
    "token beyond 32 bits": (observation(tokens=[2**32 + 2]), pivot.ArgumentError, str(2**32 + 2)),
    "half a token": (observation(tokens=[1.5]), pivot.ShapeError, "float64"),
    "tokens by tokens": (observation(tokens=[[2, 5]]), pivot.ShapeError, r"\(1, 2\)"),
    "state of words": (observation(state=["1", "2"]), pivot.ShapeError, "state"),
    "state of truths": (observation(state=[True, False]), pivot.ShapeError, "bool"),
    "complex state": (observation(state=[1j]), pivot.ShapeError, "complex"),
    "scalar state": (observation(state=1.0), pivot.ShapeError, r"shape \(\)"),
    "state of a batch": (observation(state=[[1.0, 2.0]]), pivot.ShapeError, r"\(1, 2\)"),
    "state too long": (observation(state=[0.0] * 33), pivot.ShapeError, "33"),
    "NaN in the state": (observation(state=[0.0, np.nan]), pivot.NotFiniteError, "number 1"),
    "infinity in the state": (observation(state=[-np.inf]), pivot.NotFiniteError, "number 0"),
    "noise of another shape": (observation(noise=FINE[:9]), pivot.ShapeError, r"\[10, 32\].*\(9, 32\)"),
    "noise of two": (observation(noise=np.stack([FINE, FINE])), pivot.ShapeError, r"\(2, 10, 32\)"),
    "noise of whole numbers": (observation(noise=FINE.astype(int)), pivot.ShapeError, "int64"),
    "NaN in the noise": (observation(noise=spoilt(np.nan)), pivot.NotFiniteError, "element 100"),
    "noise beyond float32": (observation(noise=spoilt(0).astype(float) + 1e300), pivot.NotFiniteError, "noise"),
}


@pytest.mark.parametrize("name", OBSERVATIONS)
@pytest.mark.filterwarnings("error")
def test_observation(policy, name):
    seen, kind, words = OBSERVATIONS[name]
    before = policy.infer(observation(), seed=1)["actions"].tobytes()
    with pytest.raises(kind, match=words) as raised:
        policy.infer(seen)
    assert type(raised.value) is kind
    assert policy.infer(observation(), seed=1)["actions"].tobytes() == before


HOW = {
    "steps below 0": ({"steps": -1}, pivot.ArgumentError, "came -1"),
    "too many steps": ({"steps": 2**31 - 1}, pivot.ArgumentError, str(2**31 - 1)),
    "steps beyond an int": ({"steps": 2**32 + 5}, pivot.ArgumentError, str(2**32 + 5)),
    "half a step": ({"steps": 1.5}, pivot.ArgumentError, "1.5"),
    "unknown schedule": ({"schedule": "cosin"}, pivot.ArgumentError, "'cosin'"),
    "schedule and times": ({"schedule": "cosine", "timesteps": [1, 0]}, pivot.ArgumentError, "exclude"),
    "times that rise": ({"timesteps": [0.0, 1.0]}, pivot.ArgumentError, "timestep"),
    "a single time": ({"timesteps": [1.0]}, pivot.ShapeError, r"\(1,\)"),
    "times and other steps": ({"timesteps": [1, 0.5, 0], "steps": 3}, pivot.ArgumentError, "3 times"),
    "seed below 0": ({"seed": -1}, pivot.ArgumentError, "seed"),
    "seed too large": ({"seed": 2**64}, pivot.ArgumentError, "seed"),
    "seed and noise": ({"seed": 1, "noise": FINE}, pivot.ArgumentError, "exclude"),
}


@pytest.mark.parametrize("name", HOW)
def test_how(policy, name):
    how, kind, words = HOW[name]
    with pytest.raises(kind, match=words):
        policy.infer(observation(), **how)


def test_noise_twice(policy):
    with pytest.raises(pivot.ArgumentError, match="twice"):
        policy.infer(observation(noise=FINE), noise=FINE)


LOADING = {
    "no such folder": (("/nowhere/at/all",), {}, pivot.FileError, "/nowhere/at/all"),
    "empty file": (("/dev/null",), {}, pivot.Error, "/dev/null"),
    "path with NUL": (("a\0b",), {}, pivot.ArgumentError, "NUL"),
    "path of a number": ((3,), {}, pivot.ArgumentError, "int"),
    "no such backend": (("synth:tiny", "tpu"), {}, pivot.UnavailableError, "tpu"),
    "no such device": (("synth:tiny", "cpu"), {"device": "7"}, pivot.UnavailableError, "7"),
    "no such recipe": (("synth:tiny", "cpu", "f64"), {}, pivot.Error, "f64"),
    "steps": (("synth:tiny", "cpu", None, -1), {}, pivot.ArgumentError, "-1"),
    "threads": (("synth:tiny", "cpu"), {"threads": 2**32}, pivot.ArgumentError, "threads"),
    "tokenizer": (("synth:tiny", "cpu"), {"tokenizer": "/nowhere/t.model"}, pivot.FileError, "/nowhere/t.model"),
    "statistics": (("synth:tiny", "cpu"), {"norm_stats": "/nowhere/n.json"}, pivot.FileError, "/nowhere/n.json"),
}


@pytest.mark.parametrize("name", LOADING)
def test_loading(name):
    arguments, options, kind, words = LOADING[name]
    with pytest.raises(kind, match=words) as raised:
        pivot.load(*arguments, **options)
    assert raised.value.status.startswith("E_")


def test_classes():
    """Python's own classes where they fit, so that callers who know nothing of this package can catch them."""
    assert issubclass(pivot.ShapeError, ValueError) and issubclass(pivot.OutOfMemoryError, MemoryError)
    assert all(issubclass(getattr(pivot, name), pivot.Error) for name in pivot.__all__ if name.endswith("Error"))
