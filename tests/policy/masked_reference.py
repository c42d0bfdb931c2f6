#!/usr/bin/env python3
"""Pi0.5 in float64, in the masked form in which openpi has it: every camera and every slot of the prompt stay in the
prefix, an additive mask of -2.3819763e38 hides what is not there, positions count the real tokens. The library computes
the packed form, which has no mask; agreement of the two is evidence for both. Needs numpy alone.

Run by hand; what `make` writes is checked in beside the other cases in tests/data:

    masked_reference.py check TRACE CONFIG CHECKPOINT [--write OUT]   computes a trace's inputs anew and compares
    masked_reference.py make DATA                                     writes M.* and K.* and tiny_k.safetensors

Only what openpi itself forms in float32 is float32 here: pixels, times, and the angle of RoPE.
  M  the tiny float32 checkpoint; the middle camera masked, with noise for pixels; 9 of 23 prompt slots, noise behind them
  K  a checkpoint of its own in which every number differs from the others' and no two parts share one by chance:
     two K/V heads, 4 query heads in the prefix and 6 in the expert, other epsilons, base of RoPE, periods, cameras
"""
import argparse
import json
import struct
import sys

import numpy as np

f32, f64 = np.float32, np.float64
MASKED = -2.3819763e38
PALI = "paligemma_with_expert.paligemma."
TOWER = PALI + "model.vision_tower.vision_model."
PREFIX = PALI + "model.language_model."
EXPERT = "paligemma_with_expert.gemma_expert.model."
DTYPES = {"F32": "<f4", "I32": "<i4", "U8": "u1", "F64": "<f8"}
SCHEDULES = {
    "linear": lambda s: 1 - s,
    "cosine": lambda s: np.cos(np.pi * s / 2),
    "quadratic": lambda s: 1 - s * s,
    "sigmoid": lambda s: 1 - (logistic(s) - logistic(0)) / (logistic(1) - logistic(0)),
}


def logistic(s):
    return 1 / (1 + np.exp(-10 * (s - 0.5)))


# ---- files ----


def read(path):
    with open(path, "rb") as f:
        data = f.read()
    n, = struct.unpack("<Q", data[:8])
    out = {}
    for name, t in json.loads(data[8 : 8 + n]).items():
        if name == "__metadata__":
            continue
        part = data[8 + n + t["data_offsets"][0] : 8 + n + t["data_offsets"][1]]
        if t["dtype"] == "BF16":
            x = (np.frombuffer(part, "<u2").astype("<u4") << 16).view(f32)
        else:
            x = np.frombuffer(part, DTYPES[t["dtype"]])
        out[name] = x.reshape(t["shape"])
    return out


def bf16_bits(x):
    """The upper halves of float32 numbers whose lower halves are zero."""
    bits = np.ascontiguousarray(x, f32).view("<u4")
    assert not (bits & 0xFFFF).any()
    return (bits >> 16).astype("<u2")


def write(path, tensors, metadata, as_bf16=()):
    header, parts, at = {"__metadata__": metadata}, [], 0
    for name in sorted(tensors):
        x = tensors[name]
        dtype = "BF16" if name in as_bf16 else next(k for k, v in DTYPES.items() if x.dtype == np.dtype(v))
        part = (bf16_bits(x) if dtype == "BF16" else np.ascontiguousarray(x)).tobytes()
        header[name] = {"dtype": dtype, "shape": list(x.shape), "data_offsets": [at, at + len(part)]}
        parts.append(part)
        at += len(part)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(parts))


# ---- the parts ----


class Weights:
    def __init__(self, tensors):
        self.tensors = tensors

    def __call__(self, name):
        return self.tensors[name].astype(f64)

    def linear(self, x, name, bias=True):
        w = self(name + ".weight")
        y = x @ w.reshape(w.shape[0], -1).T
        return y + self(name + ".bias") if bias else y


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def softmax(s):
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def heads_of(x, n):
    """[rows, n * head] -> [n, rows, head]"""
    return x.reshape(len(x), n, -1).transpose(1, 0, 2)


def attend(q, k, v, mask):
    """q [heads, Q, head]; k, v [kv_heads, K, head], each for a run of query heads; mask [Q, K] is added."""
    k, v = (np.repeat(t, len(q) // len(t), axis=0) for t in (k, v))
    o = softmax(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1]) + mask) @ v
    return o.transpose(1, 0, 2).reshape(o.shape[1], -1)


