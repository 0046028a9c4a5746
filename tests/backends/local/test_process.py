"""The driver's view of one worker process, and of the process it was forked from."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import pytest

from wren.backends.local import launcher
from wren.backends.local.channel import SHARED_FROM
from wren.backends.local.launcher import ZygoteProcess
from wren.backends.local.process import WorkerProcess
from wren.backends.local.zygote import children
from wren.config import worker_environment
from wren.envelope import Buffer
from wren.errors import ComputeError, DeploymentError, WorkerLostError

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
    (tmp_path / "modules").mkdir()
    zygote = ZygoteProcess(worker_environment(), tmp_path, None)
    yield zygote
    await zygote.aclose()


@pytest.fixture
async def worker(zygote: ZygoteProcess) -> AsyncGenerator[WorkerProcess]:
    """One worker that has started."""
    worker = WorkerProcess(zygote, 1)
    await worker.started(30)
    yield worker
    worker.discard()


async def test_small_and_large_requests_are_answered(
    worker: WorkerProcess, ask: Ask, answer: Answer
) -> None:
    """One after the other, by the same process."""
    for length in (10, SHARED_FROM, 5 << 20, 10):
        request = ask(lambda data: data[::-1], b"ab" * (length // 2))
        if length < SHARED_FROM // 2:
            worker.send_small(request)
        else:
            await worker.send_large(request)

        assert answer(await worker.receive()) == [b"ba" * (length // 2)]


async def test_a_request_that_the_socket_does_not_take_at_once_arrives(
    zygote: ZygoteProcess, ask: Ask, answer: Answer
) -> None:
    """The rest follows when there is room."""
    worker = WorkerProcess(zygote, 1)
    worker._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    data = os.urandom(100_000)

    worker.send_small(ask(len, data))
    assert worker._unsent
    await worker.started(30)

    assert answer(await worker.receive()) == [100_000]
    worker.discard()


@pytest.mark.parametrize("length", [10, 100_000])
async def test_a_worker_that_dies_before_it_reads_says_how(
    zygote: ZygoteProcess, ask: Ask, length: int
) -> None:
    """Also while the rest of a request is being sent."""
    worker = WorkerProcess(zygote, 1)
    worker._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    await worker.started(30)
    zygote.kill(1)

    worker.send_small(ask(len, bytes(length)))
    with pytest.raises(WorkerLostError, match="SIGKILL"):
        await worker.receive()

    worker.discard()


async def test_an_idle_worker_that_died_is_noticed(
    zygote: ZygoteProcess, worker: WorkerProcess, until: Until
) -> None:
    """Before a request is lost with it."""
    assert worker.alive()

    zygote.kill(worker.number)

    await until(lambda: not worker.alive())


async def test_a_task_that_cuts_its_worker_off_is_not_waited_for(
    worker: WorkerProcess, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It closed all descriptors, the driver's included, and goes on and on."""
    monkeypatch.setattr(launcher, "_END_SECONDS", 0.3)

    def cut_off(_: int) -> None:
        os.closerange(0, 4096)
        time.sleep(1000)

    worker.send_small(ask(cut_off, 0))
    with pytest.raises(WorkerLostError, match="closed descriptors"):
        await worker.receive()


async def test_a_worker_asks_to_be_replaced(worker: WorkerProcess, ask: Ask) -> None:
    """After a task was interrupted, its process may be in any state."""
    from wren.envelope import REQUEST, decode, encode

    header, buffers = decode(b"".join(ask(lambda n: time.sleep(n), 1000)), REQUEST)
    header["timeout"] = 0.05

    worker.send_small(encode(REQUEST, header, [[buffer] for buffer in buffers]))
    await worker.receive()

    assert worker.retired


