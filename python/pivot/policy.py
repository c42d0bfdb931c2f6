"""A policy at work: a checkpoint on a device, observations in, action chunks out.

Life: `load` opens a backend and a model and makes a session. `close`, the end of a `with` block or the garbage collector
frees the session; backend and model go with the last policy that uses them, in whatever order that happens.

Threads: a policy runs one inference at a time; others that call it meanwhile wait. `twin` makes a second policy on the
same weights, and the two run side by side. The interpreter's lock is not held while the library works.

Processes: a policy belongs to the process that made it. After os.fork the child is refused, and frees nothing.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import threading
import time
import types
import weakref
from collections.abc import Callable, Mapping, Sequence
from ctypes import byref
from typing import Any, Optional, Union

import numpy as np
from numpy.typing import NDArray

from . import _library as c
from . import arrays, device as devices
from .device import Device, log
from .errors import ArgumentError, Error, ShapeError, UnavailableError
from .robot import Robot, RobotInfo

Progress = Callable[[str, int, int], None]
Path = Union[str, "os.PathLike[str]"]


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """What a checkpoint says of itself."""

    horizon: int  #: rows of a chunk
    model_dim: int  #: columns of a chunk in model units, and of the noise
    action_dim: int  #: columns of a chunk in robot units: as the statistics say; model_dim without statistics
    state_dim: int  #: most numbers a state may have
    max_tokens: int  #: of the prompt
    image_size: int  #: side of the picture the model sees
    steps: int  #: denoising steps unless a call says otherwise
    cameras: tuple[str, ...]  #: names, in the model's order
    has_stats: bool
    has_tokenizer: bool
    discrete_state: bool  #: is the state told as digits in the prompt?
    zscore: bool  #: mean and standard deviation in place of quantiles
    layout: str  #: "openpi", "lerobot", "file", "synthetic"
    parameters: int


class _Loaded:
    """Backend, model and robot, freed with the last session that holds them."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.model = c.HANDLE()
        self.robot: Robot | None = None
        self.recorder = c.HANDLE()
        self.users = 1
        self.lock = threading.Lock()

    def hold(self) -> _Loaded:
        with self.lock:
            self.users += 1
        return self

    def drop(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users:
                return
        c.lib.pv_recorder_close(byref(self.recorder))  # when all is written
        if self.robot:
            self.robot.free()
        c.lib.pv_model_free(byref(self.model))
        c.lib.pv_backend_close(byref(self.backend))

    def describe(self) -> ModelInfo:
        info = c.pv_model_info()
        c.check(c.lib.pv_model_describe(self.model, byref(info)))
        return ModelInfo(
            cameras=tuple(name.decode() for name in info.camera[: info.n_cameras]),
            layout=info.layout.decode(),
            **{
                field.name: getattr(info, field.name)
                for field in dataclasses.fields(ModelInfo)
                if field.name not in ("cameras", "layout")
            },
        )

    def device(self) -> Device:
        info = c.pv_device_info()
        c.check(c.lib.pv_backend_device(self.backend, byref(info)))
        return devices.from_c(info)


@dataclasses.dataclass(frozen=True)
class _Options:
    """What a policy and its twins have in common."""

    recipe: Optional[bytes]
    rope_bf16: bool
    steps: int
    schedule: Optional[bytes]
    allow_truncation: bool
    seed: int
    metadata: dict[str, Any]


def _destroy(session: Any, frame: Any, loaded: _Loaded, process: int) -> None:
    if os.getpid() == process:  # a child has neither the threads nor the device that would have to be ended
        c.lib.pv_frame_free(byref(frame))
        c.lib.pv_session_destroy(byref(session))
        loaded.drop()


class Policy:
    """A checkpoint on a device; made by `load` or `twin`. Has the methods of openpi's BasePolicy."""

    info: ModelInfo

    def __init__(self, loaded: _Loaded, options: _Options, progress: Progress | None = None) -> None:
        self._options = options
        self._loaded = loaded
        self._lock = threading.RLock()  # a signal handler may close the policy that its own thread is using
        self._process = os.getpid()
        self._count = 0
        self._session = c.HANDLE()
        self._frame = c.HANDLE()  # what the robot saw last
        self.info = loaded.describe()
        self._device = loaded.device()
        self._robot = loaded.robot.info if loaded.robot else None
        failed: list[BaseException] = []

        def report(_user: Any, what: bytes, done: int, total: int) -> None:
            try:
                if progress and not failed:
                    progress(what.decode(), done, total)
            except BaseException as wrong:  # C cannot be unwound: it is raised when C is done
                failed.append(wrong)

        callback = c.progress_fn(report)
        params = c.pv_session_params(recipe=options.recipe, max_steps=options.steps, rope_bf16=options.rope_bf16)
        if progress:
            params.progress = callback
        c.check(c.lib.pv_session_create(loaded.model, loaded.backend, byref(params), byref(self._session)))
        self._finalize = weakref.finalize(self, _destroy, self._session, self._frame, loaded.hold(), self._process)
        self._finalize.atexit = False  # another thread may be at work in it; the process ends anyway
        if failed:
            self.close()
            raise failed[0]

    # ---- openpi's BasePolicy ----

    def infer(
        self,
        observation: Mapping[str, Any],
        *,
        noise: object = None,
        seed: int | None = None,
        steps: int | None = None,
        schedule: str | None = None,
        timesteps: object = None,
        id: int | None = None,
        seen_at: float | None = None,
    ) -> dict[str, Any]:
        """Runs the policy once; blocks until the actions are there.

        observation, of a policy without a robot
            "images"   {camera: uint8 [height, width, 3], RGB}: at least one of `info.cameras`; one that is not there is absent
            "prompt"   the task in words, or in its place
            "tokens"   token ids [n], used as they are
            "state"    [n] in robot units, as in the statistics; optional unless the state is told in the prompt
            "noise"    as below; optional
            Arrays are read during the call alone, and copied only where their memory layout or dtype asks for it.
        observation, of a policy with a robot
            what openpi's policy for that robot takes, flat ("observation/image") or as maps in maps; `robot` tells the keys.
            Other keys are passed over, except where the robot's description says otherwise
        noise
            float32 [horizon, model_dim] or [1, horizon, model_dim] to start from
        seed
            draws the noise, when none is given. Without either, the policy's n-th such inference draws from its own seed + n.
        steps, schedule, timesteps
            of the denoising, in place of those of `load`. timesteps: [steps + 1] from 1 (noise) down to 0 (actions)
        id
            number of the observation, above 0, which comes back in "timing"; else the policy counts its calls, from 1
        seen_at
            when the observation was seen, in seconds of time.monotonic(): its age in "timing" counts from there; else from
            the call

        Returns {"actions": [horizon, action_dim], "policy_timing": {"infer_ms"}, "timing": {...}}. Actions are the robot's
        own, float64; without a robot float64 in the units of the statistics; without statistics either, float32 in model
        units. Times are milliseconds.

        Raises an `Error`; then nothing was run, or what was run is thrown away, and the policy can be used again unless a
        `DeviceError` says otherwise.
        """
        info, robot = self.info, self._loaded.robot
        if not isinstance(observation, Mapping):
            raise ArgumentError(f"observation: expected a dict, came {type(observation).__name__}")
        if not robot and observation.get("noise") is not None:
            if noise is not None:
                raise ArgumentError("noise: given twice, in the observation and as an argument")
            noise = observation["noise"]
        if noise is not None and seed is not None:
            raise ArgumentError("noise and seed exclude each other")
        if schedule is not None and timesteps is not None:
            raise ArgumentError("schedule and timesteps exclude each other")
        start = None if noise is None else arrays.noise(noise, info.horizon, info.model_dim)
        times = None if timesteps is None else arrays.timesteps(timesteps)
        if times is not None:
            if steps is not None and steps != times.size - 1:
                raise ArgumentError(f"steps: {steps}, but there are the {times.size} times of {times.size - 1} steps")
            steps = times.size - 1
        options = self._options
        actions: NDArray[Any] = np.empty((info.horizon, info.action_dim), np.float32)
        exact = np.empty((info.horizon, info.action_dim), np.float64)
        params = c.pv_infer_params(
            noise=arrays.f32(start),
            steps=options.steps if steps is None else c.whole_number("steps", steps),
            schedule=options.schedule if schedule is None else c.text("schedule", schedule),
            timesteps=arrays.f32(times),
            allow_truncation=options.allow_truncation,
            actions_f64=arrays.f64(exact),
        )
        timing = c.pv_timing()
        number = 0 if id is None else c.whole_number("id", id, 2**64 - 1)
        since = time.monotonic() if seen_at is None else float(seen_at)
        fields, alive = robot.fields(observation) if robot else _no_fields()
        seen, arrays_of = (c.pv_observation(), ()) if robot else _plain(observation)
        with self._lock:
            self._must_be_usable()
            draws = noise is None and seed is None
            params.seed = self._seed(seed)
            begun = time.perf_counter()
            if robot:
                c.check(c.lib.pv_robot_observe(robot.handle, fields, len(fields), byref(self._frame)))
                ctypes.pointer(seen)[0] = c.lib.pv_frame_observation(self._frame).contents  # a copy
            seen.id, seen.seen_ms = number, since * 1e3
            ready = time.perf_counter()
            c.check(c.lib.pv_session_infer(self._session, byref(seen), byref(params), arrays.f32(actions)))
            c.check(c.lib.pv_session_timing(self._session, byref(timing)))
            done = time.perf_counter()
            if robot:
                exact = robot.act(self._loaded.model, self._frame, exact)
            self._count += draws
            if self._loaded.recorder:
                self._record(seen, fields, exact)
        robot_ms = (ready - begun + time.perf_counter() - done) * 1e3
        del alive, arrays_of  # until here
        return {
            "actions": exact if robot or info.has_stats else actions,
            "policy_timing": {"infer_ms": timing.total_ms},
            "timing": {**timing.as_dict(), **({"robot_ms": robot_ms} if robot else {})},
        }

    def _record(self, seen: c.pv_observation, fields: Any, actions: NDArray[np.float64]) -> None:
        record, robot = c.pv_record(source=b"Python"), self._loaded.robot
        if robot:
            record.robot, record.fields, record.n_fields = robot.handle, fields, len(fields)
            record.actions = arrays.f64(actions)
        else:
            record.observation = ctypes.pointer(seen)
        try:
            c.check(c.lib.pv_recorder_put(self._loaded.recorder, self._session, byref(record)))
        except Error as wrong:  # no reason to withhold the actions
            log.warning("not recorded: %s", wrong)

    def reset(self) -> None:
        """Begins anew: the next inference without noise or seed draws the noise that the policy's first one drew."""
        with self._lock:
            self._count = 0

    @property
    def metadata(self) -> dict[str, Any]:
        """What `load` was given as metadata; openpi's server sends it to its clients."""
        return dict(self._options.metadata)

    # ---- what it is ----

    @property
    def device(self) -> Device:
        """What it runs on; `device.backend` is what "auto" chose. Clocks are those of when the policy was made."""
        return self._device

    @property
    def robot(self) -> RobotInfo | None:
        """Whose observations it takes; None: plain ones."""
        return self._robot

    @property
    def closed(self) -> bool:
        return not self._finalize.alive

    def memory(self) -> dict[str, int]:
        """Bytes: of weights (which twins share), of what is kept on the host, and of this policy's plans."""
        info = c.pv_memory_info()
        with self._lock:
            self._must_be_usable()
            c.check(c.lib.pv_session_memory(self._session, byref(info)))
        return info.as_dict()

    def recordings(self, wait: float = 0.0) -> dict[str, Any] | None:
        """Of `load(..., record=)`, twins included: how many were written and dropped, and why, bytes of the folder, how many wait
        for the disk, the last error. Waits so many seconds for those that wait. None: nothing is recorded."""
        recorder, info = self._loaded.recorder, c.pv_recorder_info()
        self._must_be_usable()
        if not recorder:
            return None
        try:
            c.check(c.lib.pv_recorder_flush(recorder, float(wait) * 1e3))
        except UnavailableError:
            pass  # `waiting` says how many
        c.check(c.lib.pv_recorder_describe(recorder, byref(info)))
        return {**info.as_dict(), "error": info.error.decode("utf-8", "replace")}

    # ---- life ----

    def twin(self) -> Policy:
        """Another policy on the same device and weights, with the same options and the noise of a new beginning: for a
        second thread. Each is closed by itself."""
        with self._lock:
            self._must_be_usable()
            loaded = self._loaded.hold()  # it could be closed while its twin is made
        try:
            return Policy(loaded, self._options)
        finally:
            loaded.drop()

    def close(self) -> None:
        """Frees what the policy holds, after the inference that is at work. May be called again."""
        with self._lock:
            self._finalize()

    def __enter__(self) -> Policy:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.device.backend}: {self.device.name}"
        return f"<pivot.Policy {self.info.layout}, {state}>"

    # ---- parts of infer ----

    def _must_be_usable(self) -> None:
        if os.getpid() != self._process:
            raise ArgumentError("the policy was made by another process: load one after the fork")
        if self.closed:
            raise ArgumentError("the policy is closed")

    def _seed(self, given: int | None) -> int:
        if given is not None:
            return c.whole_number("seed", given, 2**64 - 1)
        return (self._options.seed + self._count) % 2**64


