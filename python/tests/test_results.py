"""What comes out: the program's bytes for the same inputs, and no others for the same inputs said differently."""

import json
import struct
import subprocess
import time
import zlib

import numpy as np
import pytest

import pivot
from conftest import CAMERAS, observation, picture


def infer(policy, seen, **how):
    return policy.infer(seen, **how)["actions"]


# ---- as `pivot run` ----


def write_png(path, pixels):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def write_noise(path, noise):
    head = {"noise": {"dtype": "F32", "shape": list(noise.shape), "data_offsets": [0, noise.nbytes]}}
    text = json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + noise.tobytes())


def of_program(program, *arguments):
    said = subprocess.run(
        [program, "run", "--backend", "cpu", "--json", *map(str, arguments)], check=True, capture_output=True
    )
    return np.array(json.loads(said.stdout)["actions"], np.float32)  # printed so that every bit comes back


@pytest.mark.parametrize("recipe", ["f32", "bf16"])
def test_as_the_program(program, tmp_path, recipe):
    pictures = {CAMERAS[0]: picture(1, 90, 160), CAMERAS[2]: picture(2, 33, 21)}
    noise = np.random.default_rng(3).standard_normal((10, 32)).astype(np.float32)
    arguments = ["--model", "synth:tiny", "--recipe", recipe, "--noise", tmp_path / "noise.safetensors", "--steps", 4]
    write_noise(tmp_path / "noise.safetensors", noise)
    for camera, pixels in pictures.items():
        write_png(tmp_path / f"{camera}.png", pixels)
        arguments += ["--image", f"{camera}={tmp_path / camera}.png"]
    expected = of_program(program, *arguments, "--tokens", "2,17,300", "--schedule", "cosine")
    with pivot.load("synth:tiny", backend="cpu", recipe=recipe, steps=4, schedule="cosine") as policy:
        actions = infer(policy, {"images": pictures, "tokens": [2, 17, 300], "noise": noise})
    assert actions.dtype == np.float64 and actions.shape == (10, 7)
    assert actions.astype(np.float32).tobytes() == expected.tobytes()


def test_words_and_state_as_the_program(program, tmp_path, policy):
    """A folder, a state that is told in the prompt, and noise drawn from a seed."""
    if not policy.info.has_tokenizer:
        pytest.skip("built without SentencePiece")
    subprocess.run([program, "synth", "tiny", "--out", tmp_path / "tiny"], check=True, capture_output=True)
    state = [0.05, -0.02, 0.9]
    write_png(tmp_path / "front.png", picture(4))
    expected = of_program(
        program, "--model", tmp_path / "tiny", "--discrete-state", "on", "--allow-truncation", "--seed", 2**64 - 1,
        "--image", f"{CAMERAS[0]}={tmp_path / 'front.png'}", "--prompt", "open it", "--state", ",".join(map(str, state)),
    )  # fmt: skip
    with pivot.load(tmp_path / "tiny", "cpu", discrete_state=True, allow_truncation=True) as told:
        assert told.info.discrete_state
        seen = {"images": {CAMERAS[0]: picture(4)}, "prompt": "open it", "state": state}
        actions = infer(told, seen, seed=2**64 - 1)
    assert actions.astype(np.float32).tobytes() == expected.tobytes()


# ---- the same said differently ----


def test_layouts_of_a_picture(policy):
    """Views are read where they are or copied; the pixels are the same."""
    large = picture(5, 100, 200)
    plain = np.ascontiguousarray(large[10:58, 20:84])
    views = {
        "rows apart": large[10:58, 20:84],
        "upside down twice": plain[::-1].copy()[::-1],
        "channels first in memory": np.ascontiguousarray(plain.transpose(2, 0, 1)).transpose(1, 2, 0),
        "every second pixel": np.repeat(plain, 2, axis=1)[:, ::2],
        "Fortran": np.asfortranarray(plain),
        "read only": np.frombuffer(plain.tobytes(), np.uint8).reshape(plain.shape),
    }
    expected = infer(policy, observation(images={CAMERAS[0]: plain}), seed=1)
    other = infer(policy, observation(images={CAMERAS[0]: plain[::-1]}), seed=1)
    assert other.tobytes() != expected.tobytes()
    for name, view in views.items():
        assert np.array_equal(view, plain), name
        assert infer(policy, observation(images={CAMERAS[0]: view}), seed=1).tobytes() == expected.tobytes(), name


@pytest.mark.parametrize("shape", [(1, 9, 3), (9, 1, 3), (1, 1, 3)])
def test_thin_pictures(policy, shape):
    """Where a side is 1, numpy's strides mean nothing."""
    thin = picture(6, *shape[:2])
    wide = np.zeros((shape[0], 4 * shape[1], 3), np.uint8)
    wide[:, : shape[1]] = thin
    expected = infer(policy, observation(images={CAMERAS[0]: thin}), seed=1)
    view = infer(policy, observation(images={CAMERAS[0]: wide[:, : shape[1]]}), seed=1)
    strange = np.lib.stride_tricks.as_strided(thin, shape, tuple(7 if n == 1 else s for n, s in zip(shape, thin.strides)))
    assert view.tobytes() == expected.tobytes()
    assert infer(policy, observation(images={CAMERAS[0]: strange}), seed=1).tobytes() == expected.tobytes()


