"""Runs a contender in a process of its own, and ends whatever it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from time import perf_counter
from typing import Final, Literal

from tests.benchmarks.row import Figures

ROOT: Final = Path(__file__).parents[2]

_MARK: Final = "BENCHMARK_RUN"
_GRACE: Final = 1.0

Status = Literal["ok", "missing", "excluded", "wrong", "failed", "hangs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one run ended."""

    status: Status
    detail: str = ""
    figures: Figures = field(default_factory=Figures)
    seconds: float = 0.0
    """From start to end, everything included."""


def launch(row: str, contender: str, size: int, limit: float) -> Outcome:
    """Measure once.

    Args:
        row: The row's name.
        contender: The contender's name.
        size: How many tasks.
        limit: Seconds after which the process, and every process that it started, is
            killed.
    """
    mark = token_hex(16)
    started = perf_counter()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        path = Path(directory, "outcome.json")
        log = Path(directory, "log")
        python_path = os.pathsep.join(
            filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
        )
        environment = {
            **os.environ,
            "PYTHONPATH": python_path,
            "TMPDIR": directory,  # what a killed contender leaves goes with it
            _MARK: mark,
        }
        # Compiling every module anew at each start is nobody's normal case.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-m", "tests.benchmarks.child"]
        with log.open("w") as output:
            process = subprocess.Popen(
                [*command, row, contender, str(size), str(path)],
                env=environment,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            hangs = False
            process.wait(limit)
        except subprocess.TimeoutExpired:
            hangs = True
        finally:
            _clear(process, mark)
        seconds = perf_counter() - started
        if hangs:
            return Outcome(
                status="hangs", detail=f"killed after {limit:g} s", seconds=seconds
            )
        if not path.exists():
            lines = log.read_text(errors="replace").splitlines()
            detail = lines[-1] if lines else "ended without a word"
            return Outcome(status="failed", detail=detail, seconds=seconds)
        return Outcome(**json.loads(path.read_text()), seconds=seconds)


def _clear(process: subprocess.Popen[bytes], mark: str) -> None:
    """End a contender, and every process that it started."""
    # multiprocessing's and loky's resource trackers ignore this. When all others are
    # gone they unlink the semaphores and the shared memory, and end.
    _send(signal.SIGTERM, process, mark)
    patience = perf_counter() + _GRACE
    while _marked(mark) and perf_counter() < patience:
        time.sleep(0.01)
    _send(signal.SIGKILL, process, mark)
    process.wait()


def _send(number: signal.Signals, process: subprocess.Popen[bytes], mark: str) -> None:
    """Send a signal to a process group, and to its processes that left the group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    for stray in _marked(mark):
        with suppress(ProcessLookupError):
            os.kill(stray, number)


def _marked(mark: str) -> list[int]:
    """Return the live processes that inherited the mark; none without ``/proc``."""
    wanted = f"{_MARK}={mark}".encode()
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has just ended, or is somebody else's
            if wanted in path.read_bytes():  # empty for a process that is dead already
                found.append(int(path.parent.name))
    return found
