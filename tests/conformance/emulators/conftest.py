"""What tests of processes share: waiting for what sends no event."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

SECONDS = 20.0


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Waits until a function returns true."""
    return _until


def _is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False
    # A zombie has ended; whose child it has become may not wait for it.
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def is_alive() -> Callable[[int], bool]:
    """Says whether a process runs."""
    return _is_alive