def test_types_of_numbers(policy):
    told = {"state": np.array([0.5, 0.25], np.float64), "tokens": np.array([2, 5, 7], np.int32)}
    noise = np.random.default_rng(7).standard_normal((10, 32)).astype(np.float32)
    expected = infer(policy, observation(**told, noise=noise))
    same = [
        observation(state=[0.5, 0.25], tokens=(2, 5, 7), noise=noise[None]),
        observation(state=np.array([0.5, 9, 0.25, 9], np.float32)[::2], tokens=np.array([2, 5, 7], np.uint8), noise=noise),
        observation(**told, noise=np.asfortranarray(noise.astype(np.float64))),
    ]
    for seen in same:
        assert infer(policy, seen).tobytes() == expected.tobytes()
    assert infer(policy, observation(**told), noise=noise).tobytes() == expected.tobytes()


def test_inputs_are_left_alone(policy):
    seen = observation(noise=np.ones((10, 32), np.float32), state=np.ones(2))
    before = [seen["images"][CAMERAS[0]].copy(), seen["noise"].copy(), seen["state"].copy()]
    infer(policy, seen)
    for array, was in zip([seen["images"][CAMERAS[0]], seen["noise"], seen["state"]], before):
        assert array.tobytes() == was.tobytes()
    assert set(seen) == {"images", "tokens", "noise", "state"}


# ---- noise ----


def test_noise_of_one_inference_after_the_other(policy):
    """The n-th draws from seed + n; a failure is not one of them; reset begins anew; twins begin by themselves."""
    chunks = [infer(policy, observation(), seed=n).tobytes() for n in range(3)]
    assert len(set(chunks)) == 3
    policy.reset()
    with pytest.raises(pivot.ArgumentError):
        policy.infer(observation(tokens=[]))
    assert [infer(policy, observation()).tobytes() for _ in range(2)] == chunks[:2]
    with policy.twin() as twin:
        assert infer(twin, observation()).tobytes() == chunks[0]
    assert infer(policy, observation()).tobytes() == chunks[2]
    policy.reset()
    assert infer(policy, observation()).tobytes() == chunks[0]
    with pivot.load("synth:tiny", "cpu", seed=2) as other:
        assert infer(other, observation()).tobytes() == chunks[2]


# ---- the rest of the answer ----


def test_answer(policy):
    result = policy.infer(observation(tokens=[2, 5, 7, 9]), steps=3)
    assert set(result) == {"actions", "policy_timing", "timing"}
    timing = result["timing"]
    assert timing["steps"] == 3 and timing["prompt_tokens"] == 4 and timing["truncated"] is False
    assert timing["total_ms"] > 0 and result["policy_timing"] == {"infer_ms": timing["total_ms"]}
    assert policy.infer(observation())["timing"]["steps"] == 10
    assert policy.infer(observation())["timing"]["observation"] == 3
    seen = policy.infer(observation(), id=2**64 - 1, seen_at=time.monotonic() - 5)["timing"]
    assert seen["observation"] == 2**64 - 1 and 5000 + seen["total_ms"] <= seen["age_ms"] < 65000
    assert 0 < timing["total_ms"] <= timing["age_ms"] < timing["total_ms"] + 1000
    times = np.linspace(1, 0, 6)
    assert policy.infer(observation(), timesteps=times)["timing"]["steps"] == 5


def test_schedules(policy):
    openpi = infer(policy, observation(), seed=1)
    cosine = infer(policy, observation(), seed=1, schedule="cosine")
    linear = infer(policy, observation(), seed=1, schedule="linear")
    assert openpi.tobytes() != cosine.tobytes()
    given = infer(policy, observation(), seed=1, timesteps=np.linspace(1, 0, 11, dtype=np.float32))
    assert np.allclose(given, linear, atol=1e-4)


def test_without_statistics(program, tmp_path):
    """float32, in model units."""
    subprocess.run([program, "synth", "tiny", "--out", tmp_path / "tiny"], check=True, capture_output=True)
    (tmp_path / "tiny" / "assets" / "synthetic" / "norm_stats.json").unlink()
    with pivot.load(tmp_path / "tiny", backend="cpu") as policy:
        assert not policy.info.has_stats
        actions = infer(policy, observation())
    assert actions.dtype == np.float32 and actions.shape == (10, 32)


def test_what_it_is(policy):
    assert policy.device.backend == "cpu" and policy.device.memory_bytes > 0
    assert policy.info.cameras == CAMERAS and policy.info.layout == "synthetic"
    assert policy.memory()["weights_bytes"] > 0 and policy.memory()["plans"] >= 1
    assert policy.metadata == {}
    with pivot.load("synth:tiny", "cpu", metadata={"reset_pose": [0, -1.5]}) as other:
        assert other.metadata == {"reset_pose": [0, -1.5]}
    assert "cpu" in pivot.backends() and pivot.devices("cpu")[0].backend == "cpu"
    assert [d for d in pivot.devices() if d.backend == "cpu"] == pivot.devices("cpu")


def test_auto():
    """CUDA where it has a device, else the CPU, and it can be asked."""
    try:
        expected = "cuda" if pivot.devices("cuda") else "cpu"
    except pivot.UnavailableError:
        expected = "cpu"
    with pivot.load("synth:tiny") as policy:
        assert policy.device.backend == expected