def layer_norm(w, x, name, eps):
    d = x - x.mean(-1, keepdims=True)
    return d / np.sqrt((d**2).mean(-1, keepdims=True) + eps) * w(name + ".weight") + w(name + ".bias")


def rms(x, eps):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)


def rotate(x, positions, theta):
    """The two halves of a head turn against each other; the angle is a product of float32."""
    half = x.shape[-1] // 2
    inv_freq = f32(1) / f32(theta) ** (np.arange(half, dtype=f32) * f32(2) / f32(2 * half))
    angle = (positions.astype(f32)[:, None] * inv_freq[None, :].astype(f32)).astype(f64)
    c, s, a, b = np.cos(angle), np.sin(angle), x[..., :half], x[..., half:]
    return np.concatenate([a * c - b * s, b * c + a * s], -1)


def mlp(w, n, name):
    h = gelu(w.linear(n, name + ".gate_proj", False)) * w.linear(n, name + ".up_proj", False)
    return w.linear(h, name + ".down_proj", False)


# ---- the model ----


class Policy:
    def __init__(self, config, tensors):
        self.c, self.w, self.out = config, Weights(tensors), {}
        names = [n for n in (PREFIX + "embed_tokens.weight", PALI + "lm_head.weight") if n in tensors]
        self.table = self.w(names[0])

    def vision(self, name, image):
        v, w, eps = self.c["vision"], self.w, self.c["layer_norm_eps"]
        n, p = v["image"] // v["patch"], v["patch"]
        patches = image.astype(f64).reshape(3, n, p, n, p).transpose(1, 3, 0, 2, 4).reshape(n * n, -1)
        x = w.linear(patches, TOWER + "embeddings.patch_embedding") + w(TOWER + "embeddings.position_embedding.weight")
        self.out[f"vision.{name}.embeddings"] = x
        for i in range(v["depth"]):
            layer = f"{TOWER}encoder.layers.{i}."
            h = layer_norm(w, x, layer + "layer_norm1", eps)
            q, k, o = (heads_of(w.linear(h, f"{layer}self_attn.{t}_proj"), v["heads"]) for t in "qkv")
            x = x + w.linear(attend(q, k, o, 0), layer + "self_attn.out_proj")
            h = gelu(w.linear(layer_norm(w, x, layer + "layer_norm2", eps), layer + "mlp.fc1"))
            x = x + w.linear(h, layer + "mlp.fc2")
            self.out[f"vision.{name}.layer{i}.out"] = x
        x = layer_norm(w, x, TOWER + "post_layernorm", eps)
        self.out[f"vision.{name}.post_ln"] = x
        x = w.linear(x, PALI + "model.multi_modal_projector.linear")
        self.out[f"vision.{name}.projected"] = x
        return x

    def prefix(self, images, image_mask, tokens, token_mask):
        c, w, g = self.c, self.w, self.c["gemma"]
        seen = [self.vision(name, image) for name, image in zip(c["cameras"], images)]
        pad = np.concatenate([np.repeat(image_mask, len(seen[0])), token_mask]).astype(bool)
        positions = np.cumsum(pad) - 1
        mask = np.where(pad[:, None] & pad[None, :], 0, MASKED)
        x = np.concatenate(seen + [self.table[tokens] * np.sqrt(g["width"])])
        self.out |= {"prefix.embs": x, "prefix.pad_mask": pad.astype("u1"), "prefix.position_ids": positions.astype("<i4")}
        self.pad, self.cache = pad, []
        for i in range(g["depth"]):
            layer, tag = f"{PREFIX}layers.{i}.", f"prefix.layer{i}."
            n = rms(x, c["rms_norm_eps"]) * (1 + w(layer + "input_layernorm.weight"))
            q, k, v = self.qkv(n, layer, g, positions)
            self.cache.append((k, v))
            a = w.linear(attend(q, k, v, mask), layer + "self_attn.o_proj", False)
            x = x + a
            n = rms(x, c["rms_norm_eps"]) * (1 + w(layer + "post_attention_layernorm.weight"))
            m = mlp(w, n, layer + "mlp")
            x = x + m
            self.out |= {tag + "k": k, tag + "v": v, tag + "attn_out": a, tag + "mlp_out": m, tag + "out": x}
        self.out["prefix.norm_out"] = rms(x, c["rms_norm_eps"]) * (1 + w(PREFIX + "norm.weight"))

    def qkv(self, n, layer, g, positions):
        q, k, v = (self.w.linear(n, f"{layer}self_attn.{t}_proj", False) for t in "qkv")
        q, k, v = heads_of(q, g["heads"]), heads_of(k, g["kv_heads"]), heads_of(v, g["kv_heads"])
        return rotate(q, positions, self.c["rope_theta"]), rotate(k, positions, self.c["rope_theta"]), v

    def time_emb(self, t):
        c, half = self.c, self.c["expert"]["width"] // 2
        low, high = c["time_min_period"], c["time_max_period"]
        angle = 1 / (low * (high / low) ** np.linspace(0, 1, half)) * 2 * np.pi * f64(t)
        return np.concatenate([np.sin(angle), np.cos(angle)])

    def adaptive(self, x, cond, name, tag, log):
        mod = self.w.linear(cond, name + ".dense")
        scale, shift, gate = np.split(mod, 3)
        log[tag] = mod
        return rms(x, self.c["rms_norm_eps"]) * (1 + scale) + shift, gate

    def velocity(self, x_t, t, log):
        """v(x_t, t); what it passes through goes into `log`."""
        c, w, g = self.c, self.w, self.c["expert"]
        log["time_emb"] = self.time_emb(t)
        cond = silu(w.linear(silu(w.linear(log["time_emb"], "time_mlp_in")), "time_mlp_out"))
        x = w.linear(x_t.astype(f64), "action_in_proj")
        log |= {"cond": cond, "suffix_in": x}
        n_suffix = len(x)
        positions = self.pad.sum() + np.arange(n_suffix)
        mask = np.where(np.concatenate([self.pad, np.ones(n_suffix, bool)]), 0, MASKED)[None, :]
        for i in range(g["depth"]):
            layer, tag = f"{EXPERT}layers.{i}.", f"layer{i}."
            n, gate = self.adaptive(x, cond, layer + "input_layernorm", tag + "ada_in", log)
            q, k, v = self.qkv(n, layer, g, positions)
            k, v = (np.concatenate(pair, axis=1) for pair in zip(self.cache[i], (k, v)))
            a = w.linear(attend(q, k, v, mask), layer + "self_attn.o_proj", False)
            x = x + a * gate
            n, gate = self.adaptive(x, cond, layer + "post_attention_layernorm", tag + "ada_post", log)
            m = mlp(w, n, layer + "mlp")
            x = x + m * gate
            log |= {tag + "attn_out": a, tag + "mlp_out": m, tag + "out": x}
        log["norm_out"], _ = self.adaptive(x, cond, EXPERT + "norm", "ada_final", log)
        return w.linear(log["norm_out"], "action_out_proj")

    def sample(self, noise):
        """openpi's loop: a float32 step is added to a float32 time until it has passed half a step from 0."""
        dt, t, x, step = f32(-1 / self.c["num_steps"]), f32(1), noise.astype(f64), 0
        every = ("time_emb", "cond", "suffix_in")
        while t >= -dt / 2:
            log = {}
            v = self.velocity(x, t, log)
            self.out |= {f"step{step}.{k}": y for k, y in log.items() if step == 0 or k in every}
            self.out |= {f"step{step}.time": np.array([t]), f"step{step}.x_t": x, f"step{step}.v_t": v}
            x, t, step = x + f64(dt) * v, f32(t + dt), step + 1
        self.out["out.actions"] = x

    def schedule(self, kind, times, noise):
        x, velocities = noise.astype(f64), []
        for now, then in zip(times[:-1], times[1:]):
            velocities.append(self.velocity(x, now, {}))
            x = x + f64(f32(then - now)) * velocities[-1]
        tag = f"sched.{kind}."
        self.out |= {tag + "timesteps": times, tag + "v": np.array(velocities), tag + "actions": x}


