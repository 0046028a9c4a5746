"""A task that misbehaves fails alone, says why, and harms nothing else."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeAlias

import pytest

import wren

pytestmark = pytest.mark.anyio

Bad: TypeAlias = Callable[[], object]
Outcome: TypeAlias = Callable[..., Awaitable[object]]
TASKS = 12
MEMORY_MB = 600


@pytest.fixture(scope="module")
async def executor(anyio_backend: str) -> AsyncGenerator[wren.Executor]:
    """Two workers whose memory is limited."""
    async with wren.Executor(
        concurrency=2, runtime=wren.Runtime(memory=MEMORY_MB)
    ) as executor:
        yield executor


# --- the process ends -----------------------------------------------------------------


def endings() -> dict[str, tuple[Bad, str, int | None]]:
    """Return ways to end a worker, what the error says, and the exit code."""

    def exits() -> None:
        os._exit(7)

    def crashes() -> None:
        ctypes.string_at(0)

    def aborts() -> None:
        os.abort()

    def is_killed() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def is_terminated() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def closes_all() -> None:
        os.closerange(0, 4096)

    def dies_by_a_real_time_signal() -> None:
        os.kill(os.getpid(), signal.SIGRTMIN + 3)

    return {
        "exits": (exits, "exit code 7", 7),
        "crashes": (crashes, "SIGSEGV", -signal.SIGSEGV),
        "aborts": (aborts, "SIGABRT", -signal.SIGABRT),
        "is killed": (is_killed, "SIGKILL; suspected: out of memory", -signal.SIGKILL),
        "is terminated": (is_terminated, "SIGTERM", -signal.SIGTERM),
        "closes all descriptors": (closes_all, "closed descriptors", 113),
        "real-time signal": (
            dies_by_a_real_time_signal,
            f"signal {signal.SIGRTMIN + 3}",
            -signal.SIGRTMIN - 3,
        ),
    }


@pytest.mark.parametrize("ending", endings())
async def test_a_task_that_ends_its_process_fails_alone(
    outcome: Outcome, ending: str, chunksize: int
) -> None:
    """It takes nobody with it, and its error says how the process ended."""
    bad, text, code = endings()[ending]

    error = await outcome(bad, chunksize)

    assert isinstance(error, wren.WorkerLostError)
    assert text in str(error)
    assert error.exit_code == code


async def test_the_last_words_of_a_lost_worker_arrive(
    outcome: Outcome, chunksize: int
) -> None:
    """An abort explains itself on stderr, below Python, where nothing else sees it."""

    def bad() -> None:
        os.write(2, b"assertion failed: the moon is round\n")
        os.abort()

    error = await outcome(bad, chunksize)

    assert isinstance(error, wren.WorkerLostError)
    assert error.output.endswith("assertion failed: the moon is round\n")
    assert any("the moon is round" in note for note in error.__notes__)


async def test_a_poison_task_is_tried_three_times(
    outcome: Outcome, tmp_path_factory: pytest.TempPathFactory, chunksize: int
) -> None:
    """Two retries and no more: a task that kills its worker must not do so for ever."""
    log = tmp_path_factory.mktemp("poison") / "log"

    def bad() -> None:
        with log.open("a") as file:
            file.write("x")
        os._exit(1)

    error = await outcome(bad, chunksize)

    assert isinstance(error, wren.WorkerLostError)
    assert log.read_text() == "xxx"


# --- memory ---------------------------------------------------------------------------


async def test_a_task_that_exhausts_memory_gets_a_memory_error(
    outcome: Outcome, chunksize: int
) -> None:
    """The limit is the task's, not the machine's: no out-of-memory killer is needed."""

    def bad() -> int:
        return len(bytearray(2 * MEMORY_MB << 20))

    assert isinstance(await outcome(bad, chunksize), MemoryError)


async def test_a_task_that_exhausts_memory_bit_by_bit_gets_a_memory_error(
    outcome: Outcome, chunksize: int
) -> None:
    """Even when nothing is left for the handling of the error."""

    def bad() -> int:
        kept: list[object] = []
        while True:
            kept.append(bytearray(1 << 20))

    assert isinstance(await outcome(bad, chunksize), MemoryError)


# --- tasks that never return ----------------------------------------------------------


def stuck() -> dict[str, Bad]:
    """Return tasks that never return."""

    def loops() -> None:
        while True:
            pass

    def swallows() -> None:
        while True:
            try:
                time.sleep(1)
            except BaseException:  # noqa: BLE001  # as some libraries do
                sys.stdout.write("never mind\n")

    def blocks_signals_in_c() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        ctypes.CDLL(None).sleep(1000)

    def holds_the_interpreter_lock() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        ctypes.PyDLL(None).sleep(1000)

    def deadlocks() -> None:
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()

    def ignores_the_alarm() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        time.sleep(1000)

    def awaits() -> Any:
        return asyncio.sleep(1000)

    return {
        "loops": loops,
        "swallows": swallows,
        "blocks signals in C": blocks_signals_in_c,
        "holds the interpreter lock": holds_the_interpreter_lock,
        "deadlocks": deadlocks,
        "ignores the alarm": ignores_the_alarm,
        "awaits": awaits,
    }


@pytest.mark.parametrize("way", stuck())
async def test_a_task_that_never_returns_times_out_alone(
    outcome: Outcome, way: str
) -> None:
    """Whether a signal reaches it or only SIGKILL does; its neighbours are unharmed.

    All are in one chunk. Where the driver must kill it, the tasks are tried alone.
    """
    error = await outcome(stuck()[way], TASKS, timeout=0.25)

    assert isinstance(error, wren.TaskTimeoutError)
    assert isinstance(error, TimeoutError)


# --- what tasks raise -----------------------------------------------------------------


def raising() -> dict[str, tuple[Bad, type[Exception], str]]:
    """Return tasks that raise, the exception's class here, and what it says."""

    class TwoArgumentsError(Exception):
        def __init__(self, first: int, second: int) -> None:
            super().__init__(f"{first} and {second}")

    class LockedError(Exception):
        def __init__(self) -> None:
            super().__init__("it holds a lock")
            self.lock = threading.Lock()

    class BrokenTextError(Exception):
        def __str__(self) -> str:
            raise ValueError

    class SuicidalError(Exception):
        def __reduce__(self) -> Any:
            raise SystemExit

    def raises(make: Callable[[], BaseException]) -> Bad:
        def bad() -> None:
            raise make()

        return bad

    def foreign() -> None:
        module = type(sys)("only_there")
        sys.modules["only_there"] = module
        exec("class ForeignError(Exception): pass", module.__dict__)  # noqa: S102
        raise module.ForeignError("not from here")

    remote = wren.RemoteError
    return {
        "ValueError": (raises(lambda: ValueError("v")), ValueError, "v"),
        "SystemExit": (raises(lambda: SystemExit(3)), remote, "SystemExit: 3"),
        "sys.exit": (lambda: sys.exit(), remote, "SystemExit"),
        "KeyboardInterrupt": (
            raises(KeyboardInterrupt),
            remote,
            "KeyboardInterrupt",
        ),
        "GeneratorExit": (raises(GeneratorExit), remote, "GeneratorExit"),
        "CancelledError": (raises(asyncio.CancelledError), remote, "CancelledError"),
        "StopIteration": (raises(lambda: StopIteration(1)), remote, "StopIteration: 1"),
        "StopAsyncIteration": (
            raises(lambda: StopAsyncIteration(2)),
            remote,
            "StopAsyncIteration: 2",
        ),
        "two arguments": (
            raises(lambda: TwoArgumentsError(1, 2)),
            remote,
            "TwoArgumentsError: 1 and 2",
        ),
        "with a lock": (raises(LockedError), remote, "LockedError: it holds a lock"),
        "broken __str__": (raises(BrokenTextError), Exception, ""),
        "SystemExit when pickled": (raises(SuicidalError), remote, "SuicidalError"),
        "class not here": (foreign, remote, "only_there.ForeignError: not from here"),
    }


