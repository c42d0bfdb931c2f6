"""Which devices there are, and which one "auto" means."""

from __future__ import annotations

import ctypes
import dataclasses
import logging
import os
from ctypes import byref, c_int
from typing import Any

from . import _library as c
from . import errors

log = logging.getLogger("pivot")


@dataclasses.dataclass(frozen=True)
class Device:
    """What a backend runs on."""

    backend: str
    name: str
    uuid: str  #: empty: the device has none
    library: str  #: what computes: "OpenBLAS 0.3.21 SkylakeX"
    memory_bytes: int  #: in all
    unified: bool  #: the device's memory is the host's
    sms: int  #: multiprocessors that are run on; 0: a device without such
    driver: str  #: version; empty: none, or not known
    clock_mhz: int  #: 0: not known
    memory_clock_mhz: int
    power_limit_watts: int
    unknown: str  #: which of them are not known and why
    software: bool  #: a GPU's interface on a processor: used only when it is named
    supports: str  #: what decides which kernels it can run: lines "name: value"
    identity: str  #: device, driver and the kernels of this build in one text


def from_c(info: c.pv_device_info) -> Device:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Device):
        value = getattr(info, field.name)
        values[field.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return Device(**values)


def backends() -> list[str]:
    """Names of the backends that may be asked for. That one is listed does not say that its driver or device is there."""
    names: list[str] = []
    while name := c.lib.pv_backend_list(len(names)):
        names.append(name.decode())
    return names


def devices(backend: str | None = None) -> list[Device]:
    """Devices of one backend (`UnavailableError` says why there are none), or of all that work here."""
    if backend is None:
        return [device for name in backends() for device in _devices_or_none(name)]
    name, n = c.text("backend", backend), c_int(0)
    c.check(c.lib.pv_devices(name, None, byref(n)))
    array = (c.pv_device_info * n.value)()
    c.check(c.lib.pv_devices(name, array, byref(n)))
    return [from_c(info) for info in array[: n.value]]


def _devices_or_none(backend: str) -> list[Device]:
    try:
        return devices(backend)
    except errors.UnavailableError as why:
        log.info("backend %s: %s", backend, why)
        return []


def choose(backend: str) -> str:
    """What "auto" means here: "cuda" if it has a device, else "cpu". Any other name is left as it is."""
    if backend != "auto":
        return backend
    return "cuda" if "cuda" in backends() and _devices_or_none("cuda") else "cpu"


def open_device(
    backend: str, device: str | None, threads: int, sms: int, cache: str | os.PathLike[str] | None
) -> ctypes.c_void_p:
    params = c.pv_backend_params(
        device=c.text("device", device),
        threads=c.whole_number("threads", threads),
        sms=c.whole_number("sms", sms),
        cache=c.path("cache", cache),
    )
    handle = c.HANDLE()
    c.check(c.lib.pv_backend_open(c.text("backend", choose(backend)), byref(params), byref(handle)))
    return handle
