#!/usr/bin/env python3
"""Tests tools/openpi_trace.py on a stand-in: a small Pi0.5 of our own with the module names, call structure and tuple
outputs of openpi's PI0Pytorch. Fed with data/A and data/B, the trace must have openpi's names, shapes and values.

Leaves with 77 (skipped) where torch or safetensors is not installed.
"""
import importlib.util
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import types

try:
    import torch
    from safetensors.torch import load_file, load_model, save_file
    from torch import nn
    from torch.nn import functional as F
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(77)

HERE = pathlib.Path(__file__).parent
sys.dont_write_bytecode = True
spec = importlib.util.spec_from_file_location("openpi_trace", HERE.parent / "tools" / "openpi_trace.py")
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


def holder(**parts):
    module = nn.Module()
    for name, part in parts.items():
        setattr(module, name, part)
    return module


# ---- SigLIP ----

class Embeddings(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, c["width"], c["patch"], c["patch"])
        self.position_embedding = nn.Embedding((c["image"] // c["patch"]) ** 2, c["width"])

    def forward(self, pixels):
        return self.patch_embedding(pixels).flatten(2).transpose(1, 2) + self.position_embedding.weight


class VisionAttention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads = c["heads"]
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self, name, nn.Linear(c["width"], c["width"]))

    def forward(self, x):
        q, k, v = (p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        weights = torch.softmax(q @ k.transpose(2, 3) * q.shape[-1] ** -0.5, -1)
        return self.out_proj((weights @ v).transpose(1, 2).flatten(2)), weights


class VisionMLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(c["width"], c["mlp_dim"]), nn.Linear(c["mlp_dim"], c["width"])

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class VisionLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(c["width"], 1e-6), nn.LayerNorm(c["width"], 1e-6)
        self.self_attn, self.mlp = VisionAttention(c), VisionMLP(c)

    def forward(self, x):
        x = x + self.self_attn(self.layer_norm1(x))[0]
        return (x + self.mlp(self.layer_norm2(x)),)


class VisionModel(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embeddings = Embeddings(c)
        self.encoder = holder(layers=nn.ModuleList(VisionLayer(c) for _ in range(c["depth"])))
        self.post_layernorm = nn.LayerNorm(c["width"], 1e-6)

    def forward(self, pixels):
        x = self.embeddings(pixels)
        for layer in self.encoder.layers:
            x = layer(x)[0]
        return self.post_layernorm(x)


# ---- Gemma ----

class Norm(nn.Module):
    def __init__(self, width, cond=None):
        super().__init__()
        if cond:
            self.dense = nn.Linear(cond, 3 * width)
        else:
            self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x, cond=None):
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        if cond is None:
            return x * (1 + self.weight), None
        scale, shift, gate = self.dense(cond)[:, None].chunk(3, -1)
        return x * (1 + scale) + shift, gate


def rotate(x, positions):
    half = x.shape[-1] // 2
    inverse = 1.0 / 10000.0 ** (torch.arange(0, 2 * half, 2).float() / (2 * half))
    angle = (positions[:, None].float() * inverse)[None, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.q_proj = nn.Linear(c["width"], c["heads"] * c["head_dim"], bias=False)
        self.k_proj = nn.Linear(c["width"], c["kv_heads"] * c["head_dim"], bias=False)
        self.v_proj = nn.Linear(c["width"], c["kv_heads"] * c["head_dim"], bias=False)
        self.o_proj = nn.Linear(c["heads"] * c["head_dim"], c["width"], bias=False)

    def forward(self, hidden_states, mask, positions, cache, i, store):
        def split(p):
            return p(hidden_states).unflatten(-1, (-1, self.c["head_dim"])).transpose(1, 2)
        q, k, v = rotate(split(self.q_proj), positions), rotate(split(self.k_proj), positions), split(self.v_proj)
        if store:
            cache.append((k, v))
        else:
            k, v = torch.cat([cache[i][0], k], 2), torch.cat([cache[i][1], v], 2)
        weights = torch.softmax(q @ k.transpose(2, 3) * self.c["head_dim"] ** -0.5 + mask, -1)
        return self.o_proj((weights @ v).transpose(1, 2).flatten(2)), weights


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c["width"], c["mlp_dim"], bias=False)
        self.up_proj = nn.Linear(c["width"], c["mlp_dim"], bias=False)
        self.down_proj = nn.Linear(c["mlp_dim"], c["width"], bias=False)

    def forward(self, x):
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c, cond):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = Norm(c["width"], cond), Norm(c["width"], cond)
        self.self_attn, self.mlp = Attention(c), MLP(c)

    def forward(self, hidden_states, mask, positions, cache, i, store, cond):
        h, gate = self.input_layernorm(hidden_states, cond)
        h = self.self_attn(hidden_states=h, mask=mask, positions=positions, cache=cache, i=i, store=store)[0]
        x = hidden_states + (h if gate is None else h * gate)
        h, gate = self.post_attention_layernorm(x, cond)
        h = self.mlp(h)
        return (x + (h if gate is None else h * gate),)


class Gemma(nn.Module):
    def __init__(self, c, cond=None, vocab=None):
        super().__init__()
        self.layers = nn.ModuleList(Layer(c, cond) for _ in range(c["depth"]))
        self.norm = Norm(c["width"], cond)
        if vocab:
            self.embed_tokens = nn.Embedding(vocab, c["width"])

    def forward(self, x, mask, positions, cache, store, cond=None):
        for i, layer in enumerate(self.layers):
            x = layer(x, mask=mask, positions=positions, cache=cache, i=i, store=store, cond=cond)[0]
        return self.norm(x, cond)[0]


# ---- PI0Pytorch ----

class StandIn(nn.Module):
    def __init__(self, c):
        super().__init__()
        width, self.c = c["expert"]["width"], c
        language = Gemma(c["gemma"], vocab=c["vocab"])
        paligemma = holder(model=holder(
            vision_tower=holder(vision_model=VisionModel(c["vision"])),
            multi_modal_projector=holder(linear=nn.Linear(c["vision"]["width"], c["gemma"]["width"])),
            language_model=language))
        paligemma.lm_head = nn.Linear(c["gemma"]["width"], c["vocab"], bias=False)
        paligemma.lm_head.weight = language.embed_tokens.weight
        projector = paligemma.model.multi_modal_projector
        projector.forward = lambda x: projector.linear(x)
        expert = holder(model=Gemma(c["expert"], cond=width), lm_head=nn.Linear(width, c["vocab"], bias=False))
        self.paligemma_with_expert = holder(paligemma=paligemma, gemma_expert=expert)
        self.action_in_proj, self.action_out_proj = nn.Linear(c["action_dim"], width), nn.Linear(width, c["action_dim"])
        self.time_mlp_in, self.time_mlp_out = nn.Linear(width, width), nn.Linear(width, width)
        self.sample_actions = self.compiled  # as openpi's constructor does

    def compiled(self, *args, **kwargs):
        raise AssertionError("the compiled method was called")

    def embed_prefix(self, images, img_masks, tokens, token_mask):
        inner = self.paligemma_with_expert.paligemma.model
        parts = [inner.multi_modal_projector(inner.vision_tower.vision_model(image)) for image in images]
        masks = [m[:, None].expand(1, p.shape[1]) for m, p in zip(img_masks, parts)]
        text = inner.language_model.embed_tokens(tokens)
        return torch.cat([*parts, text * math.sqrt(text.shape[-1])], 1), torch.cat([*masks, token_mask], 1), None

    def embed_suffix(self, state, x_t, time):
        half = self.c["expert"]["width"] // 2
        fraction = torch.linspace(0.0, 1.0, half, dtype=torch.float64)
        scale = 1.0 / (4e-3 * (4.0 / 4e-3) ** fraction) * 2 * math.pi
        angle = scale[None] * time[:, None]
        emb = torch.cat([angle.sin(), angle.cos()], 1).to(time.dtype)
        return self.action_in_proj(x_t), None, None, F.silu(self.time_mlp_out(F.silu(self.time_mlp_in(emb))))

    @torch.no_grad()
    def sample_actions(self, device, obs, noise=None, num_steps=10):
        embs, pad, _ = self.embed_prefix(list(obs.images.values()), list(obs.image_masks.values()),
                                         obs.tokenized_prompt, obs.tokenized_prompt_mask)
        mask = torch.where(pad[:, None, None, :] & pad[:, None, :, None], 0.0, -2.3819763e38)
        cache = []
        # .forward, as openpi does: hooks on the whole language model would see nothing
        self.paligemma_with_expert.paligemma.model.language_model.forward(embs, mask, torch.cumsum(pad[0], 0) - 1, cache, True)
        dt, time = torch.tensor(-1.0 / num_steps), torch.tensor(1.0)
        x_t = noise
        while time >= -dt / 2:
            x_t = x_t + dt * self.denoise_step(obs.state, pad, cache, x_t, time.expand(1))
            time += dt
        return x_t

    def denoise_step(self, state, pad, cache, x_t, time):
        h, _, _, cond = self.embed_suffix(state, x_t, time)
        n = h.shape[1]
        seen = torch.cat([pad, torch.ones(1, n, dtype=torch.bool)], 1)[:, None, None, :]
        out = self.paligemma_with_expert.gemma_expert.model.forward(
            h, torch.where(seen, 0.0, -2.3819763e38), pad.sum() + torch.arange(n), cache, False, cond)
        return self.action_out_proj(out)


# ---- tests ----

def check(condition, what):
    if not condition:
        print(f"failed: {what}")
        sys.exit(1)


def masked_rows(golden, name, value):
    """Rows that openpi leaves undefined are not compared."""
    if not name.startswith("prefix.") or value.dtype != torch.float32:
        return value
    keep = golden["prefix.pad_mask"].bool()
    return value[:, keep] if name.endswith((".k", ".v")) else value[keep]


def run_case(case):
    config = json.loads((HERE / "data" / f"{case}.json").read_text())
    golden = load_file(HERE / "data" / f"{case}.safetensors")
    model = StandIn(config).eval()
    missing, unexpected = load_model(model, HERE / "data" / config["checkpoint"], strict=False)
    check(not unexpected and not missing, f"{case}: weights {missing} {unexpected}")
    names = [n for n in golden if not n.startswith("bf16.")]
    schedules = [k for k in tool.SCHEDULES if f"sched.{k}.v" in golden]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/inputs.safetensors"
        save_file({n: golden[n] for n in names if n.startswith("in.") and not n.endswith(".f32")}, path)
        trace = tool.record(model, tool.read_inputs(path), "cpu", config["num_steps"], schedules)
        save_file(trace, f"{folder}/out.safetensors")
        trace = load_file(f"{folder}/out.safetensors")
    check(sorted(trace) == sorted(names), f"{case}: names differ: {sorted(set(trace) ^ set(names))[:8]}")
    worst = 0
    for name in names:
        want, got = golden[name], trace[name]
        check(want.shape == got.shape and want.dtype == got.dtype,
              f"{case}: {name}: expected {want.dtype} {tuple(want.shape)}, came {got.dtype} {tuple(got.shape)}")
        want, got = (masked_rows(golden, name, v).double() for v in (want, got))
        error = ((got - want).norm() / want.norm().clamp(min=1e-30)).item()
        # One ulp of a time near 1 turns the fastest part of its embedding by 1e-4 rad: data/ has its times from float64 too,
        # but torch and libm round differently.
        bound = 2e-7 if name.endswith("timesteps") else 3e-5 if name.startswith("sched.") else 5e-6
        check(error <= bound, f"{case}: {name}: relative L2 {error:.3g}")
        worst = max(worst, error)
    check("embed_prefix" not in vars(model) and not any(m._forward_hooks for m in model.modules()), "hooks were left behind")
    print(f"{case}: {len(names)} tensors, worst relative L2 {worst:.3g}")


def refusals():
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/x.safetensors"
        save_file({"in.tokens": torch.zeros(3)}, path)
        try:
            tool.read_inputs(path)
            check(False, "inputs without noise were accepted")
        except SystemExit as e:
            check("in.token_mask" in str(e), f"the words of the refusal: {e}")
    layer = nn.Linear(2, 2)
    layer.config = types.SimpleNamespace(_attn_implementation="sdpa")
    tool.use_eager(nn.Sequential(layer))
    check(layer.config._attn_implementation == "eager", "use_eager")
    text = subprocess.run([sys.executable, "-B", HERE.parent / "tools" / "openpi_trace.py", "--help"], capture_output=True,
                          text=True, check=True).stdout
    check("--checkpoint" in text and "--inputs" in text, "--help")


for case in ("A", "B"):
    run_case(case)
refusals()
print("passed")
