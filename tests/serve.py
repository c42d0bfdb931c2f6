"""pivot serve, met as openpi's client meets it: websockets' synchronous client, msgpack, numpy.
    serve.py <pivot> <serve_call>"""
import base64
import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import msgpack
import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

pivot, serve_call = sys.argv[1:3]
folder = tempfile.TemporaryDirectory()
passed = failed = 0


def check(ok, what):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print("FAILED:", what)


def encode(x):
    if isinstance(x, np.ndarray):
        return {b"__ndarray__": True, b"data": x.tobytes(), b"dtype": x.dtype.str, b"shape": x.shape}
    if isinstance(x, np.generic):
        return {b"__npgeneric__": True, b"data": x.item(), b"dtype": x.dtype.str}
    return x


def decode(x):
    if b"__ndarray__" in x:
        return np.ndarray(buffer=x[b"data"], dtype=np.dtype(x[b"dtype"]), shape=x[b"shape"])
    return x


def pack(x):
    return msgpack.packb(x, default=encode)


def unpack(x):
    return msgpack.unpackb(x, object_hook=decode)


rng = np.random.default_rng(1)


def libero(i=0, size=(64, 48)):
    return {
        "observation/image": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        "observation/wrist_image": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        "observation/state": rng.uniform(-1, 1, 8),
        "prompt": f"put bowl {i} on the plate",
    }


class Server:
    def __init__(self, *options, robot="libero"):
        # AddressSanitizer keeps 256 MiB of what was freed, to see who still uses it: too much where memory has to come back.
        kept = ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "quarantine_size_mb=16", "thread_local_quarantine_size_kb=64"]))
        self.process = subprocess.Popen([pivot, "serve", "--model", "synth:tiny", "--robot", robot, "--port", "0", *options],
                                        stdout=subprocess.PIPE, text=True, env=os.environ | {"ASAN_OPTIONS": kept})
        line = self.process.stdout.readline()
        match = re.search(r"ws://127\.0\.0\.1:(\d+)", line)
        if not match:
            self.process.kill()
            sys.exit(f"the server said {line!r}")
        self.port = int(match[1])

    def connect(self, **options):
        return connect(f"ws://127.0.0.1:{self.port}", compression=None, max_size=None, open_timeout=20, **options)

    def get(self, path, headers={}):
        http_client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        http_client.request("GET", path, headers=headers)
        reply = http_client.getresponse()
        return reply.status, reply.read().decode()

    def metric(self, name):
        return float(re.search("^" + re.escape(name) + r" (\S+)$", self.get("/metrics")[1], re.M)[1])

    def rss(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1]) * 1024

    def stop(self, most=2.0):
        begin = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = "none"
        seconds = time.monotonic() - begin
        self.process.stdout.close()
        check(code == 0 and seconds < most, f"SIGTERM: exit code {code} after {seconds:.2f} s")


def ask(ws, message):
    ws.send(message if isinstance(message, bytes) else pack(message))
    return ws.recv(timeout=60)


