"""What the figures depend on besides the contenders, and this process's memory."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self

_STATUS = Path("/proc/self/status")


def describe() -> dict[str, object]:
    """Return the interpreter, the system and the processors."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
    }


def versions(distributions: Iterable[str]) -> dict[str, str | None]:
    """Return the version of each distribution; None for one that is missing."""
    return {name: _version(name) for name in distributions}


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def load_average() -> list[float]:
    """Return the load of the last 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()]


class PeakMemory:
    """Measures by how much this process's resident memory grew, at its peak.

    Attributes:
        growth: Bytes; 0 where Linux's ``/proc`` is not there.
    """

    def __init__(self) -> None:
        self.growth = 0

    def __enter__(self) -> Self:
        if _STATUS.exists():
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            self._before = _resident("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        if _STATUS.exists():
            self.growth = _resident("VmHWM") - self._before


def _resident(field: str) -> int:
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise KeyError(field)