@pytest.mark.parametrize("kind", raising())
async def test_what_a_task_raises_arrives(
    outcome: Outcome, kind: str, chunksize: int
) -> None:
    """As itself, or as a description where it would do harm or cannot be rebuilt."""
    bad, expected, text = raising()[kind]

    error = await outcome(bad, chunksize)

    assert isinstance(error, expected)
    if text:
        assert text in str(error)
    assert any("task 7, attempt 1, on local" in note for note in error.__notes__)


async def test_a_stop_async_iteration_does_not_end_the_readers_loop(
    executor: wren.Executor,
) -> None:
    """`async for` would take it for the end of the results and lose the rest."""

    def task(n: int) -> int:
        if n == 1:
            raise StopAsyncIteration
        return n

    with pytest.raises(wren.RemoteError, match="StopAsyncIteration"):
        async for _ in executor.map(task, range(3)):
            pass


async def test_an_exception_that_takes_no_notes_arrives(
    outcome: Outcome, chunksize: int
) -> None:
    """Some are immutable, such as frozen dataclasses, and a note is an attribute."""

    def bad() -> None:
        class FrozenError(Exception):
            def __setattr__(self, name: str, value: object) -> None:
                raise AttributeError(name)

        raise FrozenError(5)

    error = await outcome(bad, chunksize)

    assert type(error).__name__ == "FrozenError"
    assert isinstance(error, Exception)
    assert "on local" in error.__notes__[0]


# --- what tasks return ----------------------------------------------------------------


async def test_a_result_that_cannot_be_pickled_fails_alone(
    outcome: Outcome, chunksize: int
) -> None:
    """The error is about the result, and names what is wrong with it."""

    def bad() -> object:
        return {"fine": 1, "wrong": threading.Lock()}

    error = await outcome(bad, chunksize)

    assert isinstance(error, wren.SerializationError)
    assert "result" in str(error)
    assert "lock" in str(error)


async def test_a_result_that_cannot_be_unpickled_here_fails_alone(
    outcome: Outcome, chunksize: int
) -> None:
    """Its class exists in the worker only."""

    def bad() -> object:
        module = type(sys)("only_there")
        sys.modules["only_there"] = module
        exec("class Foreign: pass", module.__dict__)  # noqa: S102
        return module.Foreign()

    error = await outcome(bad, chunksize)

    assert isinstance(error, wren.SerializationError)
    assert "only_there" in str(error)
