"""openpi's LIBERO client, as it is, against `pivot serve`: once for each noise schedule and number of steps.

    python examples/libero/evaluate.py --serve "--model pi05_libero_pytorch --tokenizer paligemma_tokenizer.model \
--discrete-state off --backend cuda --recipe bf16" --client "python openpi/examples/libero/main.py --args.host 127.0.0.1 \
--args.port {port}" --schedules openpi,cosine --steps 10,5,3 --out results

For each setting it starts a server, stands between it and the client (messages pass unchanged, actions are noted), and reads
from the client's log which episode was a success. Written are a table and results.json: success rate with Wilson's interval of
95 %, mean squared jerk of the actions carried out, milliseconds of an inference. README.md beside this file says how to read
them. It has not been run with LIBERO or with real weights.

Needs msgpack, numpy and websockets, all of which openpi's client needs as well.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import pathlib
import re
import select
import shlex
import signal
import statistics
import subprocess
import sys
import threading
from typing import Any

import msgpack
import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import serve

CONTROL_HZ = 20  # LIBERO's environments
POSITION, ROTATION = slice(0, 3), slice(3, 6)  # of an action; the seventh number is the gripper


# ---- figures ----


def wilson(successes: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The interval of a binomial rate (Wilson's score, 95 %); (0, 1) without trials."""
    if not n:
        return 0.0, 1.0
    rate, spread = successes / n, z * z / n
    middle = (rate + spread / 2) / (1 + spread)
    half = z * math.sqrt(rate * (1 - rate) / n + spread / (4 * n)) / (1 + spread)
    return middle - half if successes else 0.0, middle + half if successes < n else 1.0  # where rounding would miss them


def carried_out(chunks: list[np.ndarray], replan_steps: int) -> np.ndarray:
    """The actions of an episode, [n, dims], as far as they are known to have run: the client runs replan_steps of a chunk and
    asks for the next; how much of the last one ran nobody says."""
    rows = [chunk[:replan_steps] for chunk in chunks[:-1]]
    return np.concatenate(rows) if rows else np.empty((0, 7))


def mean_squared_jerk(actions: np.ndarray, dims: slice) -> float | None:
    """Actions are steps of the hand, so their second difference is the third of its commanded place. In (actions / s^2)^2."""
    if len(actions) < 3:
        return None
    jerk = np.diff(actions[:, dims], 2, axis=0) * CONTROL_HZ**2
    return float(np.mean(np.sum(jerk**2, axis=1)))


def mean_and_error(values: list[float]) -> tuple[float, float] | None:
    """Mean and its standard error."""
    if not values:
        return None
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return statistics.fmean(values), error


# ---- what happens in a run ----


@dataclasses.dataclass
class Episode:
    task: str = ""
    success: bool = False
    exceptions: int = 0  # the client catches them, and counts the episode as a failure
    chunks: list[np.ndarray] = dataclasses.field(default_factory=list)


class Run:
    """One client at work: episodes as its log tells them, chunks as they pass by."""

    def __init__(self, log: int, copy: pathlib.Path) -> None:
        os.set_blocking(log, False)
        self.log, self.copy = log, copy.open("wb")
        self.rest, self.ended, self.lock = b"", False, threading.Lock()
        self.task, self.now = "", Episode()
        self.episodes: list[Episode] = []
        self.infer_ms: list[float] = []
        self.refused: list[str] = []  # errors of the server
        self.claimed: int | None = None  # how many episodes the client says there were

    def read_log(self) -> None:
        """All that is there by now. Called before each request is passed on: what the client said before it asked comes first."""
        with self.lock:
            while not self.ended:
                try:
                    came = os.read(self.log, 1 << 16)
                except BlockingIOError:
                    return
                self.ended = not came
                self.copy.write(came)
                *lines, self.rest = re.split(rb"[\r\n]", self.rest + came + (b"\n" if self.ended else b""))
                for line in lines:
                    self._line(line.decode("utf-8", "replace"))
            self.copy.flush()

    def _line(self, line: str) -> None:
        """A line of the client's log. tqdm's bar may stand in front of it."""
        if found := re.search(r"\bTask: (.*)", line):
            self.task = found[1]
        elif re.search(r"\bCaught exception: ", line):
            self.now.exceptions += 1
        elif found := re.search(r"\bSuccess: (True|False)\b", line):
            self.now.task, self.now.success = self.task, found[1] == "True"
            self.episodes.append(self.now)
            self.now = Episode()
        elif found := re.search(r"\bTotal episodes: (\d+)", line):
            self.claimed = int(found[1])

    def reply(self, message: bytes | str) -> None:
        if isinstance(message, str):
            self.refused.append(message)
            return
        answer = msgpack.unpackb(message)
        array = answer["actions"]
        chunk = np.frombuffer(array[b"data"], array[b"dtype"]).reshape(array[b"shape"])
        with self.lock:
            self.now.chunks.append(chunk.astype(np.float64))
            self.infer_ms.append(answer["server_timing"]["infer_ms"])