async def test_a_stopped_worker_says_so(worker: WorkerProcess, ask: Ask) -> None:
    """Whoever waits for it must not wait for ever when the backend is closed."""
    worker.send_small(ask(lambda n: time.sleep(n), 1000))

    async with anyio.create_task_group() as group:

        async def wait() -> None:
            with pytest.raises(WorkerLostError, match="closed"):
                await worker.receive()

        group.start_soon(wait)
        await anyio.sleep(0.05)
        worker.stop()


async def test_discarding_gives_every_descriptor_back(
    zygote: ZygoteProcess, ask: Ask, own_descriptors: Callable[[], int]
) -> None:
    """Sockets and memory files of both directions; twice is once."""
    before = own_descriptors()
    worker = WorkerProcess(zygote, 1)
    await worker.started(30)
    await worker.send_large(ask(lambda data: data, bytes(SHARED_FROM)))
    await worker.receive()

    worker.discard()
    worker.discard()

    assert own_descriptors() == before


# --- the process that workers are forked from -----------------------------------------


async def test_an_interpreter_that_does_not_start_says_why(
    anyio_backend: str, tmp_path: Path
) -> None:
    """Its own words, instead of a hang or of a lost worker."""
    zygote = ZygoteProcess({"PYTHONHOME": "/nowhere"}, tmp_path, None)
    worker = WorkerProcess(zygote, 1)

    with pytest.raises(
        DeploymentError, match=r"(?s)did not start.*encodings"
    ) as caught:
        await worker.started(30)

    assert sys.executable in str(caught.value)
    worker.discard()
    await zygote.aclose()


async def test_a_missing_interpreter_is_an_error(
    anyio_backend: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    own_descriptors: Callable[[], int],
) -> None:
    """Python may have been upgraded under a program that runs."""
    before = own_descriptors()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    with pytest.raises(DeploymentError, match="cannot start"):
        ZygoteProcess({}, tmp_path, None)

    assert own_descriptors() == before


async def test_a_worker_that_does_not_start_is_not_waited_for(
    zygote: ZygoteProcess,
) -> None:
    """The start has a deadline of its own."""
    os.kill(zygote._process.pid, signal.SIGSTOP)
    worker = WorkerProcess(zygote, 1)

    with pytest.raises(DeploymentError, match="did not start within"):
        await worker.started(0.1)

    worker.discard()
    os.kill(zygote._process.pid, signal.SIGCONT)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_the_death_of_the_zygote_is_not_blamed_on_the_task(
    zygote: ZygoteProcess, worker: WorkerProcess, ask: Ask, number: signal.Signals
) -> None:
    """The error says that both processes are gone."""
    worker.send_small(ask(lambda n: time.sleep(n), 1000))

    os.kill(zygote._process.pid, number)

    with pytest.raises(WorkerLostError, match="forked from are gone"):
        await worker.receive()


@pytest.fixture
async def frozen(zygote: ZygoteProcess) -> ZygoteProcess:
    """One that does not read, with a socket that takes a few commands only."""
    worker = WorkerProcess(zygote, 100)
    await worker.started(30)
    zygote._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    os.kill(zygote._process.pid, signal.SIGSTOP)
    worker.discard()
    return zygote


async def test_workers_are_forked_although_the_zygote_is_behind(
    frozen: ZygoteProcess, ask: Ask, answer: Answer
) -> None:
    """It takes a millisecond or two for each, and a driver may ask for hundreds."""
    workers = [WorkerProcess(frozen, n) for n in range(30)]
    for worker in workers:
        worker.send_small(ask(abs, -worker.number))
    assert frozen._commands
    os.kill(frozen._process.pid, signal.SIGCONT)

    async with anyio.create_task_group() as group:
        for worker in workers:
            group.start_soon(worker.started, 30)

    for worker in workers:
        assert answer(await worker.receive()) == [worker.number]
        worker.discard()


