"""pivot serve, met as openpi's client meets it: websockets' synchronous client, msgpack, numpy; and as nobody should meet it.
    serve.py <pivot> <serve_call>
PIVOT_SERVE_COUNTS=full in the environment: every count in full, in some minutes; few: under a slow sanitizer."""
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

import numpy as np
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from serve_wire import frame, frames, pack, unpack, upgrade

pivot, serve_call = sys.argv[1:3]
COUNTS = ["few", "usual", "full"].index(os.environ.get("PIVOT_SERVE_COUNTS", "usual"))
folder = tempfile.TemporaryDirectory()
passed = failed = 0


def check(ok, what):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print("FAILED:", what)


rng = np.random.default_rng(1)


def libero(i=0, size=(64, 48)):
    return {
        "observation/image": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        "observation/wrist_image": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        "observation/state": rng.uniform(-1, 1, 8),
        "prompt": f"put bowl {i} on the plate",
    }


def libero_small(i, rng):
    """As small as may be, where there are many."""
    return {
        "observation/image": rng.integers(0, 256, (12, 16, 3), dtype=np.uint8),
        "observation/wrist_image": rng.integers(0, 256, (16, 16, 3), dtype=np.uint8),
        "observation/state": rng.uniform(-1, 1, 8),
        "prompt": f"put bowl {i} on the plate",
    }


class Call:
    """The same observations through calls of the library, with the same noise."""

    def __init__(self, model="synth:tiny", robot="libero", dims=7):
        self.dims = dims
        self.process = subprocess.Popen([serve_call, model, robot, f"{folder.name}/noise.f32"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)

    def __call__(self, message):
        self.process.stdin.write(struct.pack("=I", len(message)) + message)
        self.process.stdin.flush()
        return np.frombuffer(self.process.stdout.read(10 * self.dims * 8)).reshape(10, self.dims)

    def close(self):
        self.process.stdin.close()
        check(self.process.wait(60) == 0, "serve_call")
        self.process.stdout.close()


def write_noise():
    noise = rng.standard_normal((10, 32)).astype(np.float32)
    header = json.dumps({"noise": {"dtype": "F32", "shape": [10, 32], "data_offsets": [0, noise.nbytes]}}).encode()
    header += b" " * (-len(header) % 8)
    with open(f"{folder.name}/noise.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(header)) + header + noise.tobytes())
    noise.tofile(f"{folder.name}/noise.f32")
    return "--noise", f"{folder.name}/noise.safetensors"


class Server:
    def __init__(self, *options, model="synth:tiny", robot="libero"):
        # AddressSanitizer keeps 256 MiB of what was freed, to see who still uses it: too much where memory has to come back.
        kept = ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "quarantine_size_mb=16", "thread_local_quarantine_size_kb=64"]))
        # ThreadSanitizer waits for a second before it ends.
        ends = ":".join(filter(None, [os.environ.get("TSAN_OPTIONS"), "atexit_sleep_ms=0"]))
        self.process = subprocess.Popen([pivot, "serve", "--model", model, *(["--robot", robot] if robot else []), "--port", "0", *options],
                                        stdout=subprocess.PIPE, text=True, env=os.environ | {"ASAN_OPTIONS": kept, "TSAN_OPTIONS": ends})
        line = self.process.stdout.readline()
        match = re.search(r"ws://127\.0\.0\.1:(\d+)", line)
        if not match:
            self.process.kill()
            sys.exit(f"the server said {line!r}")
        self.port = int(match[1])

    def connect(self, **options):
        return connect(f"ws://127.0.0.1:{self.port}", compression=None, max_size=None, open_timeout=20, ping_timeout=60, **options)

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
    n = (100, 1000, 1000)[COUNTS]
    server, call = Server(*write_noise()), Call()
    kept, wrong, replies = None, [], []
    with server.connect() as ws:
        check(ws.recv(timeout=20) == b"\x80", "metadata first")
        for i in range(n):
            message = pack(libero(i, [(224, 224), (224, 224), (224, 224), (64, 48), (48, 64)][i % 5]))
            reply = ask(ws, message)
            reply = unpack(reply) if isinstance(reply, bytes) else {"actions": reply, "server_timing": {"observation": 0}}
            replies.append(reply)
            actions, want = reply["actions"], call(message)
            if not (isinstance(actions, np.ndarray) and actions.dtype == np.float64 and np.array_equal(actions, want)):
                wrong.append(i)
            kept = message if i == 0 else kept
        ws.send([kept[:1000], kept[1000:70000], kept[70000:]])  # a message in fragments
        again = unpack(ws.recv(timeout=60))
    call.close()
    first, second = replies[:2]
    check(not wrong, f"{n} replies are what calls give; {len(wrong)} are not, first {wrong[:5]}")
    check(np.array_equal(again["actions"], first["actions"]), "the same again, in fragments")
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