def relay(run: Run, server_port: int):
    """A server on a free port that passes messages between the client and the policy's server, one by one."""
    quiet = {"compression": None, "max_size": None}

    def handle(client) -> None:
        with connect(f"ws://127.0.0.1:{server_port}", ping_interval=None, **quiet) as policy:
            client.send(policy.recv())  # metadata
            while True:
                try:
                    request = client.recv()
                except ConnectionClosed:  # how the client ended its exit code says
                    return
                run.read_log()
                policy.send(request)
                answer = policy.recv()
                run.reply(answer)
                client.send(answer)
                if isinstance(answer, str):
                    client.close(1011, "see the text before")
                    return

    def guarded(client) -> None:
        try:
            handle(client)
        except ConnectionClosed as wrong:
            run.refused.append(f"the connection broke: {wrong}")

    between = serve(guarded, "127.0.0.1", 0, ping_interval=None, **quiet)
    threading.Thread(target=between.serve_forever, daemon=True).start()
    return between, between.socket.getsockname()[1]


# ---- one setting ----


def start_server(command: list[str], log: pathlib.Path) -> tuple[subprocess.Popen[str], int]:
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert process.stdout
    line = process.stdout.readline()
    found = re.search(r"listening on ws://[^ ]*:(\d+):", line)
    if not found:
        process.kill()
        process.wait()
        raise SystemExit(f"{shlex.join(command)}: did not begin to serve:\n{log.read_text()}")
    return process, int(found[1])


def figures(run: Run, replan_steps: int) -> dict[str, Any]:
    """What a run came to. Episodes with an exception are failures for the client; here they are counted apart."""
    whole = [e for e in run.episodes if not e.exceptions]
    successes = sum(e.success for e in whole)
    moved = [carried_out(e.chunks, replan_steps) for e in whole]
    jerks = {
        name: mean_and_error([j for a in moved if (j := mean_squared_jerk(a, dims)) is not None])
        for name, dims in (("position", POSITION), ("rotation", ROTATION))
    }
    tasks: dict[str, list[int]] = {}
    for episode in whole:
        count = tasks.setdefault(episode.task, [0, 0])
        count[0] += episode.success
        count[1] += 1
    return {
        "episodes": len(whole),
        "successes": successes,
        "success_rate": successes / len(whole) if whole else None,
        "wilson_95": wilson(successes, len(whole)),
        "mean_squared_jerk": {k: None if v is None else {"mean": v[0], "standard_error": v[1]} for k, v in jerks.items()},
        "inferences": len(run.infer_ms),
        "infer_ms_median": statistics.median(run.infer_ms) if run.infer_ms else None,
        "tasks": {task: {"successes": s, "episodes": n} for task, (s, n) in tasks.items()},
        "episodes_with_exceptions": len(run.episodes) - len(whole),
        "errors": run.refused,
    }