def _no_fields() -> tuple[Any, list[object]]:
    return (c.pv_field * 0)(), []


def _plain(observation: Mapping[str, Any]) -> tuple[Any, Sequence[object]]:
    """What C sees of an observation without a robot, and what has to live as long."""
    for key in observation:
        if key not in ("images", "state", "prompt", "tokens", "noise"):
            raise ArgumentError(f"observation: unknown key {key!r}; expected images, state, prompt, tokens, noise")
    given = {key: value for key, value in observation.items() if value is not None}
    images = given.get("images", {})
    if not isinstance(images, Mapping):
        raise ArgumentError(f"images: expected a dict of arrays, came {type(images).__name__}")
    if "prompt" in given and "tokens" in given:
        raise ArgumentError("prompt and tokens exclude each other")
    pictures = [arrays.picture(camera, value) for camera, value in images.items()]
    state = arrays.state(given["state"]) if "state" in given else None
    tokens = arrays.tokens(given["tokens"]) if "tokens" in given else None
    array = arrays.array_in([image for image, _ in pictures])
    seen = c.pv_observation(
        images=array,
        n_images=len(pictures),
        prompt=c.text("prompt", given.get("prompt")),
        tokens=arrays.i32(tokens),
        n_tokens=0 if tokens is None else tokens.size,
        state=arrays.f64(state),
        n_state=0 if state is None else state.size,
    )
    return seen, (pictures, state, tokens, array)