def same_as_a_call():
    """Replies over the wire are what calls of the library give, bit for bit, and carry what openpi's carry."""
    n, noise = 200, rng.standard_normal((10, 32)).astype(np.float32)
    header = json.dumps({"noise": {"dtype": "F32", "shape": [10, 32], "data_offsets": [0, noise.nbytes]}}).encode()
    header += b" " * (-len(header) % 8)
    with open(f"{folder.name}/noise.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(header)) + header + noise.tobytes())
    noise.tofile(f"{folder.name}/noise.f32")
    server = Server("--noise", f"{folder.name}/noise.safetensors")
    messages = [pack(libero(i, [(64, 48), (224, 224), (48, 64)][i % 3])) for i in range(n)]
    replies = []
    with server.connect() as ws:
        check(ws.recv(timeout=20) == b"\x80", "metadata first")
        for i, message in enumerate(messages):
            with open(f"{folder.name}/{i}.msgpack", "wb") as f:
                f.write(message)
            reply = ask(ws, message)
            replies.append(unpack(reply) if isinstance(reply, bytes) else reply)
        ws.send([messages[0][:1000], messages[0][1000:70000], messages[0][70000:]])  # a message in fragments
        again = unpack(ws.recv(timeout=60))
    subprocess.run([serve_call, "synth:tiny", "libero", f"{folder.name}/noise.f32", folder.name, str(n)], check=True)
    for i, reply in enumerate(replies):
        want = np.fromfile(f"{folder.name}/{i}.f64").reshape(10, 7)
        actions = reply["actions"] if isinstance(reply, dict) else None
        check(actions is not None and actions.dtype == np.float64 and np.array_equal(actions, want),
              f"reply {i} is what a call gives: {str(reply)[:200]}")
    check(np.array_equal(again["actions"], replies[0]["actions"]), "the same again, in fragments")
    first, second = replies[0], replies[1]
    check(list(first) == ["actions", "policy_timing", "server_timing"], "keys of a reply")
    check(list(first["policy_timing"]) == ["infer_ms"], "keys of policy_timing")
    check("prev_total_ms" not in first["server_timing"], "no time before the first")
    check(list(second["server_timing"])[:2] == ["infer_ms", "prev_total_ms"], "time of the one before")
    check([r["server_timing"]["observation"] for r in replies] == list(range(1, n + 1)), "numbers of observations")
    stages = ["queue", "decode", "transform", "observe", "vision", "prefix", "schedule", "denoise"]
    for r in replies:
        t = r["server_timing"]
        check(all(t[f"{s}_ms"] >= 0 for s in stages), "the time of each stage")
        check(t["age_ms"] >= t["queue_ms"] + t["infer_ms"], f"the age, since it came: {t}")
    check(server.metric("pivot_replies_total") == n + 1, "replies counted")
    check(server.metric('pivot_stage_seconds_count{stage="total"}') == n + 1, "times counted")
    server.stop()


def tensors(path):
    """A safetensors file: its words, its arrays."""
    kinds = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}
    with open(path, "rb") as f:
        raw = f.read()
    n = struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8:8 + n]), raw[8 + n:]
    words = header.pop("__metadata__")
    return words, {k: np.frombuffer(data[slice(*t["data_offsets"])], kinds[t["dtype"]]).reshape(t["shape"]) for k, t in header.items()}


def replay(*arguments):
    ended = subprocess.run([pivot, "replay", *arguments], capture_output=True, text=True, timeout=120)
    return ended.returncode, ended.stdout + ended.stderr


