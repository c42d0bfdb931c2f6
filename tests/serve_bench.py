"""What serving costs beside the inference: round trips of observations with three pictures of 480 x 640 on loopback.
    serve_bench.py <pivot> [<runs>]
A client as openpi's (websockets' synchronous client) and one on a bare socket, whose mask is zero, so that hardly more than the
server is timed. The model is tiny, but sees pictures of 224 x 224 as Pi0.5 does. Least and median of all runs, in milliseconds;
`round trip` and `outside the worker` are without vision, prefix and denoise. `observe` is resizing and tokenising: with pictures
of 224 x 224, which are not resized, it is the rest. Needs msgpack, numpy and websockets."""
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import numpy as np
from websockets.sync.client import connect

from serve_wire import frame, frames, pack, unpack, upgrade

pivot, runs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200
INFERENCE = "vision_ms", "prefix_ms", "denoise_ms"
PARTS = "queue_ms", "decode_ms", "transform_ms", "observe_ms"


def report(name, rows):
    print(f"{name}: {len(rows)} runs")
    for part in rows[0]:
        column = [row[part] for row in rows]
        print(f"    {part:20} least {min(column):7.3f}   median {statistics.median(column):7.3f}")


def row(reply, seconds):
    t = reply["server_timing"]
    outside = seconds * 1e3 - sum(t[part] for part in INFERENCE)
    parts = {part.removesuffix("_ms"): t[part] for part in PARTS}
    return {"round trip": outside, **parts, "outside the worker": outside - sum(parts.values())}


def main():
    config = tempfile.NamedTemporaryFile("w", suffix=".json")
    robot = tempfile.NamedTemporaryFile("w", suffix=".json")
    json.dump({"vision": {"image": 224}, "horizon": 10}, config)
    names = "base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"
    json.dump({"cameras": [{"slot": name, "key": f"images/{name}"} for name in names], "prompt": {"key": "prompt"},
               "state": {"fields": [{"key": "state", "size": 14}]}, "actions": {"size": 14}}, robot)
    config.flush(), robot.flush()
    server = subprocess.Popen([pivot, "serve", "--model", "synth:tiny", "--config", config.name, "--robot", robot.name, "--port", "0",
                               "--steps", "1"], stdout=subprocess.PIPE, text=True)
    port = int(server.stdout.readline().split("127.0.0.1:")[1].split(":")[0])
    rng = np.random.default_rng(1)
    pictures = {name: rng.integers(0, 256, (3, 480, 640), np.uint8) for name in names}
    rows_of_rgb = {name: np.ascontiguousarray(p.transpose(1, 2, 0)) for name, p in pictures.items()}
    small = {name: np.ascontiguousarray(p[:224, :224]) for name, p in rows_of_rgb.items()}
    for title, pictures in ("channels first", pictures), ("channels last", rows_of_rgb), ("224 x 224", small):
        print(title)
        message = pack({"images": pictures, "state": np.full(14, 0.1), "prompt": "fold the towel"})
        with connect(f"ws://127.0.0.1:{port}", compression=None, max_size=None) as ws:
            ws.recv()
            rows = []
            for _ in range(runs):
                begin = time.perf_counter()
                ws.send(message)
                reply = ws.recv()
                rows.append(row(unpack(reply), time.perf_counter() - begin))
        report("a client as openpi's", rows[5:])
        with upgrade(port) as s:
            came, sent, rows = frames(s), frame(message), []
            next(came)
            for _ in range(runs):
                begin = time.perf_counter()
                s.sendall(sent)
                reply = next(came)[1]
                rows.append(row(unpack(reply), time.perf_counter() - begin))
        report("a bare socket", rows[5:])
    page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    total, count = (float(re.search(rf'^pivot_stage_seconds_{what}{{stage="encode"}} (\S+)$', page, re.M)[1]) for what in ("sum", "count"))
    print(f"encode: mean {total / count * 1e3:.3f}")
    server.terminate()
    server.wait()


main()
