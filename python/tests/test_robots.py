"""Robots' own observations: what comes out is what the plain observation gives, said in the robot's words."""

import json
import subprocess

import numpy as np
import pytest

import pivot
from conftest import CAMERAS, picture, resident

STATE = np.array([0.05, -0.02, 0.9, 3.1, 0.1, -0.1, 0.025, -0.025])
TASK = "open it"


@pytest.fixture
def libero():
    with pivot.load("synth:tiny", "cpu", robot="libero") as policy:
        if not policy.info.has_tokenizer:
            pytest.skip("built without SentencePiece")
        yield policy


def seen(**other):
    whole = {
        "observation/image": picture(1, 90, 90),
        "observation/wrist_image": picture(2, 90, 90),
        "observation/state": STATE,
        "prompt": TASK,
        **other,
    }
    return {key: value for key, value in whole.items() if value is not None}


def actions(policy, observation):
    return policy.infer(observation, seed=5)["actions"]


def test_there_are():
    assert {"libero", "droid", "aloha"} <= set(pivot.robots())


def test_what_it_is(libero, policy):
    info = libero.robot
    assert policy.robot is None
    assert info.name == "libero" and info.action_dim == 7 and info.state_dim == 8 and not info.delta
    assert info.cameras["base_0_rgb"] == "observation/image"
    assert info.cameras["left_wrist_0_rgb"] == "observation/wrist_image"
    assert sum(info.state.values()) == 8 and list(info.state) == ["observation/state"]
    assert info.prompt_key == "prompt" and json.loads(info.json)


def test_as_the_plain_one(libero, policy):
    """LIBERO converts nothing: the same bytes."""
    plain = {
        "images": {CAMERAS[0]: picture(1, 90, 90), CAMERAS[1]: picture(2, 90, 90)},
        "state": STATE,
        "prompt": TASK,
    }
    result = libero.infer(seen(), seed=5)
    assert set(result) == {"actions", "policy_timing", "timing"}
    assert result["actions"].dtype == np.float64 and result["actions"].shape == (10, 7)
    assert 0 < result["timing"]["robot_ms"] < 1000 and "robot_ms" not in policy.infer(plain)["timing"]
    assert result["actions"].tobytes() == actions(policy, plain).tobytes()


def test_the_same_said_differently(libero):
    expected = actions(libero, seen()).tobytes()
    nested = {
        "observation": {"image": picture(1, 90, 90), "wrist_image": picture(2, 90, 90), "state": STATE.tolist()},
        "prompt": TASK,
    }
    same = [
        nested,
        seen(prompt=np.array(TASK)),
        seen(prompt=TASK.encode()),
        seen(**{"observation/image": np.asfortranarray(picture(1, 90, 90))}),
        seen(**{"observation/state": STATE.astype(">f8")}),
        seen(**{"observation/state": np.repeat(STATE, 2)[::2]}),
        seen(extra=["words", "of", "the client"], more=object(), nothing=None),
    ]
    for other in same:
        assert actions(libero, other).tobytes() == expected, other