def evaluate(given: argparse.Namespace, schedule: str, steps: int) -> dict[str, Any]:
    name = f"{schedule}-{steps}"
    command = [given.pivot, "serve", "--robot", "libero", "--host", "127.0.0.1", "--port", "0"]
    command += [*shlex.split(given.serve), "--schedule", schedule, "--steps", str(steps), "--seed", str(given.seed)]
    server, server_port = start_server(command, given.out / f"{name}.server.log")
    reading, writing = os.pipe()
    run = Run(reading, given.out / f"{name}.client.log")
    between, port = relay(run, server_port)
    try:
        client_command = [word.replace("{port}", str(port)) for word in shlex.split(given.client)]
        client = subprocess.Popen(client_command, stdout=writing, stderr=writing)
        os.close(writing)
        while not run.ended:
            select.select([reading], [], [], 1)
            run.read_log()
        code = client.wait()
    finally:
        between.shutdown()
        server.send_signal(signal.SIGTERM)
        server.wait(30)
        run.copy.close()
        os.close(reading)
    result = {"schedule": schedule, "steps": steps, **figures(run, given.replan_steps)}
    wrong = []
    if code:
        wrong.append(f"the client ended with {code}")
    if run.claimed is not None and run.claimed != len(run.episodes):
        wrong.append(f"the client counted {run.claimed} episodes, its log tells of {len(run.episodes)}")
    if result["episodes_with_exceptions"]:
        wrong.append(f"{result['episodes_with_exceptions']} episodes had exceptions and are left out")
    if run.refused:
        wrong.append(f"{len(run.refused)} errors of the server")
    if not run.episodes:
        wrong.append("no episode came to its end")
    return {**result, "serve": shlex.join(command), "client": given.client, "wrong": wrong}


# ---- telling ----


def table(settings: list[dict[str, Any]]) -> str:
    def plus_minus(value: dict[str, Any] | None) -> str:
        return "" if value is None else f"{value['mean']:.3g} ± {value['standard_error']:.2g}"

    lines = [
        "| schedule | steps | success | 95 % | jerk, position | jerk, rotation | inference, ms |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for s in settings:
        rate = "" if s["success_rate"] is None else f"{100 * s['success_rate']:.1f} % ({s['successes']}/{s['episodes']})"
        low, high = s["wilson_95"]
        jerk = s["mean_squared_jerk"]
        ms = "" if s["infer_ms_median"] is None else f"{s['infer_ms_median']:.1f}"
        note = " (!)" if s["wrong"] else ""
        lines.append(
            f"| {s['schedule']}{note} | {s['steps']} | {rate} | {100 * low:.1f} to {100 * high:.1f} "
            f"| {plus_minus(jerk['position'])} | {plus_minus(jerk['rotation'])} | {ms} |"
        )
    for s in settings:
        lines += [f"(!) {s['schedule']}, {s['steps']} steps: {what}" for what in s["wrong"]]
    return "\n".join(lines)


def write(given: argparse.Namespace, settings: list[dict[str, Any]]) -> None:
    """After each setting: a run of hours that is broken off keeps what it has."""
    whole = {"schema": "pivot.libero/1", "replan_steps": given.replan_steps, "control_hz": CONTROL_HZ, "settings": settings}
    part = given.out / "results.json.part"
    part.write_text(json.dumps(whole, indent=2) + "\n")
    part.replace(given.out / "results.json")
    (given.out / "results.md").write_text(table(settings) + "\n")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="openpi's LIBERO client against pivot serve, by noise schedule and steps")
    parser.add_argument("--pivot", default="pivot", help="the program")
    parser.add_argument("--serve", required=True, help="options of pivot serve, in one word: --model ... --backend ...")
    parser.add_argument("--client", required=True, help="the client's command line, in one word; {port} stands for the port")
    parser.add_argument("--schedules", default="openpi,linear,cosine,quadratic,sigmoid")
    parser.add_argument("--steps", default="10", help="numbers of steps, with commas")
    parser.add_argument("--replan-steps", type=int, default=5, help="actions of a chunk that the client carries out")
    parser.add_argument("--seed", type=int, default=0, help="of the noise, the same for each setting")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results"))
    given = parser.parse_args(arguments)
    if "{port}" not in given.client:
        parser.error("--client: expected {port} where the client takes the server's port")
    if given.replan_steps < 1:
        parser.error("--replan-steps: expected at least 1")
    try:
        steps = [int(n) for n in given.steps.split(",")]
    except ValueError:
        parser.error(f"--steps: expected numbers with commas between, came {given.steps!r}")
    given.out.mkdir(parents=True, exist_ok=True)
    settings: list[dict[str, Any]] = []
    for schedule in given.schedules.split(","):
        for n in steps:
            settings.append(evaluate(given, schedule, n))
            write(given, settings)
            print(table(settings[-1:]).splitlines()[2], flush=True)
    print(f"\n{table(settings)}")
    return any(s["wrong"] for s in settings)


if __name__ == "__main__":
    sys.exit(main())
