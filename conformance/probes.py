"""Functions that the suite sends to workers.

They travel by value and need nothing on the worker but wren's core and the standard
library. Each takes one argument, as a task of a request does. What happens where no
value can be returned from is told through grants: see `wren.conformance.marks`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from wren import grants
from wren.errors import KeyNotFoundError

Grant = dict[str, Any]

PAUSE: Final = 0.05
"""Seconds between two beats, or between two looks at a gate."""


def echo(value: Any) -> Any:
    """Return the argument."""
    return value


def fill(count: int) -> bytes:
    """Return so many bytes."""
    return bytes(count)


# --- what can be seen from outside ----------------------------------------------------


def mark(places: Sequence[Grant]) -> int:
    """Take the first free of several places, to be counted; return the process's id."""
    # What is counted are these words, as the answer to a write may get lost, and the
    # second try then finds the place taken by the first.
    word = secrets.token_bytes(8)
    for place in places:
        if grants.store(place, [word]) == "written":
            break
    return os.getpid()


def mark_and_measure(places: Sequence[Grant], data: bytes) -> int:
    """Make a mark, if there is a place, and return how many bytes arrived."""
    if places:
        mark(places)
    return len(data)


def mark_and_hold(argument: tuple[Sequence[Grant], Grant, float]) -> int:
    """Make a mark, wait until a gate is open, and return the process's id."""
    places, gate, seconds = argument
    deadline = time.monotonic() + seconds
    mark(places)
    while time.monotonic() < deadline:
        try:
            grants.fetch(gate)
        except KeyNotFoundError:
            time.sleep(PAUSE)
        else:
            return os.getpid()
    raise TimeoutError(f"the gate was not opened within {seconds:g} s")


def mark_and_exit(argument: tuple[Sequence[Grant], int]) -> NoReturn:
    """Make a mark and end the process with an exit code."""
    places, code = argument
    mark(places)
    sys.stdout.write("last words\n")
    sys.stdout.flush()
    os._exit(code)


def mark_and_sleep(argument: tuple[Sequence[Grant], float]) -> str:
    """Make a mark, sleep so many seconds, and return."""
    places, seconds = argument
    mark(places)
    time.sleep(seconds)
    return "slept"


def beat(argument: tuple[Grant, float]) -> None:
    """Write an object again and again for so many seconds."""
    place, seconds = argument
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        grants.store(place, [str(time.monotonic_ns()).encode()])
        time.sleep(PAUSE)


def leave_beating(argument: tuple[Grant, Grant, float]) -> None:
    """Leave two processes behind that beat: a child, and one in its own session."""
    child, daemon, seconds = argument
    readable, writable = os.pipe()
    for place, detached in ((child, False), (daemon, True)):
        if os.fork() == 0:
            if detached:
                os.setsid()
            grants.store(place, [b"first"])
            os.write(writable, b".")
            beat((place, seconds))
            os._exit(0)
    os.read(readable, 1)
    os.read(readable, 1)


# --- endings --------------------------------------------------------------------------


def die(number: int) -> NoReturn:
    """End the process by a signal."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    time.sleep(60)
    raise AssertionError("the signal did not end the process")


def eat(count: int) -> int:
    """Take so many bytes of memory, and touch them."""
    pieces: list[bytearray] = []
    step = 1 << 24
    while len(pieces) * step < count:
        pieces.append(bytearray(b"x") * step)
    return len(pieces)


def fail(kind: str) -> NoReturn:
    """Raise something; its name says what."""
    match kind:
        case "exit":
            sys.exit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "own":
            raise _TwoArgumentsError("a", "b")
        case _:
            raise LookupError(kind)


class _TwoArgumentsError(Exception):
    """Pickles, and does not unpickle."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


def sleep(seconds: float) -> None:
    """Do nothing for so many seconds."""
    time.sleep(seconds)


# --- surroundings ---------------------------------------------------------------------


def say(text: str) -> None:
    """Write text to both standard streams, as Python does."""
    sys.stdout.write(f"out {text}\n")
    sys.stderr.write(f"err {text}\n")


def flood(count: int) -> str:
    """Write so many bytes, half by Python and half to the descriptors, then a line."""
    line = b"x" * 1023 + b"\n"
    block = line * 1024
    for _ in range(count // len(block) // 2):
        sys.stdout.write(block.decode())
        os.write(2, block)
    sys.stdout.write("the end\n")
    return "done"


def scribble(_: object) -> str:
    """Write noise to descriptors 0 to 2, and close them."""
    for descriptor in (1, 2):
        os.write(descriptor, b"\x00\xffnoise\n" * 100)
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    return "still here"


def environment(_: object) -> dict[str, str]:
    """Return this process's variables, and all that it was started with."""
    seen = dict(os.environ)
    with contextlib.suppress(OSError):  # no such system
        seen["/proc/self/environ"] = Path("/proc/self/environ").read_text("latin-1")
    return seen


def look(_: object) -> tuple[str, dict[str, str]]:
    """Return the current directory and the environment."""
    return str(Path.cwd()), dict(os.environ)


def disturb(_: object) -> None:
    """Change directory and environment, and leave both behind like that."""
    os.chdir("/")
    os.environ["LEFT_BY_A_TASK"] = "1"
    os.environ.pop("PATH", None)


def litter(name: str) -> None:
    """Leave files in the temporary and the current directory."""
    for folder in (tempfile.gettempdir(), "."):
        Path(folder, name).touch()


def find_litter(name: str) -> list[str]:
    """Return where `litter` of the same name has left something."""
    places = (tempfile.gettempdir(), ".")
    return [folder for folder in places if Path(folder, name).exists()]


# --- what must not be unpickled -------------------------------------------------------


class Canary:
    """Makes a mark when it is unpickled."""

    def __init__(self, places: Sequence[Grant]) -> None:
        self._places = places

    def __reduce__(self) -> tuple[Any, ...]:
        return mark, (self._places,)
