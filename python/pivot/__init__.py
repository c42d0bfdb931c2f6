"""Pivot: inference for the robot policy Pi0.5.

    policy = pivot.load("synth:tiny")
    result = policy.infer({"images": {"base_0_rgb": picture}, "prompt": "pick up the red block"})
    result["actions"]  # [horizon, action_dim]

`load` makes a `Policy`; all that is refused or fails is an exception of `pivot.errors`, in the library's own words.
"""

from ._library import lib as _lib
from .device import Device, backends, devices
from .errors import (
    ArgumentError,
    CheckpointError,
    DeviceError,
    Error,
    FileError,
    NoKernelError,
    NotFiniteError,
    OutOfMemoryError,
    ShapeError,
    UnavailableError,
    UnsupportedError,
)
from .policy import ModelInfo, Policy, load
from .robot import RobotInfo, robots

__version__: str = _lib.pv_version().decode()

__all__ = [
    "ArgumentError",
    "CheckpointError",
    "Device",
    "DeviceError",
    "Error",
    "FileError",
    "ModelInfo",
    "NoKernelError",
    "NotFiniteError",
    "OutOfMemoryError",
    "Policy",
    "RobotInfo",
    "ShapeError",
    "UnavailableError",
    "UnsupportedError",
    "backends",
    "devices",
    "load",
    "robots",
]