def recordings():
    """Every answered observation in a file, as it came; run again they give the same bytes."""
    there, n = f"{folder.name}/recordings", 12
    server = Server("--record", there, "--record-queue", "64", "--steps", "3", "--schedule", "cosine", "--seed", "40")
    seen, replies = [libero(i, [(64, 48), (30, 40)][i % 2]) for i in range(n)], []
    with server.connect() as ws:
        ws.recv(timeout=20)
        for i, o in enumerate(seen):
            replies.append(unpack(ask(ws, pack({**o, "extra": {"number": i, "list": [1, 2.5]}}))))
    refused(server, pack({"prompt": "x"}), "observation/")  # was not answered, is not recorded
    deadline = time.monotonic() + 20
    while server.metric("pivot_recordings_total") < n and time.monotonic() < deadline:
        time.sleep(0.05)
    check(server.metric("pivot_recordings_total") == n, "recordings counted")
    check(all(server.metric(f'pivot_recordings_dropped_total{{reason="{r}"}}') == 0 for r in ("queue", "limit", "failed")), "none dropped")
    held = sum(os.path.getsize(f"{there}/{f}") for f in os.listdir(there))
    check(server.metric("pivot_recordings_bytes") == held, "bytes of the folder")
    server.stop()
    names = sorted(os.listdir(there))
    check(len(names) == n and all(f.endswith(".safetensors") for f in names), f"one file for each: {names}")
    for i, (name, o, reply) in enumerate(zip(names, seen, replies)):
        words, arrays = tensors(f"{there}/{name}")
        timing = reply["server_timing"]
        check(np.array_equal(arrays["actions"], reply["actions"]), f"recording {i}: actions")
        check(bytes(arrays["text.prompt"]).decode() == o["prompt"] and arrays["observation.extra/number"] == i, f"recording {i}: words")
        check(all(np.array_equal(arrays[f"observation.{k}"], v) and arrays[f"observation.{k}"].dtype == v.dtype
                  for k, v in o.items() if k != "prompt"), f"recording {i}: arrays as they came")
        check((words["observation"], words["seed"], words["schedule"], words["robot_name"], arrays["timesteps"].size)
              == (str(i + 1), str(40 + i), "cosine", "libero", 4),
              f"recording {i}: {words}")
        check(all(abs(float(words[f"ms.{s}"]) - timing[f"{s}_ms"]) <= 1e-5 * timing[f"{s}_ms"]
                  for s in ("queue", "decode", "transform", "observe", "vision", "prefix", "schedule", "denoise")), "times")
    code, said = replay(there)
    check(code == 0 and said.count("bytes agree") == n and "differs" not in said, f"replay: {code} {said[:600]}")
    one = f"{there}/{names[0]}"
    code, said = replay(one, "--recipe", "bf16")
    check(code == 3 and "no bound" in said and "recipe differs: f32, now bf16" in said and "plan differs" in said, f"bf16: {code} {said}")
    code, said = replay(one, "--recipe", "bf16", "--bound", "0.1")
    check(code == 0 and "within bounds: model_actions relative L2" in said, f"bf16 with a bound: {code} {said}")
    code, said = replay(one, "--recipe", "bf16", "--bound", "0.1", "--bytes")
    check(code == 3 and "OUT OF BOUNDS" in said, f"bytes: {code} {said}")
    code, said = replay(one, "--zscore")
    check(code == 3 and "stats differs" in said and "weights differs" not in said, f"another rule: {code} {said}")
    code, said = replay(one, "--json", "--threads", "1")
    check(code == 0 and json.loads(said)["same_bytes"] == 1, f"JSON: {code} {said}")
    code, said = replay(one, "--robot", "aloha")
    check(code == 1 and "14" in said, f"another robot: {code} {said}")
    with open(f"{folder.name}/robot.json", "w") as robot:
        robot.write(tensors(one)[0]["robot"].replace("LIBERO", "OTHER"))
    code, said = replay(one, "--robot", f"{folder.name}/robot.json")
    check(code == 0 and "robot differs" in said and "bytes agree" in said, f"the robot in other words: {code} {said}")
    with open(one, "r+b") as f:  # another result than the one that came
        n = struct.unpack("<Q", f.read(8))[0]
        f.seek(8 + n + json.loads(f.read(n))["actions"]["data_offsets"][0])
        f.write(struct.pack("<d", 123.0))
    code, said = replay(there)
    check(code == 3 and "11 with equal bytes" in said and "1 out of bounds" in said and "nothing that is known differs" in said, f"{code} {said}")
    with open(f"{there}/cut.safetensors", "wb") as f:
        f.write(open(one, "rb").read()[:1000])
    code, said = replay(there)
    check(code == 1 and "cut.safetensors" in said and "1 not run" in said, f"a file cut short: {code} {said}")
    check(replay(f"{folder.name}/none")[0] == 1 and replay()[0] == 2, "no file")

    small = f"{folder.name}/small"  # a folder that is full: replies come all the same
    server = Server("--record", small, "--record-limit", "1", "--record-queue", "64")
    with server.connect() as ws:
        ws.recv(timeout=20)
        replies = [unpack(ask(ws, pack(libero(i, (224, 224))))) for i in range(8)]
    dropped = server.metric('pivot_recordings_dropped_total{reason="limit"}')
    server.stop()
    held = [os.path.getsize(f"{small}/{f}") for f in os.listdir(small)]
    check(len(replies) == 8 and all("actions" in r for r in replies), "a full folder delays nobody")
    check(len(held) == 3 and dropped == 5 and sum(held) <= 1 << 20, f"a full folder: {held}, {dropped} dropped")


