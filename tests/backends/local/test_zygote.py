"""The process that workers are forked from obeys, reports and leaves nothing behind."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import pytest

from wren.backends.local.launcher import ZygoteProcess
from wren.backends.local.process import WorkerProcess
from wren.backends.local.zygote import OUTPUT_TAIL, _Child, children
from wren.config import worker_environment
from wren.envelope import Buffer
from wren.errors import ComputeError, WorkerLostError

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.blocking,  # starting an interpreter blocks the loop for a moment
]

Ask: TypeAlias = Callable[[Callable[[Any], Any], object], list[Buffer]]
Until: TypeAlias = Callable[[Callable[[], bool]], Awaitable[None]]
Answer: TypeAlias = Callable[[Buffer], list[Any]]


@pytest.fixture
async def zygote(anyio_backend: str, tmp_path: Path) -> AsyncGenerator[ZygoteProcess]:
    """A process to fork workers from."""
    session = tmp_path / "session"
    (session / "modules").mkdir(parents=True)
    zygote = ZygoteProcess(worker_environment(), session, None)
    yield zygote
    await zygote.aclose()


async def call(worker: WorkerProcess, request: list[Buffer]) -> memoryview:
    """Send a request to a worker and return its response."""
    worker.send_small(request)
    await worker.started(30)
    return await worker.receive()


async def test_workers_are_its_children_and_lead_sessions_of_their_own(
    zygote: ZygoteProcess, ask: Ask, answer: Answer
) -> None:
    """So that one can be killed with all that it started, and that a terminal's Ctrl-C,
    which goes to the driver's group, does not reach it."""
    workers = [WorkerProcess(zygote, n) for n in (1, 2)]
    request = ask(lambda _: (os.getpid(), os.getppid(), os.getsid(0)), 0)
    pids: set[int] = set()

    for worker in workers:
        ((pid, parent, session),) = answer(await call(worker, request))
        assert parent == zygote._process.pid
        assert session == pid
        pids.add(pid)

    assert pids == set(children(zygote._process.pid))
    for worker in workers:
        worker.discard()


async def test_a_worker_is_killed_with_everything_it_started(
    zygote: ZygoteProcess,
    ask: Ask,
    tmp_path: Path,
    until: Until,
    ends: Callable[[int], bool],
) -> None:
    """Children in its group, daemons in sessions of their own, and their children."""
    note = tmp_path / "pids"

    def family(_: int) -> None:
        pids = [os.getpid()]
        for daemon in (False, True):
            readable, writable = os.pipe()
            if os.fork() == 0:
                if daemon:
                    os.setsid()
                child = os.fork()
                if child:
                    os.write(writable, f"{os.getpid()} {child} ".encode())
                time.sleep(1000)
            pids += map(int, os.read(readable, 100).split())
        note.with_suffix(".new").write_text(" ".join(map(str, pids)))
        note.with_suffix(".new").rename(note)
        time.sleep(1000)

    worker = WorkerProcess(zygote, 1)
    worker.send_small(ask(family, 0))
    await worker.started(30)
    await until(note.exists)

    worker.discard()

    pids = [int(word) for word in note.read_text().split()]
    assert len(pids) == 5
    assert all(map(ends, pids))


async def test_a_flood_of_output_does_not_keep_it_from_obeying(
    zygote: ZygoteProcess, ask: Ask, answer: Answer, until: Until
) -> None:
    """It reads what workers print, but a little at a time."""

    def flood(_: int) -> None:
        while True:
            os.write(1, bytes(1 << 16))

    floods = [WorkerProcess(zygote, n) for n in range(4)]
    for worker in floods:
        worker.send_small(ask(flood, 0))
        await worker.started(30)

    other = WorkerProcess(zygote, 9)
    with anyio.fail_after(20):
        assert answer(await call(other, ask(abs, -1))) == [1]
    for worker in floods:
        worker.discard()
    await until(lambda: len(children(zygote._process.pid)) == 1)

    other.discard()


async def test_the_tail_of_the_output_comes_with_the_end(
    zygote: ZygoteProcess, ask: Ask
) -> None:
    """The last of it, not the first: it says why the process ended."""

    def talk(_: int) -> None:
        os.write(1, b"x" * 100_000)
        os.write(2, b"the end")
        os._exit(3)

    worker = WorkerProcess(zygote, 1)
    with pytest.raises(WorkerLostError) as caught:
        await call(worker, ask(talk, 0))

    assert caught.value.exit_code == 3
    assert caught.value.output == "x" * (OUTPUT_TAIL - 7) + "the end"
    worker.discard()


