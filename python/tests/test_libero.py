"""examples/libero/evaluate.py: its figures by hand, its bookkeeping with a client that speaks and logs as openpi's does, around an
environment of a few lines."""

import importlib.util
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from conftest import SOURCE

pytest.importorskip("msgpack")
pytest.importorskip("websockets.sync.server")

SCRIPT = SOURCE / "examples" / "libero" / "evaluate.py"
spec = importlib.util.spec_from_file_location("evaluate", SCRIPT)
evaluate = importlib.util.module_from_spec(spec)
sys.modules["evaluate"] = evaluate  # where dataclasses look for it
spec.loader.exec_module(evaluate)

# Two tasks of three episodes. Episode k of task t takes k + 2 chunks and is a success unless k = t + 1. Logs as main.py does,
# with tqdm's bar before some lines; the request of an episode follows at once on the line that ended the one before.
CLIENT = """
import json, logging, sys
import msgpack, numpy as np
from websockets.sync.client import connect

port, notes, trouble = sys.argv[1:]
logging.basicConfig(level=logging.INFO)

def encode(x):
    return {b"__ndarray__": True, b"data": x.tobytes(), b"dtype": x.dtype.str, b"shape": x.shape}

def infer(ws, seen):
    ws.send(msgpack.packb(seen, default=encode))
    reply = ws.recv()
    if isinstance(reply, str):
        raise RuntimeError(reply)
    actions = msgpack.unpackb(reply)["actions"]
    return np.frombuffer(actions[b"data"], actions[b"dtype"]).reshape(actions[b"shape"])

random, moved, episodes = np.random.default_rng(0), [], 0
with connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None) as ws:
    assert msgpack.unpackb(ws.recv()) == {}
    for task in range(2):
        for k in range(3):
            logging.info(f"\\nTask: task number {task}")
            logging.info(f"Starting episode {k + 1}...")
            plan, here = [], np.zeros(3)
            for _ in range(k + 2):
                seen = {"observation/image": random.integers(0, 256, (32, 32, 3), np.uint8),
                        "observation/wrist_image": random.integers(0, 256, (32, 32, 3), np.uint8),
                        "observation/state": np.concatenate([here, np.zeros(5)]), "prompt": f"task {task}"}
                if trouble == "refused" and (task, k) == (1, 2):
                    del seen["observation/state"]
                try:
                    plan.append(infer(ws, seen)[:5])
                except Exception as e:
                    logging.error(f"Caught exception: {e}")
                    break
                here = here + plan[-1][:, :3].sum(0)
            done = k != task + 1
            moved.append(np.concatenate(plan[:-1]).tolist() if len(plan) > 1 else [])
            episodes += 1
            sys.stderr.write(f"\\r 33%|###   | {k}/3 [00:00<?, ?it/s]")
            logging.info(f"Success: {done}")
            logging.info(f"# successes: {episodes} (0.0%)")
            if trouble == "dies" and episodes == 4:
                sys.exit(5)
logging.info(f"Total episodes: {episodes}")
json.dump(moved, open(notes, "w"))
"""


def run(program, tmp_path, trouble="none", *more):
    client = tmp_path / "client.py"
    client.write_text(CLIENT)
    notes = tmp_path / "notes.json"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--pivot", program, "--serve", "--model synth:tiny --threads 1", "--out", tmp_path / "out",
         "--client", f"{sys.executable} {client} {{port}} {notes} {trouble}", *more],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done, notes