def load(
    path: Path,
    backend: str = "auto",
    recipe: str | None = None,
    steps: int = 10,
    *,
    robot: Path | None = None,
    schedule: str | None = None,
    seed: int = 0,
    allow_truncation: bool = False,
    metadata: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    device: str | None = None,
    threads: int = 0,
    sms: int = 0,
    cache: Path | None = None,
    config: Path | None = None,
    tokenizer: Path | None = None,
    norm_stats: Path | None = None,
    asset_id: str | None = None,
    horizon: int = 0,
    discrete_state: bool | None = None,
    zscore: bool | None = None,
    rope_bf16: bool = False,
    record: Path | None = None,
    record_limit: int = 0,
) -> Policy:
    """Loads a checkpoint onto a device.

    path
        a folder as openpi's PyTorch exporter or lerobot publish it, a .safetensors file, "synth:tiny" or "synth:full"
    backend
        "cpu", "cuda", another of `backends()`; "auto": "cuda" if it has a device, else "cpu". What was chosen is
        `policy.device`. A device that is there and fails is an error: nothing falls back.
    recipe
        "f32" (default): float32 arithmetic on weights as stored; "bf16": bfloat16 weights and activations; "openpi", "lerobot":
        rounds where those do in bfloat16 (docs/precision.md)
    robot
        "libero", another of `robots()`, a JSON file or a folder of lerobot (docs/robots.md): `infer` then takes that robot's own observations and
        gives its own actions, as openpi's policies do
    steps, schedule
        of the denoising; steps 0: the model's own number; schedule None: "openpi"
    seed
        the n-th inference that is given neither noise nor seed draws its noise from seed + n, n = 0, 1, ...
    allow_truncation
        cut a prompt that is too long at its end, in place of refusing it
    metadata
        what `policy.metadata` shall be
    progress
        called with (what, bytes done, bytes in all) while weights are read, on this thread
    device, threads, sms, cache
        index, name or UUID; worker threads of the CPU (0: one for each core); multiprocessors to keep to (0: all);
        the folder for what CUDA found out by trying ("": none, None: the usual place)
    config, tokenizer, norm_stats, asset_id, horizon, discrete_state, zscore
        what the folder lacks or says wrongly; None and 0: as the folder says
    rope_bf16
        round RoPE's frequencies to bfloat16, as openpi's bfloat16 serving does
    record, record_limit
        a folder: every inference that succeeds is written there, for `pivot replay` (docs/recordings.md), by another thread;
        what the disk is too slow for is dropped and counted, see `recordings`. At most so many bytes in the folder; 0: 1 GiB
    """
    options = _Options(
        recipe=c.text("recipe", recipe),
        rope_bf16=bool(rope_bf16),
        steps=c.whole_number("steps", steps),
        schedule=c.text("schedule", schedule),
        allow_truncation=bool(allow_truncation),
        seed=c.whole_number("seed", seed, 2**64 - 1),
        metadata=dict(metadata or {}),
    )
    params = c.pv_model_params(
        config=c.path("config", config),
        tokenizer=c.path("tokenizer", tokenizer),
        norm_stats=c.path("norm_stats", norm_stats),
        asset_id=c.text("asset_id", asset_id),
        horizon=c.whole_number("horizon", horizon),
        discrete_state=_switch(discrete_state),
        zscore=_switch(zscore),
    )
    name = c.path("path", path)
    folder = c.path("record", record)
    recorder = c.pv_recorder_params(limit_bytes=c.whole_number("record_limit", record_limit, 2**64 - 1))
    loaded = _Loaded(devices.open_device(backend, device, threads, sms, cache))
    try:
        if robot is not None:
            loaded.robot = Robot(robot)
            if str(path).startswith("synth:") and norm_stats is None and asset_id is None:
                params.asset_id = b"%dx%d" % (loaded.robot.info.state_dim, loaded.robot.info.action_dim)
        c.check(c.lib.pv_model_load(name, byref(params), byref(loaded.model)))
        if loaded.robot:
            _must_fit(loaded.robot.info, loaded.describe())
        policy = Policy(loaded, options, progress)
        if folder is not None:
            try:
                c.check(c.lib.pv_recorder_open(folder, policy._session, byref(recorder), byref(loaded.recorder)))
            except BaseException:
                policy.close()
                raise
        return policy
    finally:
        loaded.drop()


def _must_fit(robot: RobotInfo, model: ModelInfo) -> None:
    """What would be refused with the first observation, or after it, is refused before weights are read."""
    for slot, key in robot.cameras.items():
        if key is not None and slot not in model.cameras:
            raise ArgumentError(f"robot {robot.name!r}: {key} is camera {slot!r}; the model has {', '.join(model.cameras)}")
    if robot.action_dim > model.action_dim:
        raise ShapeError(
            f"robot {robot.name!r} has {robot.action_dim} actions, the model's statistics have {model.action_dim}: "
            "statistics of that robot are needed (norm_stats=)"
        )


def _switch(value: bool | None) -> int:
    return c.AUTO if value is None else c.ON if value else c.OFF
