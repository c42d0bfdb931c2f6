"""Recordings: what they hold, that the program runs them to the same bytes, and that they never cost an answer."""

import json
import struct
import subprocess

import numpy as np
import pytest

import pivot
from conftest import CAMERAS, observation, picture

KINDS = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}


def read(path):
    raw = path.read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8 : 8 + n]), raw[8 + n :]
    words = header.pop("__metadata__")
    arrays = {k: np.frombuffer(data[slice(*t["data_offsets"])], KINDS[t["dtype"]]) for k, t in header.items()}
    return words, {k: a.reshape(header[k]["shape"]) for k, a in arrays.items()}


def replayed(program, folder):
    said = subprocess.run([program, "replay", folder, "--json"], capture_output=True, text=True)
    return said.returncode, json.loads(said.stdout)


def test_plain(program, tmp_path):
    wide = picture(1, 30, 50)[:, 5:45]  # rows that are apart
    with pivot.load("synth:tiny", "cpu", record=tmp_path / "r", steps=4, schedule="cosine") as policy:
        chunks = [policy.infer(observation(images={CAMERAS[1]: wide}, state=[0.5, 1]), id=9)["actions"]]
        chunks.append(policy.infer(observation(), timesteps=[1, 0.3, 0])["actions"])
        with policy.twin() as other:
            chunks.append(other.infer(observation(), seed=3)["actions"])
        done = policy.recordings(wait=20)
    files = sorted((tmp_path / "r").iterdir())
    assert done["written"] == 3 == len(files) and done["waiting"] == 0 and done["error"] == ""
    assert done["bytes"] == sum(f.stat().st_size for f in files)
    for file, chunk in zip(files, chunks):
        assert read(file)[1]["actions"].tobytes() == chunk.tobytes()
    words, arrays = read(files[0])
    assert words["observation"] == "9" and words["schedule"] == "cosine" and words["source"] == "Python"
    assert (arrays[f"observation.images/{CAMERAS[1]}"] == wide).all() and list(arrays["observation.state"]) == [0.5, 1]
    code, said = replayed(program, tmp_path / "r")
    assert code == 0 and said["same_bytes"] == 3, said


def test_robot(program, tmp_path):
    seen = {
        "observation/image": picture(1),
        "observation/wrist_image": picture(2),
        "observation/state": np.linspace(-1, 1, 8, dtype=np.float32),
        "prompt": "put it down",
        "more": {"count": 3},
    }
    with pivot.load("synth:tiny", "cpu", robot="libero", record=tmp_path) as policy:
        if not policy.info.has_tokenizer:
            pytest.skip("built without SentencePiece")
        actions = policy.infer(seen)["actions"]
    (file,) = tmp_path.iterdir()  # closing waited for it
    words, arrays = read(file)
    assert arrays["actions"].tobytes() == actions.tobytes() and words["robot_name"] == "libero"
    assert arrays["observation.observation/state"].dtype == np.float32 and arrays["observation.more/count"] == 3
    assert arrays["text.prompt"].tobytes() == b"put it down"
    code, said = replayed(program, tmp_path)
    assert code == 0 and said["same_bytes"] == 1, said


def test_full_folder(tmp_path):
    with pivot.load("synth:tiny", "cpu", record=tmp_path, record_limit=1) as policy:
        assert policy.infer(observation())["actions"].shape == (10, 7)
        done = policy.recordings(wait=20)
    assert done["written"] == 0 and done["dropped_limit"] == 1 and not list(tmp_path.iterdir())


def test_none_and_refused(tmp_path, policy):
    assert policy.recordings() is None
    with pytest.raises(pivot.FileError, match="no/where"):
        pivot.load("synth:tiny", "cpu", record=tmp_path / "no/where")
    with pytest.raises(pivot.ArgumentError, match="record_limit"):
        pivot.load("synth:tiny", "cpu", record=tmp_path, record_limit=-1)
