"""What the workers run. Every contender imports these functions by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

T = TypeVar("T")
R = TypeVar("R")


def addone(number: int) -> int:
    """Do next to nothing, so that only the way there and back is measured."""
    return number + 1


def add_one_to_all(array: Floats) -> Floats:
    """Return a new array of the same size."""
    return array + 1


def pick(array: Floats, index: int) -> float:
    """Read one element of a large array."""
    return float(array[index])


def pick_from(item: tuple[Floats, int]) -> float:
    """Read one element of a large array that comes with the item."""
    return pick(*item)


def spin(seconds: float) -> float:
    """Use the processor for a time; return how long that took on the wall."""
    started = time.perf_counter()
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        for _ in range(200):
            pass
    return time.perf_counter() - started


def doomed(item: tuple[int, str, str]) -> int:
    """Return the item's number, unless it is the victim.

    Args:
        item: Its number; what becomes of it (``""``: nothing, ``"exit"``, ``"segv"`` or
            ``"loop"``); the file in which the victim leaves its last words: the time on
            the monotonic clock and its process id, a line for each attempt.
    """
    number, fate, path = item
    time.sleep(0.005)
    if fate:
        with Path(path).open("a") as words:
            words.write(f"{time.monotonic()} {os.getpid()}\n")
    match fate:
        case "exit":
            os._exit(1)
        case "segv":
            # The signal itself: a bad read may be caught by a fault handler.
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGSEGV)
        case "loop":
            while True:
                pass
        case _:
            pass
    return number


async def awaited(fn: Callable[[T], R], item: T) -> R:
    """Call a function, for a contender that runs coroutine functions only."""
    return fn(item)