def of_lerobot():
    """A folder of lerobot says itself what its robot is."""
    made = f"{folder.name}/lerobot"
    subprocess.run([pivot, "synth", "tiny", "--layout", "lerobot", "--out", made], check=True, capture_output=True)
    server, call = Server(*write_noise(), model=made, robot=None), Call(made, made)
    with server.connect() as ws:
        ws.recv(timeout=20)
        for i in range(20):
            o = libero(i)
            message = pack({"observation.images.base_0_rgb": o["observation/image"],
                            "observation.images.right_wrist_0_rgb": o["observation/wrist_image"].transpose(2, 0, 1) / np.float32(255),
                            "observation.state": o["observation/state"].astype(np.float32), "task": o["prompt"]})
            actions = unpack(ask(ws, message))["actions"]
            check(actions.dtype == np.float64 and np.array_equal(actions, call(message)), f"lerobot's reply {i}")
            check(np.array_equal(actions, actions.astype(np.float32)), "numbers of lerobot are float32")
    call.close()
    server.stop()


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


def pings():
    """Pings are answered all along an inference of 5 s."""
    server = Server("--delay-ms", "5000")
    with server.connect() as ws, server.connect() as other:
        ws.recv(timeout=20), other.recv(timeout=20)
        begin, slowest, n = time.monotonic(), 0.0, 0
        ws.send(pack(libero()))
        while time.monotonic() - begin < 4.8:
            for connection in ws, other:
                sent = time.monotonic()
                check(connection.ping().wait(4), "a ping during an inference")
                slowest, n = max(slowest, time.monotonic() - sent), n + 1
            time.sleep(0.1)
        reply = unpack(ws.recv(timeout=20))
        check("actions" in reply and time.monotonic() - begin > 5, "the inference took 5 s")
        print(f"{n} pings during an inference of 5 s, the slowest answered after {slowest * 1e3:.1f} ms")
        check(slowest < 1, f"a ping waited {slowest:.2f} s")
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


# ---- those who mean harm ----

def outcome(port, sent, whole=True):
    """What became of bytes on a connection of their own: "reply", "refused" (words, then 1011), or "closed". Not whole: more
    may be waited for, and does not come."""
    with upgrade(port) as s:
        came = frames(s)
        check(next(came, (0, b""))[1] == b"\x80", "metadata first")
        try:
            s.sendall(sent)
            if not whole:
                s.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        opcode, words = next(came, (8, b""))
        if opcode == 2:
            return "reply"
        if opcode == 1 and words:
            opcode, reason = next(came, (0, b""))
            return "refused" if opcode == 8 and reason[:2] == struct.pack(">H", 1011) else "no 1011"
        return "closed" if opcode == 8 else f"opcode {opcode}"


def truncated(rng):
    message = pack(libero_small(0, rng))
    return message[:rng.integers(0, len(message))]


def huge_count(rng):
    head = [b"\xdf", b"\xdd", b"\xc6", b"\xdb", b"\xc9"][rng.integers(5)]
    count = struct.pack(">I", [0xffffffff, 0x7fffffff, 0x10000000, 1 << 20][rng.integers(4)])
    front = [b"", b"\x81\xa1a", b"\x81\xa1a\x91", b"\x82\xa6prompt\xa1x\xb1observation/state"][rng.integers(4)]
    return front + head + count + rng.bytes(rng.integers(0, 64))


