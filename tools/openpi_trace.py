#!/usr/bin/env python3
"""Writes a trace from openpi's own PyTorch model, for `pivot verify`.

Run it with the Python of an openpi installation (openpi commit 15a9616, with its replaced transformers files in place):

    pivot run --model CHECKPOINT ... --dump inputs.safetensors         # fixes pictures, token ids and noise
    python tools/openpi_trace.py --config pi05_libero --checkpoint CHECKPOINT/model.safetensors \\
        --inputs inputs.safetensors --out trace.safetensors
    pivot verify --model CHECKPOINT --trace trace.safetensors

The model runs in float32 with eager attention, without torch.compile and without TF32. Hooks on its modules
(src/openpi/models_pytorch/pi0_pytorch.py, gemma_pytorch.py) collect what docs/traces.md names. The inputs may be any
trace: its in.* tensors are used and copied.

Not run against an installation of openpi so far: its module names come from reading the source. What does not need openpi
(hooks, names, schedules, files) is tested with a stand-in model of the same structure (tests/openpi_trace.py).
"""
import argparse
import contextlib
import dataclasses
import math
import sys
import types

try:
    import torch
    from safetensors.torch import load_file, load_model, save_file
except ImportError as e:
    sys.exit(f"openpi_trace.py: {e}; run it with the Python of an openpi installation")

CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")  # openpi's order, src/openpi/models/model.py
SCHEDULES = ("linear", "cosine", "quadratic", "sigmoid")


def schedule(kind, steps):
    """Times from 1 (noise) to 0 (actions), steps + 1 of them, formed in float64 and rounded once."""
    def logistic(s):
        return 1 / (1 + math.exp(-10 * (s - 0.5)))

    def at(s):
        if kind == "linear":
            return 1 - s
        if kind == "cosine":
            return math.cos(math.pi * s / 2)
        if kind == "quadratic":
            return 1 - s * s
        if kind == "sigmoid":
            return 1 - (logistic(s) - logistic(0)) / (logistic(1) - logistic(0))
        raise ValueError(f"unknown schedule {kind}")

    return torch.tensor([at(i / steps) for i in range(steps + 1)], dtype=torch.float64).to(torch.float32)


def first(value):
    """The tensor of a module's output: transformers' layers answer with tuples, the norms with (value, gate)."""
    return value[0] if isinstance(value, (tuple, list)) else value