def pixels(u8):
    return (u8.astype(f32) / f32(255) * f32(2) - f32(1)).transpose(2, 0, 1)


def run(config, tensors, inputs):
    """The trace of a trace's inputs, with its schedules at the times it gives."""
    policy = Policy(config, tensors)
    images = [pixels(inputs[f"in.image.{name}.u8"]) for name in config["cameras"]]
    policy.prefix(images, inputs["in.image_mask"], inputs["in.tokens"], inputs["in.token_mask"])
    policy.sample(inputs["in.noise"])
    for kind in SCHEDULES:
        if f"sched.{kind}.timesteps" in inputs:
            policy.schedule(kind, inputs[f"sched.{kind}.timesteps"], inputs["in.noise"])
    out = {k: v.astype(f32) if v.dtype == f64 else v for k, v in policy.out.items()}
    out |= {k: v for k, v in inputs.items() if k.startswith("in.")}
    return out | {f"in.image.{name}.f32": image for name, image in zip(config["cameras"], images)}


# ---- comparing ----


def real_rows(name, x, pad):
    if name in ("prefix.pad_mask", "prefix.position_ids") or not name.startswith("prefix."):
        return x
    return x[:, pad] if name.endswith((".k", ".v")) else x[pad]


def check(trace, config, checkpoint, out):
    with open(config) as f:
        config = json.load(f)
    want = read(trace)
    got = run(config, read(checkpoint), want)
    if out:
        write(out, got, {"oracle": "masked_reference.py, numpy float64"})
    pad, groups = want["prefix.pad_mask"].astype(bool), {}
    for name in want:
        if name.startswith("bf16."):
            continue
        a, b = (real_rows(name, t[name].astype(f64), pad) for t in (want, got))
        assert a.shape == b.shape, name
        error = np.linalg.norm(a - b) / (np.linalg.norm(a) or 1)
        group = "v_t" if name.endswith(".v_t") else name.split(".")[0].rstrip("0123456789")
        groups[group] = max(groups.get(group, (-1, "")), (error, name))
    for group, (error, name) in groups.items():
        print(f"{group:8} {error:.3g}  {name}")
    missing = set(got) - set(want)
    print(f"{len(want)} tensors; computed, but not in the trace: {sorted(missing) or 'none'}")
    return int(max(error for error, _ in groups.values()) > 5e-6)


