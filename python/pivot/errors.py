"""One exception class for each status of pivot.h. What they say is the library's own words: what was expected, what came,
and the name of the tensor, file or field."""

from __future__ import annotations


class Error(Exception):
    """Anything that libpivot refuses or fails at. `status` is the name of its pv_status, such as "E_SHAPE"."""

    status = ""


class ArgumentError(Error, ValueError):
    """A bad argument: an unknown camera, a prompt that is too long, a policy that was closed."""

    status = "E_ARG"


class ShapeError(Error, ValueError):
    """A shape or dtype does not fit."""

    status = "E_SHAPE"


class FileError(Error):
    """A file is missing, unreadable or malformed."""

    status = "E_FILE"


class CheckpointError(Error):
    """The checkpoint is not a complete Pi0.5 policy."""

    status = "E_CHECKPOINT"


class OutOfMemoryError(Error, MemoryError):
    """Out of memory, on the host or the device."""

    status = "E_MEMORY"


class NotFiniteError(Error, ValueError):
    """A value that goes in or would come out is NaN or infinite."""

    status = "E_NOT_FINITE"


class NoKernelError(Error):
    """The backend has no kernel for an op of the plan."""

    status = "E_NO_KERNEL"


class UnavailableError(Error):
    """The backend or device is not there."""

    status = "E_UNAVAILABLE"


class DeviceError(Error):
    """A call on the device failed. Says when the process has to be started anew."""

    status = "E_DEVICE"


class UnsupportedError(Error):
    """This build cannot do it."""

    status = "E_UNSUPPORTED"


_by_name = {kind.status: kind for kind in Error.__subclasses__()}


def of(name: str) -> type[Error]:
    """The class of a status; Error itself for one that a newer library has added."""
    return _by_name.get(name, Error)
