"""From Python's values to memory that C can read: what is taken as it stands, what is copied, what is refused.

Nothing is converted that would lose its meaning: pictures are uint8, token ids whole numbers, state and noise real numbers.
An array that has C's layout already is not copied.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_double, c_float, c_int32, c_uint8
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _library as c
from .errors import ArgumentError, ShapeError


def came(array: NDArray[Any]) -> str:
    return f"{array.dtype} of shape {array.shape}"


def array_of(what: str, value: object, expected: str = "numbers") -> NDArray[Any]:
    """`value` as an array of numbers, whichever type has an __array__ or is made of lists."""
    try:
        array = np.asarray(value)
    except Exception as wrong:
        raise ShapeError(f"{what}: cannot be read as an array: {wrong}") from wrong
    if array.dtype.kind not in "biuf":
        raise ShapeError(f"{what}: expected {expected}, came {came(array)}")
    return array


def picture(camera: str, value: object) -> tuple[c.pv_image, object]:
    """uint8 [height, width, 3], RGB. Rows may be apart (a view into a larger picture); other views are copied. Comes with
    what has to live as long as the struct."""
    what = f"images: camera {camera!r}"
    array = array_of(what, value)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ShapeError(f"{what}: expected uint8 [height, width, 3], came {came(array)}")
    height, width = array.shape[:2]
    stride = 0
    if not array.flags.c_contiguous:
        if array.strides[1:] == (3, 1) and array.strides[0] >= 3 * width:
            stride = array.strides[0]
        else:
            array = array.copy(order="C")
    image = c.pv_image(
        camera=c.text("images: camera", camera),
        pixels=array.ctypes.data_as(POINTER(c_uint8)),
        width=width,
        height=height,
        stride=stride,
    )
    return image, array


def state(value: object) -> NDArray[np.float64]:
    """float64 [n]; other real numbers are converted, which is exact for float32 and integers below 2^53."""
    array = array_of("state", value)
    if array.ndim != 1 or array.dtype.kind == "b":
        raise ShapeError(f"state: expected numbers [n], came {came(array)}")
    return np.ascontiguousarray(array, dtype=np.float64)


def tokens(value: object) -> NDArray[np.int32]:
    """int32 [n] from whole numbers."""
    array = array_of("tokens", value)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):  # an empty list is an array of floats
        raise ShapeError(f"tokens: expected whole numbers [n], came {came(array)}")
    if array.size and (int(array.min()) < 0 or int(array.max()) > 2**31 - 1):
        raise ArgumentError(f"tokens: expected ids of 0 to {2**31 - 1}, came {array.min()} to {array.max()}")
    return np.ascontiguousarray(array, dtype=np.int32)


def noise(value: object, horizon: int, dim: int) -> NDArray[np.float32]:
    """float32 [horizon, dim] or, as openpi allows it, [1, horizon, dim]; float64 is rounded."""
    array = array_of("noise", value)
    if array.dtype.kind != "f" or array.shape not in ((horizon, dim), (1, horizon, dim)):
        raise ShapeError(f"noise: expected float32 [{horizon}, {dim}], came {came(array)}")
    return _floats(array)


def timesteps(value: object) -> NDArray[np.float32]:
    """float32 [steps + 1], from 1 down to 0."""
    array = array_of("timesteps", value)
    if array.ndim != 1 or array.size < 2 or array.dtype.kind == "b":
        raise ShapeError(f"timesteps: expected numbers [steps + 1], came {came(array)}")
    return _floats(array)


def _floats(array: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # becomes an infinity, which the library refuses by element
        return np.ascontiguousarray(array, dtype=np.float32)


def f32(array: NDArray[np.float32] | None) -> Any:
    return None if array is None else array.ctypes.data_as(POINTER(c_float))


def f64(array: NDArray[np.float64] | None) -> Any:
    return None if array is None else array.ctypes.data_as(POINTER(c_double))


def i32(array: NDArray[np.int32] | None) -> Any:
    return None if array is None else array.ctypes.data_as(POINTER(c_int32))


def array_in(images: list[c.pv_image]) -> ctypes.Array[c.pv_image]:
    return (c.pv_image * len(images))(*images)
