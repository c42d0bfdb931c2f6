"""include/pivot.h for ctypes: the structs, the functions, and the library file itself.

Rules: names, order and types are the header's; tests/test_header.py holds every struct and function here against it.
A struct's `size` is filled in when it is made. Opaque handles are `c_void_p`. Nothing here keeps Python objects alive: who
fills a struct holds on to what it points to until the call is over.
"""

from __future__ import annotations

import ctypes
import operator
import os
import pathlib
from ctypes import POINTER, c_bool, c_char, c_char_p, c_double, c_float, c_int, c_int32, c_int64, c_size_t
from ctypes import c_uint8, c_uint32, c_uint64, c_void_p
from typing import Any

from . import errors

ABI_VERSION = 1
MAX_CAMERAS = 16
MAX_STATE_KEYS = 16
AUTO, ON, OFF = 0, 1, 2  # pv_switch
FIELD_U8, FIELD_I32, FIELD_I64, FIELD_F32, FIELD_F64, FIELD_BOOL, FIELD_TEXT = range(7)  # pv_field_type

progress_fn = ctypes.CFUNCTYPE(None, c_void_p, c_char_p, c_uint64, c_uint64)


class Sized(ctypes.Structure):
    """A struct that begins with its size."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(size=ctypes.sizeof(self), **fields)

    def as_dict(self) -> dict[str, Any]:
        return {field[0]: getattr(self, field[0]) for field in self._fields_ if field[0] != "size"}


class pv_backend_params(Sized):
    _fields_ = [
        ("size", c_size_t),
        ("device", c_char_p),
        ("threads", c_int),
        ("sms", c_int),
        ("cache", c_char_p),
    ]


class pv_device_info(Sized):
    _fields_ = [
        ("size", c_size_t),
        ("backend", c_char * 16),
        ("name", c_char * 128),
        ("uuid", c_char * 48),
        ("library", c_char * 128),
        ("memory_bytes", c_uint64),
        ("unified", c_bool),
        ("sms", c_int),
        ("driver", c_char * 32),
        ("clock_mhz", c_int),
        ("memory_clock_mhz", c_int),
        ("power_limit_watts", c_int),
        ("unknown", c_char * 128),
        ("software", c_bool),
        ("supports", c_char * 1536),
        ("identity", c_char * 256),
    ]


class pv_model_params(Sized):
    _fields_ = [
        ("size", c_size_t),
        ("config", c_char_p),
        ("tokenizer", c_char_p),
        ("norm_stats", c_char_p),
        ("asset_id", c_char_p),
        ("horizon", c_int),
        ("discrete_state", c_int),
        ("zscore", c_int),
    ]


class pv_model_info(Sized):
    _fields_ = [
        ("size", c_size_t),
        ("horizon", c_int),
        ("model_dim", c_int),
        ("action_dim", c_int),
        ("state_dim", c_int),
        ("max_tokens", c_int),
        ("image_size", c_int),
        ("steps", c_int),
        ("n_cameras", c_int),
        ("camera", c_char_p * MAX_CAMERAS),
        ("has_stats", c_bool),
        ("has_tokenizer", c_bool),
        ("discrete_state", c_bool),
        ("zscore", c_bool),
        ("layout", c_char_p),
        ("parameters", c_uint64),
    ]


class pv_session_params(Sized):
    _fields_ = [
        ("size", c_size_t),
        ("recipe", c_char_p),
        ("max_steps", c_int),
        ("rope_bf16", c_bool),
        ("progress", progress_fn),
        ("progress_user", c_void_p),
    ]


class pv_image(ctypes.Structure):
    _fields_ = [
        ("camera", c_char_p),
        ("pixels", POINTER(c_uint8)),
        ("width", c_int),
        ("height", c_int),
        ("stride", c_size_t),
    ]


class pv_observation(Sized):
    _fields_ = [
        ("size", c_size_t),
        ("images", POINTER(pv_image)),
        ("n_images", c_int),
        ("prompt", c_char_p),
        ("tokens", POINTER(c_int32)),
        ("n_tokens", c_int),
        ("state", POINTER(c_double)),
        ("n_state", c_int),
        ("id", c_uint64),
        ("seen_ms", c_double),
    ]


class pv_field(ctypes.Structure):
    _fields_ = [
        ("key", c_char_p),
        ("type", c_int),
        ("n_dims", c_int),
        ("dim", c_int64 * 4),
        ("data", c_void_p),
    ]


class pv_robot_info(Sized):
    _fields_ = [
        ("size", c_size_t),
        ("name", c_char_p),
        ("about", c_char_p),
        ("n_cameras", c_int),
        ("slot", c_char_p * MAX_CAMERAS),
        ("key", c_char_p * MAX_CAMERAS),
        ("optional", c_bool * MAX_CAMERAS),
        ("n_state_keys", c_int),
        ("state_key", c_char_p * MAX_STATE_KEYS),
        ("state_key_dim", c_int * MAX_STATE_KEYS),
        ("state_dim", c_int),
        ("prompt_key", c_char_p),
        ("default_prompt", c_char_p),
        ("action_dim", c_int),
        ("delta", c_bool),
        ("json", c_char_p),
    ]


class pv_infer_params(Sized):
    _fields_ = [
        ("size", c_size_t),
        ("noise", POINTER(c_float)),
        ("seed", c_uint64),
        ("steps", c_int),
        ("schedule", c_char_p),
        ("timesteps", POINTER(c_float)),
        ("allow_truncation", c_bool),
        ("model_actions", POINTER(c_float)),
        ("actions_f64", POINTER(c_double)),
    ]


class pv_timing(Sized):
    _fields_ = [
        ("size", c_size_t),
        ("observe_ms", c_double),
        ("vision_ms", c_double),
        ("prefix_ms", c_double),
        ("schedule_ms", c_double),
        ("denoise_ms", c_double),
        ("total_ms", c_double),
        ("prefix_tokens", c_int),
        ("prompt_tokens", c_int),
        ("steps", c_int),
        ("truncated", c_bool),
        ("state_outside", c_int),
        ("run_ms", c_double),
        ("observation", c_uint64),
        ("age_ms", c_double),
    ]


class pv_memory_info(Sized):
    _fields_ = [
        ("size", c_size_t),
        ("weights_bytes", c_uint64),
        ("host_bytes", c_uint64),
        ("state_bytes", c_uint64),
        ("scratch_bytes", c_uint64),
        ("io_bytes", c_uint64),
        ("const_bytes", c_uint64),
        ("plans", c_int),
    ]


class pv_recorder_params(Sized):
    _fields_ = [
        ("size", c_size_t),
        ("limit_bytes", c_uint64),
        ("queue", c_int),
    ]


class pv_stage_time(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p),
        ("ms", c_double),
    ]


class pv_record(Sized):
    _fields_ = [
        ("size", c_size_t),
        ("robot", c_void_p),
        ("fields", POINTER(pv_field)),
        ("n_fields", c_int),
        ("actions", POINTER(c_double)),
        ("observation", POINTER(pv_observation)),
        ("source", c_char_p),
        ("times", POINTER(pv_stage_time)),
        ("n_times", c_int),
    ]


class pv_recorder_info(Sized):
    _fields_ = [
        ("size", c_size_t),
        ("written", c_uint64),
        ("dropped_queue", c_uint64),
        ("dropped_limit", c_uint64),
        ("dropped_failed", c_uint64),
        ("bytes", c_uint64),
        ("waiting", c_int),
        ("error", c_char * 256),
    ]


HANDLE = c_void_p
STATUS = c_int

# name: (result, arguments)
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "pv_status_name": (c_char_p, [STATUS]),
    "pv_error_text": (c_char_p, []),
    "pv_version": (c_char_p, []),
    "pv_abi_version": (c_uint32, []),
    "pv_backend_open": (STATUS, [c_char_p, POINTER(pv_backend_params), POINTER(HANDLE)]),
    "pv_backend_close": (None, [POINTER(HANDLE)]),
    "pv_backend_device": (STATUS, [HANDLE, POINTER(pv_device_info)]),
    "pv_backend_list": (c_char_p, [c_int]),
    "pv_devices": (STATUS, [c_char_p, POINTER(pv_device_info), POINTER(c_int)]),
    "pv_model_load": (STATUS, [c_char_p, POINTER(pv_model_params), POINTER(HANDLE)]),
    "pv_model_free": (None, [POINTER(HANDLE)]),
    "pv_model_describe": (STATUS, [HANDLE, POINTER(pv_model_info)]),
    "pv_robot_load": (STATUS, [c_char_p, POINTER(HANDLE)]),
    "pv_robot_free": (None, [POINTER(HANDLE)]),
    "pv_robot_list": (c_char_p, [c_int]),
    "pv_robot_describe": (STATUS, [HANDLE, POINTER(pv_robot_info)]),
    "pv_robot_observe": (STATUS, [HANDLE, POINTER(pv_field), c_int, POINTER(HANDLE)]),
    "pv_frame_observation": (POINTER(pv_observation), [HANDLE]),
    "pv_frame_free": (None, [POINTER(HANDLE)]),
    "pv_robot_act": (STATUS, [HANDLE, HANDLE, HANDLE, POINTER(c_double), c_int, c_int, POINTER(c_double)]),
    "pv_session_create": (STATUS, [HANDLE, HANDLE, POINTER(pv_session_params), POINTER(HANDLE)]),
    "pv_session_destroy": (None, [POINTER(HANDLE)]),
    "pv_session_infer": (STATUS, [HANDLE, POINTER(pv_observation), POINTER(pv_infer_params), POINTER(c_float)]),
    "pv_session_timing": (STATUS, [HANDLE, POINTER(pv_timing)]),
    "pv_session_memory": (STATUS, [HANDLE, POINTER(pv_memory_info)]),
    "pv_recorder_open": (STATUS, [c_char_p, HANDLE, POINTER(pv_recorder_params), POINTER(HANDLE)]),
    "pv_recorder_close": (None, [POINTER(HANDLE)]),
    "pv_recorder_flush": (STATUS, [HANDLE, c_double]),
    "pv_recorder_put": (STATUS, [HANDLE, HANDLE, POINTER(pv_record)]),
    "pv_recorder_describe": (STATUS, [HANDLE, POINTER(pv_recorder_info)]),
}


def _open() -> ctypes.CDLL:
    """The library of the wheel, or the file that PIVOT_LIBRARY names."""
    path = os.environ.get("PIVOT_LIBRARY") or str(pathlib.Path(__file__).with_name("libpivot.so"))
    try:
        library = ctypes.CDLL(path)
    except OSError as wrong:
        raise ImportError(f"pivot: {path} cannot be loaded: {wrong}") from wrong
    for name, (result, arguments) in FUNCTIONS.items():
        try:
            function = getattr(library, name)
        except AttributeError:
            raise ImportError(f"pivot: {path} has no function {name}: another version than this package") from None
        function.restype = result
        function.argtypes = arguments
    came = library.pv_abi_version()
    if came != ABI_VERSION:
        raise ImportError(f"pivot: {path} has ABI version {came}, this package expects {ABI_VERSION}")
    return library


lib = _open()


def check(status: int) -> None:
    """Raises the exception of a status, with the words of this thread's last failing call."""
    if status:
        raise errors.of(lib.pv_status_name(status).decode())(lib.pv_error_text().decode("utf-8", "replace"))


def text(what: str, value: str | None) -> bytes | None:
    """Words for C, in UTF-8. Refuses what C would not see whole."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise errors.ArgumentError(f"{what}: expected text, came {type(value).__name__}")
    try:
        return _whole(what, value.encode())
    except UnicodeEncodeError as wrong:
        raise errors.ArgumentError(f"{what}: not valid Unicode: {wrong}") from None


def path(what: str, value: str | os.PathLike[str] | None) -> bytes | None:
    """A file's name for C."""
    if value is None:
        return None
    try:
        return _whole(what, os.fsencode(value))
    except TypeError:
        raise errors.ArgumentError(f"{what}: expected a path, came {type(value).__name__}") from None


def _whole(what: str, raw: bytes) -> bytes:
    if b"\0" in raw:
        raise errors.ArgumentError(f"{what}: holds a NUL character, at byte {raw.index(0)}")
    return raw


def whole_number(what: str, value: object, most: int = 2**31 - 1) -> int:
    """An int for C, which would cut it to its width without a word."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise errors.ArgumentError(f"{what}: expected a whole number, came {value!r}") from None
    if not 0 <= number <= most:
        raise errors.ArgumentError(f"{what}: expected 0 to {most}, came {number}")
    return number
