"""What several tests share. PIVOT_PROGRAM names the program `pivot` of the same sources; tests that need it are skipped
without."""

import os
import pathlib
from typing import Any, Iterator

import numpy as np
import pytest

import pivot

SOURCE = pathlib.Path(__file__).resolve().parents[2]
CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")


@pytest.fixture
def policy() -> Iterator[pivot.Policy]:
    with pivot.load("synth:tiny", backend="cpu") as loaded:
        yield loaded


@pytest.fixture(scope="session")
def program() -> str:
    path = os.environ.get("PIVOT_PROGRAM")
    if not path:
        pytest.skip("PIVOT_PROGRAM is not set")
    return path


def picture(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def observation(**other: Any) -> dict[str, Any]:
    """One camera, three tokens; `other` adds or replaces, None takes away."""
    seen: dict[str, Any] = {"images": {CAMERAS[0]: picture(0)}, "tokens": [2, 5, 7], **other}
    return {key: value for key, value in seen.items() if value is not None}


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