class Recorder:
    """Hooks on a PI0Pytorch; `trace` fills while one inference runs. Batch 1, its axis dropped.

    Where a module runs tells which name its output gets: vision modules by how many cameras came before, the expert by the
    number of the step. Of steps after the first only the small tensors are kept.
    """

    def __init__(self, model, cameras):
        self.model, self.cameras = model, list(cameras)
        self.trace = {}
        self.camera = self.step = -1
        self.on = True
        self.context = None  # what denoise_step was given: for further schedules
        self.handles = []
        self.attach()

    def keep(self, name, value):
        if not self.on:
            return
        if value.ndim and value.shape[0] == 1:
            value = value[0]
        if name in self.trace:
            raise RuntimeError(f"{name} came twice: this model's structure is not the one expected")
        self.trace[name] = value.detach().to("cpu", torch.float32).clone().contiguous()

    def hook(self, module, name, only=lambda: True):
        """`name`: a function, since camera and step are known only when the module runs."""
        def after(_module, _inputs, output):
            if only():
                self.keep(name(), first(output))
        self.handles.append(module.register_forward_hook(after))

    def before(self, module, act):
        """act(hidden states or whatever the first argument is) ahead of the module."""
        def call(_module, args, kwargs):
            act(args[0] if args else kwargs["hidden_states"])
        self.handles.append(module.register_forward_pre_hook(call, with_kwargs=True))

    def attach(self):
        both = self.model.paligemma_with_expert
        inner = both.paligemma.model
        self.attach_vision(inner.vision_tower.vision_model, inner.multi_modal_projector)
        self.attach_prefix(inner.language_model)
        self.attach_expert(both.gemma_expert.model)
        self.wrap()

    def attach_vision(self, tower, projector):
        def name(part):
            return lambda: f"vision.{self.cameras[self.camera]}.{part}"

        def next_camera(_module, _args):
            self.camera += 1
        self.handles.append(tower.embeddings.register_forward_pre_hook(next_camera))
        self.hook(tower.embeddings, name("embeddings"))
        for i, layer in enumerate(tower.encoder.layers):
            self.hook(layer, name(f"layer{i}.out"))
        self.hook(tower.post_layernorm, name("post_ln"))
        self.hook(projector, name("projected"))

    def attach_prefix(self, language):
        self.before(language.layers[0], lambda x: self.keep("prefix.embs", x))
        for i, layer in enumerate(language.layers):
            self.hook(layer.self_attn, lambda i=i: f"prefix.layer{i}.attn_out")
            self.hook(layer.mlp, lambda i=i: f"prefix.layer{i}.mlp_out")
            self.hook(layer, lambda i=i: f"prefix.layer{i}.out")
        self.hook(language.norm, lambda: "prefix.norm_out")

    def attach_expert(self, expert):
        def at_first():
            return self.step == 0
        for i, layer in enumerate(expert.layers):
            def name(part, i=i):
                return lambda: f"step0.layer{i}.{part}"
            self.hook(layer.input_layernorm.dense, name("ada_in"), at_first)
            self.hook(layer.post_attention_layernorm.dense, name("ada_post"), at_first)
            self.hook(layer.self_attn, name("attn_out"), at_first)
            self.hook(layer.mlp, name("mlp_out"), at_first)
            self.hook(layer, name("out"), at_first)
        self.hook(expert.norm.dense, lambda: "step0.ada_final", at_first)
        self.hook(expert.norm, lambda: "step0.norm_out", at_first)
        self.hook(self.model.action_in_proj, lambda: f"step{self.step}.suffix_in")
        def time_emb(_module, args):
            self.keep(f"step{self.step}.time_emb", args[0])
        self.handles.append(self.model.time_mlp_in.register_forward_pre_hook(time_emb))

    def wrap(self):
        """The three methods whose arguments or results are no module's output, replaced on this one object."""
        model = self.model
        embed_prefix, embed_suffix, denoise_step = model.embed_prefix, model.embed_suffix, model.denoise_step

        def prefix(*args, **kwargs):
            result = embed_prefix(*args, **kwargs)
            mask = result[1][0]
            self.trace["prefix.pad_mask"] = mask.to("cpu", torch.uint8).contiguous()
            self.trace["prefix.position_ids"] = (torch.cumsum(mask, 0) - 1).to("cpu", torch.int32).contiguous()
            return result

        def suffix(*args, **kwargs):
            result = embed_suffix(*args, **kwargs)
            self.keep(f"step{self.step}.cond", result[3])
            return result

        def denoise(state, prefix_pad_masks, past_key_values, x_t, timestep):
            self.step += 1
            if self.on and self.step == 0:
                self.context = (state, prefix_pad_masks, past_key_values)
                self.keep_cache(past_key_values)
            if self.on:
                self.trace[f"step{self.step}.time"] = timestep.detach().to("cpu", torch.float32).clone()
            self.keep(f"step{self.step}.x_t", x_t)
            v_t = denoise_step(state, prefix_pad_masks, past_key_values, x_t, timestep)
            self.keep(f"step{self.step}.v_t", v_t)
            return v_t

        model.embed_prefix, model.embed_suffix, model.denoise_step = prefix, suffix, denoise

    def keep_cache(self, cache):
        for i in range(len(self.model.paligemma_with_expert.paligemma.model.language_model.layers)):
            k, v = cache[i][:2]  # [1, kv_heads, prefix, head]
            self.keep(f"prefix.layer{i}.k", k)
            self.keep(f"prefix.layer{i}.v", v)

    def run_schedule(self, kind, noise, steps):
        """openpi's loop with other times, on the cache of the inference before."""
        times = schedule(kind, steps).to(noise.device)
        x, velocities = noise, []
        self.on = False
        try:
            for i in range(steps):
                v = self.model.denoise_step(*self.context, x, times[i].expand(1))
                velocities.append(v[0])
                x = x + (times[i + 1] - times[i]) * v
        finally:
            self.on = True
        self.trace[f"sched.{kind}.timesteps"] = times.cpu()
        self.trace[f"sched.{kind}.v"] = torch.stack(velocities).cpu().contiguous()
        self.trace[f"sched.{kind}.actions"] = x[0].cpu().contiguous()

    def detach(self):
        for handle in self.handles:
            handle.remove()
        for name in ("embed_prefix", "embed_suffix", "denoise_step"):
            delattr(self.model, name)


# ---- inputs ----

