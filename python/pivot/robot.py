"""A robot's own observations and actions, as openpi's policies take and give them: pv_robot_* of pivot.h.

A robot does not change and may be shared by threads; a frame (what was seen last) belongs to one policy.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
from collections.abc import Iterator, Mapping
from ctypes import byref
from typing import Any, Optional, Union

import numpy as np
from numpy.typing import NDArray

from . import _library as c
from . import arrays
from .errors import ArgumentError, ShapeError

# numpy's types to those of fields. What is not here has a type that holds all its values, or is refused.
_TYPES = {
    "uint8": c.FIELD_U8,
    "int32": c.FIELD_I32,
    "int64": c.FIELD_I64,
    "float32": c.FIELD_F32,
    "float64": c.FIELD_F64,
    "bool": c.FIELD_BOOL,
}
_WIDER = {"int8": "int32", "int16": "int32", "uint16": "int32", "uint32": "int64", "float16": "float32"}


@dataclasses.dataclass(frozen=True)
class RobotInfo:
    """What a robot's observations hold, and its actions. Keys of maps in maps are joined with "/"."""

    name: str
    about: str
    cameras: dict[str, Optional[str]]  #: the model's camera: the key of its picture, None where the robot has none
    optional: frozenset[str]  #: keys of pictures that may be missing
    state: dict[str, int]  #: keys of the state, one behind the other, and how many numbers each has
    state_dim: int
    prompt_key: str
    default_prompt: Optional[str]  #: where no prompt comes; None: there must be one
    action_dim: int
    delta: bool  #: some of the model's actions are relative to the state
    json: str  #: the whole description


def robots() -> list[str]:
    """Names of the robots that are built in."""
    names: list[str] = []
    while name := c.lib.pv_robot_list(len(names)):
        names.append(name.decode())
    return names


class Robot:
    """A robot of the library; frees itself."""

    def __init__(self, name_or_path: Union[str, os.PathLike[str]]) -> None:
        self.handle = c.HANDLE()
        c.check(c.lib.pv_robot_load(c.path("robot", name_or_path), byref(self.handle)))
        try:
            self.info = self._describe()
        except BaseException:
            self.free()
            raise

    def free(self) -> None:
        c.lib.pv_robot_free(byref(self.handle))

    def _describe(self) -> RobotInfo:
        info = c.pv_robot_info()
        c.check(c.lib.pv_robot_describe(self.handle, byref(info)))
        cameras = {_text(info.slot[i]): _text(info.key[i]) if info.key[i] else None for i in range(info.n_cameras)}
        return RobotInfo(
            name=_text(info.name),
            about=_text(info.about),
            cameras=cameras,
            optional=frozenset(_text(info.key[i]) for i in range(info.n_cameras) if info.key[i] and info.optional[i]),
            state={_text(info.state_key[i]): info.state_key_dim[i] for i in range(info.n_state_keys)},
            state_dim=info.state_dim,
            prompt_key=_text(info.prompt_key),
            default_prompt=_text(info.default_prompt) if info.default_prompt is not None else None,
            action_dim=info.action_dim,
            delta=info.delta,
            json=_text(info.json),
        )

    def fields(self, observation: Mapping[Any, Any]) -> tuple[ctypes.Array[c.pv_field], list[object]]:
        """An observation as C takes it, and what has to live as long."""
        known = {*self.info.cameras.values(), *self.info.state, self.info.prompt_key}
        fields, alive = [], []
        for key, value in _flat(observation, ""):
            try:
                field, data = _field(key, value)
            except ShapeError:
                if key in known:
                    raise
                continue  # what else a client keeps there is not the policy's business
            fields.append(field)
            alive.append(data)
        return (c.pv_field * len(fields))(*fields), alive

    def act(self, model: Any, frame: Any, actions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Actions of a session to those of the robot, [horizon, action_dim]."""
        horizon, dims = actions.shape
        out = np.empty((horizon, self.info.action_dim), np.float64)
        c.check(c.lib.pv_robot_act(self.handle, model, frame, arrays.f64(actions), horizon, dims, arrays.f64(out)))
        return out


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _flat(observation: Mapping[Any, Any], before: str) -> Iterator[tuple[str, Any]]:
    """Every value with its key; those of maps in maps are joined with "/". None counts as not there."""
    for key, value in observation.items():
        if isinstance(key, bytes):
            key = key.decode("utf-8", "replace")
        if not isinstance(key, str):
            raise ArgumentError(f"observation: a key in {before or 'it'!r} is {key!r}; expected text")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}/")
        elif value is not None:
            yield before + key, value


def _field(key: str, value: object) -> tuple[c.pv_field, object]:
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "US":
        value = value.item()
    if isinstance(value, str):
        try:
            value = value.encode()
        except UnicodeEncodeError as wrong:
            raise ShapeError(f"{key}: not valid Unicode: {wrong}") from None
    if isinstance(value, bytes):
        data = ctypes.create_string_buffer(value, max(len(value), 1))
        field = c.pv_field(key=c.text("observation: key", key), type=c.FIELD_TEXT, n_dims=1)
        field.dim[0] = len(value)
        field.data = ctypes.addressof(data)
        return field, data
    array = arrays.array_of(key, value, "numbers or a text")
    name = array.dtype.newbyteorder("=").name
    name = _WIDER.get(name, name)
    if name not in _TYPES or array.ndim > 4:
        raise ShapeError(f"{key}: expected numbers of up to 64 bits in at most 4 dimensions, came {arrays.came(array)}")
    array = np.asarray(array, dtype=name, order="C")
    field = c.pv_field(key=c.text("observation: key", key), type=_TYPES[name], n_dims=array.ndim)
    field.dim[: array.ndim] = array.shape
    field.data = array.ctypes.data
    return field, array