# ---- making ----


K = {
    "case": "K",
    "vision": {"width": 36, "depth": 3, "mlp_dim": 50, "heads": 3, "image": 30, "patch": 6},
    "gemma": {"width": 72, "depth": 2, "mlp_dim": 92, "heads": 4, "kv_heads": 2, "head_dim": 24},
    "expert": {"width": 44, "depth": 2, "mlp_dim": 68, "heads": 6, "kv_heads": 2, "head_dim": 24},
    "vocab": 97, "max_tokens": 19, "action_dim": 13, "horizon": 7, "num_steps": 4,
    "checkpoint": "tiny_k.safetensors", "cameras": ["head_rgb", "gripper_rgb"],
    "rms_norm_eps": 3e-5, "layer_norm_eps": 2e-5, "rope_theta": 700.0, "time_min_period": 0.01, "time_max_period": 3.0,
}


def shapes(c):
    v, g, e = c["vision"], c["gemma"], c["expert"]

    def dense(name, rows, cols, bias=True):
        yield name + ".weight", (rows, cols)
        if bias:
            yield name + ".bias", (rows,)

    def gemma(name, g, norm):
        for i in range(g["depth"]):
            layer, q, kv = f"{name}layers.{i}.", g["heads"] * g["head_dim"], g["kv_heads"] * g["head_dim"]
            for part, rows, cols in (("q", q, g["width"]), ("k", kv, g["width"]), ("v", kv, g["width"]), ("o", g["width"], q)):
                yield from dense(f"{layer}self_attn.{part}_proj", rows, cols, False)
            for part in ("gate", "up"):
                yield from dense(f"{layer}mlp.{part}_proj", g["mlp_dim"], g["width"], False)
            yield from dense(layer + "mlp.down_proj", g["width"], g["mlp_dim"], False)
            yield from norm(layer + "input_layernorm")
            yield from norm(layer + "post_attention_layernorm")
        yield from norm(name + "norm")

    yield TOWER + "embeddings.patch_embedding.weight", (v["width"], 3, v["patch"], v["patch"])
    yield TOWER + "embeddings.patch_embedding.bias", (v["width"],)
    yield TOWER + "embeddings.position_embedding.weight", ((v["image"] // v["patch"]) ** 2, v["width"])
    norms = [TOWER + "post_layernorm"]
    for i in range(v["depth"]):
        layer = f"{TOWER}encoder.layers.{i}."
        norms += [layer + "layer_norm1", layer + "layer_norm2"]
        for part in ("q", "k", "v", "out"):
            yield from dense(f"{layer}self_attn.{part}_proj", v["width"], v["width"])
        yield from dense(layer + "mlp.fc1", v["mlp_dim"], v["width"])
        yield from dense(layer + "mlp.fc2", v["width"], v["mlp_dim"])
    for name in norms:
        yield name + ".weight", (v["width"],)
        yield name + ".bias", (v["width"],)
    yield from dense(PALI + "model.multi_modal_projector.linear", g["width"], v["width"])
    yield PALI + "lm_head.weight", (c["vocab"], g["width"])
    yield from gemma(PREFIX, g, lambda name: [(name + ".weight", (g["width"],))])
    yield from gemma(EXPERT, e, lambda name: dense(name + ".dense", 3 * e["width"], e["width"]))
    yield from dense("action_in_proj", e["width"], c["action_dim"])
    yield from dense("action_out_proj", c["action_dim"], e["width"])
    yield from dense("time_mlp_in", e["width"], e["width"])
    yield from dense("time_mlp_out", e["width"], e["width"])


def is_island(name):
    """Kept in float32 by openpi when it serves bf16."""
    return "embeddings." in name or "layernorm." in name or "norm." in name or name.startswith(("action_", "time_"))


def random_weights(config, rng):
    """bf16 numbers of a size that keeps activations near 1; norms near their neutral value."""
    out = {}
    for name, shape in shapes(config):
        scale = 0.1 if len(shape) == 1 else 1 / np.sqrt(np.prod(shape[1:]))
        if name.endswith("position_embedding.weight"):
            scale = 0.3
        x = rng.standard_normal(shape) * scale
        if ".layer_norm" in name or "post_layernorm" in name:
            x += name.endswith(".weight")
        bits = np.asarray(x, f32).view("<u4") & 0xFFFF0000
        out[name] = bits.astype("<u4").view(f32)
    return out


def random_inputs(c, rng, image_mask, n_tokens):
    side, steps = c["vision"]["image"], c["num_steps"]
    inputs = {f"in.image.{name}.u8": rng.integers(0, 256, (side, side, 3), "u1") for name in c["cameras"]}
    inputs["in.image_mask"] = np.array(image_mask, "u1")
    inputs["in.tokens"] = rng.integers(0, c["vocab"], c["max_tokens"], "<i4")
    inputs["in.token_mask"] = (np.arange(c["max_tokens"]) < n_tokens).astype("u1")
    inputs["in.noise"] = rng.standard_normal((c["horizon"], c["action_dim"])).astype(f32)
    inputs["in.state"] = rng.standard_normal(c["action_dim"]).astype(f32)
    for kind, at in SCHEDULES.items():
        inputs[f"sched.{kind}.timesteps"] = np.array([at(i / steps) for i in range(steps + 1)]).astype(f32)
    return inputs


def make(data):
    with open(f"{data}/B.json") as f:
        m = json.load(f)
    m["case"] = "M"
    weights = random_weights(K, np.random.default_rng(11))
    write(f"{data}/tiny_k.safetensors", weights, {"made": "masked_reference.py"}, [n for n in weights if not is_island(n)])
    cases = (m, [1, 0, 1], 9, 12), (K, [1, 1], 15, 13)
    for config, image_mask, n_tokens, seed in cases:
        tensors = read(f"{data}/{config['checkpoint']}")
        inputs = random_inputs(config, np.random.default_rng(seed), image_mask, n_tokens)
        oracle = {"case": config["case"], "oracle": f"masked_reference.py, numpy {np.__version__}, float64"}
        write(f"{data}/{config['case']}.safetensors", run(config, tensors, inputs), oracle)
        with open(f"{data}/{config['case']}.json", "w") as f:
            json.dump(config, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    todo = parser.add_subparsers(dest="todo", required=True)
    one = todo.add_parser("check")
    for word in ("trace", "config", "checkpoint"):
        one.add_argument(word)
    one.add_argument("--write")
    todo.add_parser("make").add_argument("data")
    args = parser.parse_args()
    sys.exit(make(args.data) if args.todo == "make" else check(args.trace, args.config, args.checkpoint, args.write))
