"""A task that is careless with its process and its streams harms nothing else."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias, cast

import pytest

import wren

pytestmark = pytest.mark.anyio

Outcome: TypeAlias = Callable[..., Awaitable[object]]
TASKS = 12
BAD = 7


# --- tasks that make processes --------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "timed", "async"])
async def test_a_fork_neither_answers_nor_runs_on(
    executor: wren.Executor, tmp_path: Path, kind: str
) -> None:
    """Both sides return, and the worker alone goes on to the tasks behind."""
    log = tmp_path / "log"

    def task(n: int) -> int:
        if n == BAD:
            os.fork()
        with log.open("a") as file:
            file.write(f"{n}\n")
        return os.getpid()

    async def async_task(n: int) -> int:
        return task(n)

    pids = await executor.map(
        async_task if kind == "async" else task,
        range(TASKS),
        chunksize=TASKS,
        timeout=30 if kind == "timed" else None,
    )

    assert len(set(pids)) == 1
    for n in range(TASKS):
        assert log.read_text().split().count(str(n)) <= 1 + (n == BAD)


async def test_what_a_task_leaves_running_is_ended(
    executor: wren.Executor, ends: Callable[[int], bool]
) -> None:
    """Children, daemons in sessions of their own, and what its threads started."""

    def leave(_: int) -> list[int]:
        pids: list[int] = []
        for depth in (1, 2):
            readable, writable = os.pipe()
            if os.fork() == 0:
                if depth == 2:
                    os.setsid()
                    if os.fork():
                        os._exit(0)
                os.write(writable, str(os.getpid()).encode())
                time.sleep(1000)
            pids.append(int(os.read(readable, 100)))
        started = threading.Event()

        def keep() -> None:
            pids.append(subprocess.Popen(["sleep", "1000"]).pid)  # noqa: S607
            started.set()
            time.sleep(1000)

        threading.Thread(target=keep, daemon=True).start()
        started.wait()
        return pids

    for pids in await executor.map(leave, range(4), chunksize=2):
        assert len(pids) == 3
        assert all(map(ends, pids))
    assert await executor.submit(abs, -1) == 1


# --- tasks that are careless with their process ---------------------------------------


def careless() -> dict[str, Callable[[], object]]:
    """Return tasks that return 1 and leave something behind."""

    def closes_stdout() -> int:
        sys.stdout.close()
        return 1

    def closes_descriptors_1_and_2() -> int:
        os.close(1)
        os.close(2)
        sys.stdout.write("to nobody\n")
        return 1

    def detaches_stdout() -> int:
        cast("io.TextIOWrapper", sys.stdout).detach()
        return 1

    def replaces_stdout() -> int:
        sys.stdout = io.StringIO()
        return 1

    def prints_megabytes() -> int:
        for _ in range(300):
            sys.stdout.write("x" * 100_000 + "\n")
        return 1

    def writes_binary() -> int:
        os.write(1, bytes(range(256)) * 4096)
        sys.stdout.buffer.write(b"\xff\x00\xfe")
        return 1

    def prints_surrogates() -> int:
        sys.stdout.write("\ud800\n")
        return 1

    def leaves_a_thread() -> int:
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        return 1

    def ignores_signals() -> int:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return 1

    tasks = [
        closes_stdout,
        closes_descriptors_1_and_2,
        detaches_stdout,
        replaces_stdout,
        prints_megabytes,
        writes_binary,
        prints_surrogates,
        leaves_a_thread,
        ignores_signals,
    ]
    return {task.__name__.replace("_", " "): task for task in tasks}


@pytest.mark.parametrize("way", careless())
async def test_what_a_task_leaves_behind_harms_nobody(
    outcome: Outcome, way: str, chunksize: int
) -> None:
    """Its own result arrives, and so do those of the tasks that share its worker."""
    assert await outcome(careless()[way], chunksize) == 1