def pings_and_latest():
    """Pings are answered while an inference runs; of observations that wait, the latest is taken."""
    server = Server("--delay-ms", "1500")
    with server.connect() as ws, server.connect() as other:
        ws.recv(timeout=20), other.recv(timeout=20)
        ws.send(pack(libero()))
        time.sleep(0.2)
        begin = time.monotonic()
        check(ws.ping().wait(1), "ping answered during an inference")
        check(time.monotonic() - begin < 0.5, "and soon")
        check(server.get("/healthz") == (200, "OK\n"), "/healthz during an inference")
        for _ in range(3):
            ws.send(pack(libero()))
        numbers = [unpack(ws.recv(timeout=20))["server_timing"]["observation"] for _ in range(2)]
        check(numbers == [1, 4], f"the latest of those that wait: {numbers}")
        check(server.metric("pivot_superseded_total") == 2, "superseded ones counted")
        ws.send(pack(libero()))
        time.sleep(0.8)
        os.kill(server.process.pid, signal.SIGTERM)  # lets it end
        check("actions" in unpack(ws.recv(timeout=20)), "the reply of an inference at work comes after SIGTERM")
        try:
            other.recv(timeout=20)
            check(False, "closed")
        except ConnectionClosed as e:
            check(e.rcvd and e.rcvd.code == 1001, f"closed as going away: {e}")
    server.stop()
    server = Server("--delay-ms", "10000")
    with server.connect() as ws:
        ws.recv(timeout=20)
        ws.send(pack(libero()))
        time.sleep(0.3)
        server.stop()  # does not wait for ever
    server = Server("--delay-ms", "300", "--deadline-ms", "100")
    refused(server, pack(libero()), "deadline")
    check(server.metric('pivot_errors_total{kind="deadline"}') == 1, "deadline counted")
    server.stop()


def refused(server, message, words):
    """A text frame, then 1011."""
    with server.connect() as ws:
        ws.recv(timeout=20)
        try:
            ws.send(message)
            reply = ws.recv(timeout=20)
            check(isinstance(reply, str) and words in reply, f"expected '{words}', came {reply[:200]!r}")
            ws.recv(timeout=20)
            check(False, "closed after an error")
        except ConnectionClosed as e:
            check(e.rcvd and e.rcvd.code == 1011 and "previous frame" in e.rcvd.reason, f"close: {e}")


def errors(server):
    o = libero()
    refused(server, "text", "binary")
    refused(server, b"", "empty")
    refused(server, b"\xdd\xff\xff\xff\xff", "4294967295")
    refused(server, pack({"prompt": "x"}), "observation/")
    refused(server, pack({**o, "observation/state": np.zeros(8, ">f8")}), ">f8")
    refused(server, pack({**o, "observation/image": np.zeros((4, 4), np.uint8)}), "observation/image")
    refused(server, pack({**o, "observation/state": np.full(8, np.nan)}), "observation/state")
    refused(server, b"\x81\xa1a\xc6\x00\x10\x00\x00" + bytes(1 << 20), "longer than")
    check(server.get("/nothing")[0] == 404, "404")
    with server.connect() as ws:
        check(ws.recv(timeout=20) == b"\x80" and "actions" in unpack(ask(ws, o)), "and goes on")


def upgrade(port):
    s = socket.create_connection(("127.0.0.1", port), timeout=20)
    s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
              b"Sec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n\r\n")
    return s