def huge_shape(rng):
    dims = [int(rng.choice([0, 3, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 63) - 1])) for _ in range(rng.integers(1, 7))]
    array = {b"__ndarray__": True, b"data": rng.bytes(rng.integers(0, 100)), b"dtype": "|u1", b"shape": dims}
    return pack({**libero_small(0, rng), "observation/image": array})


def deep(rng):
    n = int(rng.integers(9, 20000))
    return [b"\x91" * n, b"\x81\xa1a" * n, b"\x81\xa1a" + b"\x91" * n + b"\x01", b"\x81\xc4\x01a\x91" * n][rng.integers(4)]


def dtype(rng):
    key, of = [("observation/image", "|u1"), ("observation/state", "<f8")][rng.integers(2)]
    wrong = ["<f2", "<c8", "|O", "|V3", "<U1", ">f8", ">f4", "<u2", "<u8", "|S1", "", "f8", "<f8x", "|u1\0", "x" * 300, "|i1"]
    o = libero_small(0, rng)
    array = {b"__ndarray__": True, b"data": o[key].tobytes(), b"dtype": wrong[rng.integers(len(wrong))], b"shape": o[key].shape}
    return pack({**o, key: array})


def shape(rng):
    o = libero_small(0, rng)
    if rng.integers(2):
        o["observation/image"] = np.zeros(tuple(rng.choice([1, 2, 4, 5, 7, 9], rng.integers(0, 5))), np.uint8)
    else:
        o["observation/state"] = np.zeros([(7,), (9,), (1, 8), (8, 1), (0,), (2, 2, 2)][rng.integers(6)])
    return pack(o)


def not_finite(rng):
    o = libero_small(0, rng)
    bad = float(rng.choice([np.nan, np.inf, -np.inf, 1.5, -0.5, 1e30]))
    if rng.integers(4):
        picture = rng.random((12, 16, 3)).astype(np.float32 if rng.integers(2) else np.float64)
        picture.reshape(-1)[rng.integers(picture.size)] = bad
        o["observation/image"] = picture
    else:
        o["observation/state"][rng.integers(8)] = rng.choice([np.nan, np.inf, -np.inf])
    return pack(o)


def fields(rng):
    o = libero_small(0, rng)
    key = list(o)[rng.integers(4)]
    value = [None, [], {}, "x", 3, b"\xff\xfe", [1, "a"], [[1.0] * 8], True, "a\0b", "x" * 70000][rng.integers(11)]
    if (key == "prompt" and value == "x") or rng.integers(3) == 0:
        del o[key]
    else:
        o[key] = value
    return pack(o)


def noise_bytes(rng):
    return rng.bytes(rng.integers(0, 5000))


HOSTILE = [truncated, huge_count, huge_shape, deep, dtype, shape, not_finite, fields, noise_bytes]


def flipped(rng):
    """May be as good as before: then there is a reply."""
    m = bytearray(pack(libero_small(0, rng)))
    for _ in range(rng.integers(1, 6)):
        m[rng.integers(0, min(len(m), 400))] = rng.integers(0, 256)
    return bytes(m)


def no_websocket(rng):
    """Frames that are none."""
    good = frame(pack(libero_small(0, rng)))
    return [b"\x82\x7f" + struct.pack(">Q", 1 << 62) + bytes(40), b"\xf2" + good[1:], b"\x83" + good[1:], b"\x80" + good[1:],
            b"\x89\xfe\x01\x00" + bytes(300), rng.bytes(rng.integers(1, 200)), b"\x88\x81" + bytes(5)][rng.integers(7)]