WRONG = {
    "no picture": (seen(**{"observation/image": None}), "observation/image"),
    "no state": (seen(**{"observation/state": None}), "observation/state"),
    "picture of words": (seen(**{"observation/image": ["a", "b"]}), "observation/image"),
    "flat picture": (seen(**{"observation/image": np.zeros((4, 4), np.uint8)}), "observation/image"),
    "short state": (seen(**{"observation/state": STATE[:7]}), "observation/state"),
    "NaN": (seen(**{"observation/state": np.where(STATE > 3, np.nan, STATE)}), "observation/state"),
    "complex": (seen(**{"observation/state": STATE + 1j}), "observation/state"),
    "five dimensions": (seen(**{"observation/image": np.zeros((1, 1, 1, 4, 3), np.uint8)}), "observation/image"),
    "prompt of half a character": (seen(prompt="\ud800"), "prompt"),
    "two prompts": (seen(prompt=["open it", "shut it"]), "prompt: expected numbers or a text, came <U7"),
    "a number for a prompt": (seen(prompt=3), "prompt"),
    "a key of a number": (seen(inner={3: 1}), "3"),
    "not a dict": ([1], "list"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong(libero, name):
    """Refused with the key; the policy goes on."""
    observation, words = WRONG[name]
    with pytest.raises(pivot.Error, match=words) as raised:
        libero.infer(observation)
    assert isinstance(raised.value, ValueError)
    assert actions(libero, seen()).shape == (10, 7)


def test_twins_and_noise(libero):
    noise = np.random.default_rng(1).standard_normal((10, 32)).astype(np.float32)
    expected = libero.infer(seen(), noise=noise)["actions"].tobytes()
    with libero.twin() as twin:
        libero.close()
        assert twin.robot == libero.robot
        assert twin.infer(seen(), noise=noise[None])["actions"].tobytes() == expected
        twin.reset()


@pytest.mark.parametrize("name", ["nobody", "/nowhere/robot.json", "a\0b"])
def test_unknown(name):
    with pytest.raises(pivot.Error):
        pivot.load("synth:tiny", "cpu", robot=name)


def test_own_description(libero, tmp_path):
    """What a robot says of itself is a file that makes it."""
    (tmp_path / "mine.json").write_text(libero.robot.json)
    with pivot.load("synth:tiny", "cpu", robot=tmp_path / "mine.json") as mine:
        assert actions(mine, seen()).tobytes() == actions(libero, seen()).tobytes()


def test_numbers_without_dimensions(libero):
    """DROID's gripper: a number, an array of none or of one dimension."""
    droid = {
        "observation/exterior_image_1_left": picture(1),
        "observation/wrist_image_left": picture(2),
        "observation/joint_position": np.linspace(-1, 1, 7),
        "prompt": TASK,
    }
    with pivot.load("synth:tiny", "cpu", robot="droid") as policy:
        chunks = {
            actions(policy, {**droid, "observation/gripper_position": gripper}).tobytes()
            for gripper in (0.25, np.float32(0.25), np.array(0.25), [0.25], np.array([0.25], np.float16))
        }
        assert len(chunks) == 1 and actions(policy, {**droid, "observation/gripper_position": 0}).shape == (10, 8)


@pytest.mark.parametrize("name", pivot.robots())
def test_any_robot_tries_a_synthetic_model(libero, name):
    with pivot.load("synth:tiny", "cpu", robot=name) as policy:
        info = policy.robot
        one = {key: np.zeros(n) for key, n in info.state.items()}
        one |= {key: picture(1).transpose(2, 0, 1) for key in info.cameras.values() if key}
        if name != "aloha":
            one |= {key: picture(1) for key in info.cameras.values() if key}
        assert policy.info.action_dim == info.action_dim and policy.info.state_dim == info.state_dim
        assert policy.infer({**one, info.prompt_key: TASK}, seed=1)["actions"].shape == (10, info.action_dim)


def test_does_not_fit(libero, tmp_path):
    """Known when it is loaded: another robot's statistics, another model's cameras."""
    with pytest.raises(pivot.ShapeError, match="'droid' has 8 actions.* 7"):
        pivot.load("synth:tiny", "cpu", robot="droid", asset_id="8x7")
    mine = json.loads(libero.robot.json)
    mine["cameras"][0]["slot"] = "belly"
    (tmp_path / "mine.json").write_text(json.dumps(mine))
    with pytest.raises(pivot.ArgumentError, match="'belly'"):
        pivot.load("synth:tiny", "cpu", robot=tmp_path / "mine.json")


def test_memory_returns():
    """What was seen goes with the policy: 1.8 MB each time."""
    large = seen(**{"observation/image": picture(1, 480, 640), "observation/wrist_image": picture(2, 480, 640)})

    def one():
        with pivot.load("synth:tiny", "cpu", robot="libero", threads=1) as policy:
            try:
                policy.infer(large)
            except pivot.ArgumentError:  # built without SentencePiece: it was seen before that was found out
                pass

    for _ in range(10):
        one()
    before = resident()
    for _ in range(50):
        one()
    assert resident() - before < 24 << 20


def test_of_lerobot(program, tmp_path):
    """A folder of lerobot is its own robot."""
    folder = tmp_path / "made"
    subprocess.run([program, "synth", "tiny", "--layout", "lerobot", "--out", folder], check=True, capture_output=True)
    with pivot.load(folder, "cpu", robot=folder) as policy:
        if not policy.info.has_tokenizer:
            pytest.skip("built without SentencePiece")
        info = policy.robot
        assert info.cameras["base_0_rgb"] == "observation.images.base_0_rgb" and info.prompt_key == "task"
        seen_there = {"observation.images.base_0_rgb": picture(1), "observation.state": STATE.astype(np.float32), "task": TASK}
        result = policy.infer(seen_there, seed=5)["actions"]
        assert result.shape == (10, 7) and np.array_equal(result, result.astype(np.float32))
        with pytest.raises(pivot.ArgumentError, match="observation.images.bas"):
            policy.infer({**seen_there, "observation.images.bas": picture(2)})