async def test_workers_are_killed_although_the_zygote_is_behind(
    zygote: ZygoteProcess, until: Until
) -> None:
    """Else what was cancelled would go on using the machine."""
    workers = [WorkerProcess(zygote, n) for n in range(30)]
    for worker in workers:
        await worker.started(30)
    zygote._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    os.kill(zygote._process.pid, signal.SIGSTOP)
    for worker in workers:
        zygote.kill(worker.number)
    assert zygote._commands
    os.kill(zygote._process.pid, signal.SIGCONT)

    with anyio.fail_after(20):
        await zygote.flush()

    await until(lambda: not children(zygote._process.pid))
    for worker in workers:
        worker.discard()


async def test_what_was_not_sent_is_dropped_at_the_end(
    frozen: ZygoteProcess,
    own_descriptors: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With its descriptors, and nobody goes on waiting for it."""
    monkeypatch.setattr(launcher, "_END_SECONDS", 0.1)
    before = own_descriptors()
    workers = [WorkerProcess(frozen, n) for n in range(30)]
    assert frozen._commands

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for worker in workers:
                group.start_soon(worker.flush)
            await anyio.wait_all_tasks_blocked()
            await frozen.aclose()

    for worker in workers:
        worker.discard()
    assert own_descriptors() < before


async def test_a_descriptor_that_cannot_be_sent_costs_one_worker_only(
    zygote: ZygoteProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel limits how many are on their way at a time."""

    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(control, name)

        def sendmsg(self, *_: object) -> int:
            raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))

    control = zygote._control
    with monkeypatch.context() as patch:
        patch.setattr(zygote, "_control", Full())
        worker = WorkerProcess(zygote, 1)
    other = WorkerProcess(zygote, 2)

    with pytest.raises(ComputeError, match="Too many references") as caught:
        await worker.started(30)
    await other.started(30)

    assert not isinstance(caught.value, WorkerLostError)  # it has not run
    worker.discard()
    other.discard()


async def test_who_waits_for_an_end_is_not_robbed_of_it(
    zygote: ZygoteProcess,
    worker: WorkerProcess,
    ask: Ask,
    answer: Answer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A command reads what has been reported, but not while somebody waits for it."""
    monkeypatch.setattr(launcher, "_END_SECONDS", 1000.0)
    worker.send_small(ask(lambda _: os.getpid(), 0))
    (pid,) = answer(await worker.receive())
    os.kill(zygote._process.pid, signal.SIGSTOP)

    async def wait() -> None:
        with pytest.raises(WorkerLostError, match="SIGKILL"):
            await worker.receive()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            os.kill(pid, signal.SIGKILL)
            while zygote._reading is None:  # noqa: ASYNC110  # the kernel sets no event
                await anyio.sleep(0.005)
            await anyio.wait_all_tasks_blocked()
            os.kill(zygote._process.pid, signal.SIGCONT)
            select.select([zygote._control], [], [], 20)
            zygote.kill(99)


async def test_the_end_of_a_discarded_worker_is_not_kept(
    zygote: ZygoteProcess, until: Until
) -> None:
    """Its last output would stay in memory for as long as the driver runs."""
    worker = WorkerProcess(zygote, 1)
    await worker.started(30)

    worker.discard()
    await until(lambda: not children(zygote._process.pid))
    zygote.kill(99)

    assert not zygote._exits


async def test_it_ends_although_a_copy_of_its_socket_is_open(
    zygote: ZygoteProcess,
) -> None:
    """A process that the driver's program has forked keeps one."""
    copy = zygote._control.dup()

    with anyio.fail_after(20):
        await zygote.aclose()

    assert zygote._process.returncode == 0  # by itself: it was not killed
    copy.close()


async def test_a_zygote_that_does_not_obey_is_killed(
    zygote: ZygoteProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing takes a few seconds at most."""
    monkeypatch.setattr(launcher, "_END_SECONDS", 0.1)
    os.kill(zygote._process.pid, signal.SIGSTOP)

    await zygote.aclose()

    assert zygote._process.returncode == -signal.SIGKILL