def hostile(server):
    """Connections dropped in the middle of a message, at any byte; broken messages; many clients at once."""
    o = pack(libero())
    frame = b"\x82\xfe" + struct.pack(">H", len(o)) + bytes(4) + o  # masked with zeros
    with server.connect() as ws:
        ws.recv(timeout=20), ask(ws, o)
    before = server.rss()
    for i in range(500):
        with upgrade(server.port) as s:
            if i % 4:
                s.recv(4096)
            s.sendall(frame[:rng.integers(0, len(frame))])
            if i % 3 == 0:  # a reset instead of an end
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    bad = 0
    for i in range(300):
        m = bytearray(o if i % 2 else pack({"observation/state": [1.0] * 8, "prompt": "x", "a": {"b": {"c": [1]}}}))
        for _ in range(1 + i % 5):
            m[rng.integers(0, min(len(m), 300))] = rng.integers(0, 256)
        with server.connect() as ws:
            ws.recv(timeout=20)
            try:
                bad += isinstance(ask(ws, bytes(m[:rng.integers(1, len(m) + 1)] if i % 3 else m)), str)
            except ConnectionClosed:
                check(False, "closed without words")
    check(bad > 150, f"broken messages are refused: {bad} of 300")

    answers, lock = [], threading.Lock()

    def client(k):
        try:
            with server.connect() as ws:
                ws.recv(timeout=60)
                for i in range(10):
                    reply = ask(ws, o)
                    with lock:
                        answers.append(isinstance(reply, bytes) and unpack(reply)["server_timing"]["observation"] == i + 1)
        except InvalidStatus as e:
            with lock:
                answers.append(e.response.status_code == 503)

    threads = [threading.Thread(target=client, args=(k,)) for k in range(80)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    check(len(answers) >= 64 * 10 and all(answers), f"80 clients at once: {len(answers)} answers, {answers.count(False)} wrong")
    deadline = time.monotonic() + 20
    while server.metric("pivot_clients") and time.monotonic() < deadline:
        time.sleep(0.1)
    check(server.metric("pivot_clients") == 0, "all connections are gone")
    check(server.rss() - before < 64 << 20, f"memory came back: {server.rss() - before} bytes more")
    with server.connect() as ws:
        ws.recv(timeout=20)
        check("actions" in unpack(ask(ws, o)), "and goes on")


def keys():
    with open(f"{folder.name}/key", "w") as f:
        f.write("secret\n")
    server = Server("--api-key-file", f"{folder.name}/key")
    for key, good in ("secret", True), ("secre", False), ("secrets", False), (None, False):
        headers = {"Authorization": f"Api-Key {key}"} if key else {}
        try:
            with server.connect(additional_headers=headers) as ws:
                check(good and ws.recv(timeout=20) == b"\x80", f"key {key}")
        except InvalidStatus as e:
            check(not good and e.response.status_code == 401, f"key {key}: {e}")
        check(server.get("/metrics", headers)[0] == (200 if good else 401), f"/metrics with key {key}")
    check(server.get("/healthz")[0] == 200, "/healthz needs none")
    try:
        with server.connect(additional_headers={"Authorization": "Api-Key secret", "Origin": "http://page"}):
            check(False, "a browser's page")
    except InvalidStatus as e:
        check(e.response.status_code == 403, "a browser's page")
    server.stop()


def command_line(server):
    """What cannot be served is told, with the exit code that belongs to it."""
    with open(f"{folder.name}/empty", "w"):
        pass
    for code, words, *options in [
        (2, "--robot", "--model", "synth:tiny"),
        (2, "--schedule 'own': expected openpi", "--model", "synth:tiny", "--robot", "libero", "--schedule", "own"),
        (1, "nobody", "--model", "synth:tiny", "--robot", "nobody"),
        (1, "empty", "--model", "synth:tiny", "--robot", "libero", "--api-key-file", f"{folder.name}/empty"),
        (1, "robot 'droid' has actions of 8", "--model", "synth:tiny", "--robot", "droid"),
        (1, "cannot be made", "--model", "synth:tiny", "--robot", "libero", "--record", f"{folder.name}/no/where"),
        (4, "cannot listen", "--model", "synth:tiny", "--robot", "libero", "--port", str(server.port)),
    ]:
        ended = subprocess.run([pivot, "serve", *options], capture_output=True, text=True, timeout=60)
        check(ended.returncode == code and words in ended.stderr and not ended.stdout, f"serve {options}: {ended}")


def main():
    same_as_a_call()
    recordings()
    pings_and_latest()
    keys()
    server = Server("--max-message", "1")
    command_line(server)
    errors(server)
    hostile(server)
    server.stop()
    print(f"{passed} passed, {failed} failed")
    return failed != 0


sys.exit(main())