def read_inputs(path):
    """The in.* tensors of a trace, and the cameras in openpi's order."""
    inputs = {k: v for k, v in load_file(path).items() if k.startswith("in.")}
    for name in ("in.tokens", "in.token_mask", "in.image_mask", "in.noise"):
        if name not in inputs:
            sys.exit(f"{path}: tensor '{name}' is missing; `pivot run --dump FILE` writes it")
    present = [k[len("in.image."):-len(".u8")] for k in inputs if k.startswith("in.image.") and k.endswith(".u8")]
    if sorted(present) != sorted(CAMERAS):
        sys.exit(f"{path}: expected pictures of {', '.join(CAMERAS)}, came {', '.join(present) or 'none'}")
    return inputs


def observation(inputs, device):
    """What PI0Pytorch.sample_actions reads of openpi's Observation."""
    images, masks = {}, {}
    for i, camera in enumerate(CAMERAS):
        u8 = inputs[f"in.image.{camera}.u8"].to(device)
        f32 = u8.to(torch.float32) / 255.0 * 2.0 - 1.0
        inputs[f"in.image.{camera}.f32"] = f32.permute(2, 0, 1).contiguous().cpu()
        images[camera] = f32.permute(2, 0, 1)[None].contiguous()
        masks[camera] = inputs["in.image_mask"][i:i + 1].to(device, torch.bool)
    action_dim = inputs["in.noise"].shape[1]
    state = inputs.setdefault("in.state", torch.zeros(action_dim))  # pi0.5 does not read it
    return types.SimpleNamespace(
        images=images, image_masks=masks, state=state.to(device, torch.float32)[None],
        tokenized_prompt=inputs["in.tokens"].to(device, torch.int64)[None],
        tokenized_prompt_mask=inputs["in.token_mask"].to(device, torch.bool)[None],
        token_ar_mask=None, token_loss_mask=None)


# ---- one inference ----

def record(model, inputs, device, steps, schedules):
    """in.* tensors -> all tensors of the trace."""
    obs = observation(inputs, device)
    noise = inputs["in.noise"].to(device, torch.float32)[None]
    recorder = Recorder(model, CAMERAS)
    try:
        with torch.no_grad(), exact_float32():
            # The class's own method: the constructor put a compiled one on the object.
            actions = type(model).sample_actions(model, device, obs, noise=noise, num_steps=steps)
            recorder.trace["out.actions"] = actions[0].to("cpu", torch.float32).contiguous()
            for kind in schedules:
                recorder.run_schedule(kind, noise, steps)
    finally:
        recorder.detach()
    return {**inputs, **recorder.trace}


@contextlib.contextmanager
def exact_float32():
    """openpi's constructor allows TF32."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def use_eager(module):
    """Every attention of the model by the plain formula, SigLIP's too."""
    for part in module.modules():
        config = getattr(part, "config", None)
        if config is not None and hasattr(config, "_attn_implementation"):
            config._attn_implementation = "eager"


def load_openpi(config_name, checkpoint, device):
    from openpi.models_pytorch.pi0_pytorch import PI0Pytorch
    from openpi.training import config as training_config
    config = dataclasses.replace(training_config.get_config(config_name).model, dtype="float32")
    model = PI0Pytorch(config)
    missing, unexpected = load_model(model, checkpoint, strict=False)
    missing = [name for name in missing if not name.endswith(("gemma_expert.lm_head.weight", "embed_tokens.weight",
                                                              "paligemma.lm_head.weight"))]
    if missing or unexpected:
        sys.exit(f"{checkpoint}: missing {list(missing)[:4]}, unexpected {list(unexpected)[:4]}")
    model.to(device=device, dtype=torch.float32).eval()
    use_eager(model)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--config", required=True, metavar="NAME", help="openpi training config, such as pi05_libero")
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="model.safetensors as openpi exports it")
    parser.add_argument("--inputs", required=True, metavar="FILE", help="trace with in.* tensors (pivot run --dump)")
    parser.add_argument("--out", required=True, metavar="FILE", help="the trace to write")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="denoising steps (default: 10)")
    parser.add_argument("--schedule", action="append", choices=SCHEDULES, default=[],
                        help="also run this schedule; may be given several times")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    inputs = read_inputs(args.inputs)
    model = load_openpi(args.config, args.checkpoint, args.device)
    horizon = model.config.action_horizon
    if inputs["in.noise"].shape[0] != horizon:
        sys.exit(f"{args.inputs}: noise of {inputs['in.noise'].shape[0]} action steps, {args.config} has {horizon}")
    trace = record(model, inputs, args.device, args.steps, args.schedule)
    save_file(trace, args.out, metadata={"source": f"openpi, config {args.config}, float32, torch {torch.__version__}"})
    print(f"{args.out}: {len(trace)} tensors")


if __name__ == "__main__":
    main()