def test_bookkeeping(program, tmp_path, policy):
    if not policy.info.has_tokenizer:
        pytest.skip("built without SentencePiece")
    done, notes = run(program, tmp_path, "none", "--schedules", "openpi,cosine", "--steps", "4,2")
    assert done.returncode == 0, done
    told = json.loads((tmp_path / "out" / "results.json").read_text())
    assert told["schema"] == "pivot.libero/1"
    assert [(s["schedule"], s["steps"]) for s in told["settings"]] == [(n, k) for n in ("openpi", "cosine") for k in (4, 2)]
    for setting in told["settings"]:
        assert (setting["successes"], setting["episodes"], setting["inferences"]) == (4, 6, 18)
        assert setting["success_rate"] == 4 / 6 and setting["wilson_95"] == list(evaluate.wilson(4, 6))
        assert setting["tasks"] == {f"task number {t}": {"successes": 2, "episodes": 3} for t in range(2)}
        assert setting["wrong"] == [] and setting["infer_ms_median"] > 0
    assert len({s["mean_squared_jerk"]["position"]["mean"] for s in told["settings"]}) == 4  # they do differ
    jerks = []  # of the last setting, from what the client says it did
    for actions in json.loads(notes.read_text()):
        a = np.array(actions)[:, 3:6]
        jerk = [(a[i + 2] - 2 * a[i + 1] + a[i]) * 400 for i in range(len(a) - 2)]
        jerks.append(np.mean([j @ j for j in jerk]))
    came = told["settings"][-1]["mean_squared_jerk"]["rotation"]
    assert math.isclose(came["mean"], np.mean(jerks), rel_tol=1e-9)
    assert math.isclose(came["standard_error"], np.std(jerks, ddof=1) / math.sqrt(6), rel_tol=1e-9)
    assert (tmp_path / "out" / "results.md").read_text().count("66.7 % (4/6) | 30.0 to 90.3") == 4
    assert b"Success: True" in (tmp_path / "out" / "cosine-2.client.log").read_bytes()


def test_trouble(program, tmp_path, policy):
    if not policy.info.has_tokenizer:
        pytest.skip("built without SentencePiece")
    how = ("--schedules", "linear", "--steps", "1")
    done, _ = run(program, tmp_path, "refused", *how)
    (setting,) = json.loads((tmp_path / "out" / "results.json").read_text())["settings"]
    assert done.returncode == 1 and "observation/state" in setting["errors"][0]
    assert (setting["episodes"], setting["successes"], setting["episodes_with_exceptions"]) == (5, 4, 1)
    assert "1 episodes had exceptions" in done.stdout and "1 errors of the server" in done.stdout
    done, _ = run(program, tmp_path, "dies", *how)
    (setting,) = json.loads((tmp_path / "out" / "results.json").read_text())["settings"]
    assert done.returncode == 1 and setting["episodes"] == 4 and setting["wrong"] == ["the client ended with 5"]
    done, _ = run(program, tmp_path, "none", "--serve", "--model nothing")
    assert done.returncode == 1 and "nothing: no such folder" in done.stderr
    done, _ = run(program, tmp_path, "none", "--client", "true")
    assert done.returncode == 2 and "{port}" in done.stderr


def test_wilson():
    """Against the interval's own definition: its ends are the rates from which the one seen is z deviations away."""
    for successes, n in [(0, 10), (3, 10), (10, 10), (431, 500)]:
        low, high = evaluate.wilson(successes, n)
        for end in (low, high):
            if 1e-9 < end < 1 - 1e-9:
                assert math.isclose(abs(successes / n - end) / math.sqrt(end * (1 - end) / n), 1.959963984540054, rel_tol=1e-9)
        assert low <= successes / n <= high
    assert evaluate.wilson(0, 0) == (0.0, 1.0)


def test_jerk():
    ramp = np.outer(np.arange(9.0), np.ones(7))
    assert evaluate.mean_squared_jerk(ramp, slice(0, 3)) == 0  # steps that grow evenly
    bump = np.zeros((3, 7))
    bump[1, 4] = 1
    assert evaluate.mean_squared_jerk(bump, slice(3, 6)) == (2 * 400.0) ** 2 and evaluate.mean_squared_jerk(bump, slice(0, 3)) == 0
    assert evaluate.mean_squared_jerk(bump[:2], slice(0, 3)) is None
    chunks = [np.full((10, 7), k) for k in range(3)]
    assert evaluate.carried_out(chunks, 4)[:, 0].tolist() == [0] * 4 + [1] * 4
    assert evaluate.carried_out(chunks[:1], 4).shape == (0, 7)