def test_output_that_has_ended_is_told_from_output_that_may_come() -> None:
    """A pipe without writers is always readable, and would keep the zygote busy."""
    readable, writable = os.pipe2(os.O_NONBLOCK)
    child = _Child(1, 0, readable)
    os.write(writable, b"some")

    assert child.drain()
    assert child.tail == b"some"
    os.close(writable)
    assert not child.drain()
    os.close(readable)


def test_output_is_read_a_little_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may write as fast as it is read, and others wait for the zygote."""
    pieces = iter([b"x" * OUTPUT_TAIL] * 1000)

    def endless(descriptor: int, size: int) -> bytes:
        return next(pieces)

    monkeypatch.setattr(os, "read", endless)
    child = _Child(1, 0, -1)

    assert child.drain()
    assert len(child.tail) == OUTPUT_TAIL


async def test_a_limit_of_the_machine_costs_one_worker_only(
    zygote: ZygoteProcess, ask: Ask, answer: Answer
) -> None:
    """Where no more can be forked, the workers that are there go on."""
    first = WorkerProcess(zygote, 1)
    await call(first, ask(abs, -1))
    pid = zygote._process.pid
    used = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208  # ASYNC: a few entries
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)

    for room in range(3):  # for the socket, the pipe's ends
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + room, usual[1]))
        worker = WorkerProcess(zygote, 10 + room)
        with pytest.raises(ComputeError, match="Too many open files") as caught:
            await call(worker, ask(abs, -1))
        assert not isinstance(caught.value, WorkerLostError)  # it has not run
        worker.discard()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)

    last = WorkerProcess(zygote, 20)
    for worker in (first, last):
        assert answer(await call(worker, ask(abs, -1))) == [1]
        worker.discard()
    assert len(os.listdir(f"/proc/{pid}/fd")) <= used + 1  # noqa: PTH208


async def test_reports_that_nobody_reads_do_not_keep_it_from_ending(
    zygote: ZygoteProcess, ask: Ask, until: Until, tmp_path: Path
) -> None:
    """A cancelled job leaves dozens of them, more than its socket takes."""

    def talk(n: int) -> None:
        os.write(1, b"x" * OUTPUT_TAIL)
        (tmp_path / f"talked{n}").touch()
        time.sleep(1000)

    workers = [WorkerProcess(zygote, n) for n in range(24)]
    for worker in workers:
        worker.send_small(ask(talk, worker.number))
    await until(lambda: len(list(tmp_path.glob("talked*"))) == len(workers))
    for worker in workers:
        worker.discard()
    await until(lambda: not children(zygote._process.pid))

    with anyio.fail_after(20):
        await zygote.aclose()

    assert zygote._process.returncode == 0  # by itself: it was not killed


async def test_workers_die_with_it(
    zygote: ZygoteProcess, ask: Ask, answer: Answer, ends: Callable[[int], bool]
) -> None:
    """Nobody else would end them, since the driver does not know their numbers."""
    worker = WorkerProcess(zygote, 1)
    (pid,) = answer(await call(worker, ask(lambda _: os.getpid(), 0)))

    os.kill(zygote._process.pid, signal.SIGKILL)

    assert ends(pid)
    worker.discard()


async def test_when_the_driver_is_gone_it_removes_everything(
    anyio_backend: str,
    tmp_path: Path,
    ask: Ask,
    answer: Answer,
    ends: Callable[[int], bool],
) -> None:
    """Processes and files; whether a worker is idle, busy or floods its output."""
    session = tmp_path / "session"
    (session / "modules").mkdir(parents=True)
    zygote = ZygoteProcess(worker_environment(), session, None)
    workers = [WorkerProcess(zygote, n) for n in (1, 2)]
    pids = [
        answer(await call(worker, ask(lambda _: os.getpid(), 0)))[0]
        for worker in workers
    ]
    workers[0].send_small(ask(lambda _: time.sleep(1000), 0))

    with anyio.fail_after(20):
        await zygote.aclose()

    assert zygote._process.returncode == 0
    assert all(map(ends, pids))
    assert not session.exists()
    for worker in workers:
        worker.discard()


def test_children_are_found_whichever_thread_made_them(
    own_children: Callable[[], set[int]],
) -> None:
    """The kernel keeps a list for each thread."""
    import subprocess
    import threading

    made: list[subprocess.Popen[bytes]] = []
    started, leave = threading.Event(), threading.Event()

    def make() -> None:
        made.append(subprocess.Popen(["sleep", "1000"]))  # noqa: S607
        started.set()
        leave.wait()

    thread = threading.Thread(target=make)
    thread.start()
    started.wait()

    assert made[0].pid in own_children()

    made[0].kill()
    made[0].wait()
    leave.set()
    thread.join()
    assert children(made[0].pid) == []