class Witnesses:
    """Clients who ask all along, each for one of few observations, and look whether the reply is that one's."""

    def __init__(self, server, n=2):
        call, pool = Call(), np.random.default_rng(7)
        self.messages = [pack(libero_small(i, pool)) for i in range(12)]
        self.wants = [call(m) for m in self.messages]
        call.close()
        check(len({w.tobytes() for w in self.wants}) == 12, "each observation has actions of its own")
        self.server, self.asked, self.wrong, self.ended = server, 0, [], threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.watch, args=(k,)) for k in range(n)]
        [t.start() for t in self.threads]

    def tell(self, wrong):
        with self.lock:
            self.asked += 1
            if wrong:
                self.wrong.append(wrong)

    def watch(self, k):
        pool = np.random.default_rng(k)
        try:
            with self.server.connect() as ws:
                ws.recv(timeout=60)
                while not self.ended.is_set():
                    self.one(ws, pool.integers(12))
        except Exception as e:
            self.tell(repr(e))

    def one(self, ws, i):
        reply = ask(ws, self.messages[i])
        good = isinstance(reply, bytes) and np.array_equal(unpack(reply)["actions"], self.wants[i])
        self.tell(None if good else f"observation {i}: {str(reply)[:100]}")

    def ahead(self, ws, pool):
        """Sends five without waiting: what comes back is told by its number, and is that one's."""
        sent = list(pool.integers(12, size=5))
        for i in sent:
            ws.send(self.messages[i])
        while True:
            reply = unpack(ws.recv(timeout=120))
            number = reply["server_timing"]["observation"] - self.numbers[ws]
            good = 1 <= number <= 5 and np.array_equal(reply["actions"], self.wants[sent[number - 1]])
            self.tell(None if good else f"number {number} of five sent ahead")
            if number >= 5 or not good:
                self.numbers[ws] += 5
                return

    numbers = {}

    def flood(self, n, each):
        def client(k):
            pool = np.random.default_rng(100 + k)
            try:
                with self.server.connect() as ws:
                    ws.recv(timeout=120)
                    self.numbers[ws] = 0
                    for i in range(each):
                        if k % 3 == 2:
                            self.ahead(ws, pool)
                        else:
                            self.one(ws, pool.integers(12))
            except InvalidStatus as e:
                self.tell(None if e.response.status_code == 503 else repr(e))
            except Exception as e:
                self.tell(repr(e))

        before = self.asked
        threads = [threading.Thread(target=client, args=(k,)) for k in range(n)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        return self.asked - before

    def end(self):
        self.ended.set()
        [t.join() for t in self.threads]
        check(self.asked > 50 and not self.wrong, f"{len(self.wrong)} of {self.asked} replies are wrong: {self.wrong[:5]}")


def slow(server, witnesses):
    """A message byte by byte delays nobody, and is answered in the end; one that never ends is refused after 30 s."""
    sent = frame(witnesses.messages[3])
    with upgrade(server.port) as s, upgrade(server.port) as never:
        came = frames(s)
        check(next(came)[1] == b"\x80", "metadata first")
        for at in range(0, 200):
            s.sendall(sent[at:at + 1])
            time.sleep(0.01)
        never.sendall(sent[:100])
        before, begin = witnesses.asked, time.monotonic()
        for at in range(200, len(sent), 16):
            s.sendall(sent[at:at + 16])
            time.sleep(0.01)
        check(witnesses.asked > before, "others are answered meanwhile")
        opcode, reply = next(came, (8, b""))
        check(opcode == 2 and np.array_equal(unpack(reply)["actions"], witnesses.wants[3]), "a slow sender is answered")
        if COUNTS < 2:
            return
        came = frames(never)
        next(came)
        opcode, words = next(came, (8, b""))
        check(opcode == 1 and b"in time" in words, f"a message that does not end: {words!r}")
        check(25 < time.monotonic() - begin < 40, f"refused after {time.monotonic() - begin:.0f} s")


def hostile():
    """Broken messages, connections dropped in the middle of one, slow senders, floods: the process lives and holds no more
    than before, and nobody gets a reply that is another's."""
    n_frames, n_drops, n_flood = [(300, 200, (40, 3)), (1500, 1000, (80, 8)), (10000, 1000, (80, 60))][COUNTS]
    server = Server(*write_noise(), "--max-message", "1")
    witnesses = Witnesses(server)
    witnesses.flood(8, 4)  # what a session makes once is there
    before = server.rss()
    rng = np.random.default_rng(11)
    counts = {}
    for i in range(n_frames):
        kind = HOSTILE[i % len(HOSTILE)] if i % 10 else [flipped, no_websocket][i // 10 % 2]
        message = kind(rng)
        raw = kind is no_websocket
        came = outcome(server.port, message if raw else frame(message), not raw)
        counts[came] = counts.get(came, 0) + 1
        good = {flipped: ("reply", "refused"), no_websocket: ("closed", "refused", "reply")}.get(kind, ("refused",))
        if came not in good:
            check(False, f"{kind.__name__}: {came}: {message[:80]!r}")
    check(counts.get("refused", 0) > 0.9 * n_frames, f"hostile frames: {counts}")
    sent = frame(witnesses.messages[0])
    for i in range(n_drops):
        with upgrade(server.port) as s:
            if i % 4:
                s.recv(4096)
            s.sendall(sent[:rng.integers(0, len(sent))])
            if i % 3 == 0:  # a reset instead of an end
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    slow(server, witnesses)
    flooded = witnesses.flood(*n_flood)
    witnesses.end()
    deadline = time.monotonic() + 20
    while server.metric("pivot_clients") and time.monotonic() < deadline:
        time.sleep(0.1)
    check(server.metric("pivot_clients") == 0, "all connections are gone")
    more = server.rss() - before
    print(f"{n_frames} hostile frames {counts}, {n_drops} drops, a flood of {n_flood[0]} clients ({flooded} replies): "
          f"{witnesses.asked} replies each its own; memory {more / (1 << 20):+.1f} MiB")
    check(more < 64 << 20, f"memory came back: {more} bytes more")
    with server.connect() as ws:
        ws.recv(timeout=20)
        check("actions" in unpack(ask(ws, witnesses.messages[0])), "and goes on")
    server.stop()


def example(server, robot):
    """The client that users start from."""
    client = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "examples", "serve", "client.py")
    done = subprocess.run([sys.executable, "-B", client, "--robot", robot, "--port", str(server.port)], capture_output=True, text=True,
                          timeout=60)
    dims = {"libero": 7, "droid": 8, "aloha": 14}[robot]
    check(done.returncode == 0 and not done.stderr and done.stdout.count(f"actions (10, {dims}) after") == 3, f"client.py: {done}")


def other_robots():
    """A synthetic model serves any robot; each gets what it is told."""
    picture = np.zeros((24, 32, 3), np.uint8)
    for robot, dims, metadata, o in [
        ("droid", 8, {}, {"observation/exterior_image_1_left": picture, "observation/wrist_image_left": picture,
                          "observation/joint_position": np.zeros(7), "observation/gripper_position": 0.5}),
        ("aloha", 14, {"reset_pose": [0, -1.5, 1.5, 0, 0, 0]},
         {"images": {"cam_high": picture.transpose(2, 0, 1)}, "state": np.full(14, 0.1)}),
    ]:
        server = Server(robot=robot)
        with server.connect() as ws:
            check(unpack(ws.recv(timeout=20)) == metadata, f"metadata of {robot}")
            reply = unpack(ask(ws, pack({**o, "prompt": "x"})))
            check(reply["actions"].shape == (10, dims) and reply["actions"].dtype == np.float64, f"actions of {robot}")
        example(server, robot)
        server.stop()


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
        (1, "cannot be made", "--model", "synth:tiny", "--robot", "libero", "--record", f"{folder.name}/no/where"),
        (1, "robot 'droid' has actions of 8", "--model", "synth:tiny", "--robot", "droid", "--asset-id", "8x7"),
        (1, "asset id '8by7'", "--model", "synth:tiny", "--robot", "droid", "--asset-id", "8by7"),
        (4, "cannot listen", "--model", "synth:tiny", "--robot", "libero", "--port", str(server.port)),
    ]:
        ended = subprocess.run([pivot, "serve", *options], capture_output=True, text=True, timeout=60)
        check(ended.returncode == code and words in ended.stderr and not ended.stdout, f"serve {options}: {ended}")


def main():
    same_as_a_call()
    recordings()
    of_lerobot()
    pings()
    pings_and_latest()
    other_robots()
    keys()
    server = Server("--max-message", "1")
    command_line(server)
    errors(server)
    server.stop()
    server = Server()
    example(server, "libero")
    server.stop()
    hostile()
    print(f"{passed} passed, {failed} failed")
    return failed != 0


sys.exit(main())
