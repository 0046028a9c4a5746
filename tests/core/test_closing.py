"""Closing an executor: by several tasks at once, half open, and interrupted."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from wren import Executor
from wren.errors import ConfigurationError
from wren.protocols import Limits

if TYPE_CHECKING:
    from tests.core.conftest import CountingStorage, FakeCompute

pytestmark = pytest.mark.anyio


@pytest.fixture
def owned(
    make_compute: type[FakeCompute], monkeypatch: pytest.MonkeyPatch
) -> FakeCompute:
    """The backend that executors open by name, and so have to close."""
    compute = make_compute(limits=Limits(concurrency=1), threads=True)

    def open_compute(*_: Any) -> FakeCompute:
        return compute

    async def aclose() -> None:
        await checkpoint()  # where an outer cancellation would strike
        compute.closed = True

    monkeypatch.setattr("wren.registry.open_compute", open_compute)
    monkeypatch.setattr(compute, "aclose", aclose)
    return compute


async def test_whoever_closes_later_waits_for_whoever_began(
    owned: FakeCompute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After ``async with`` nothing runs, also when another task began to close."""
    closing, go_on = anyio.Event(), anyio.Event()
    left: list[bool] = []
    early: list[bool] = []
    closed = owned.aclose

    async def aclose() -> None:
        closing.set()
        await go_on.wait()
        await closed()

    async def use() -> None:
        async with Executor() as executor:
            group.start_soon(executor.aclose)
            await closing.wait()
        left.append(owned.closed)

    monkeypatch.setattr(owned, "aclose", aclose)
    async with anyio.create_task_group() as group:
        group.start_soon(use)
        await wait_all_tasks_blocked()
        early += left
        go_on.set()

    assert early == []
    assert left == [True]


async def test_closing_before_it_is_open_closes_what_is_opened(
    owned: FakeCompute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block is entered, but the executor is closed in it, and after it for good."""
    starting, go_on = anyio.Event(), anyio.Event()
    prepared = owned.prepare

    async def prepare() -> Any:
        starting.set()
        await go_on.wait()
        return await prepared()

    async def use() -> None:
        async with executor:
            with pytest.raises(ConfigurationError, match="closed"):
                executor.submit(abs, 1)

    monkeypatch.setattr(owned, "prepare", prepare)
    executor = Executor()
    async with anyio.create_task_group() as group:
        group.start_soon(use)
        await starting.wait()
        await executor.aclose()
        go_on.set()

    assert owned.closed


async def test_a_backend_is_closed_whose_start_was_cancelled(
    owned: FakeCompute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its processes have started, perhaps, and nobody else knows of them."""
    with anyio.CancelScope() as scope:

        async def prepare() -> Any:
            scope.cancel()
            await checkpoint()

        monkeypatch.setattr(owned, "prepare", prepare)
        await Executor().__aenter__()

    assert scope.cancelled_caught
    assert owned.closed


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_storage_and_backend_are_closed_when_closing_is_cancelled(
    owned: FakeCompute, store: CountingStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio's own cancellation goes through every shield."""
    stuck, go_on = anyio.Event(), anyio.Event()
    closed: list[str] = []

    async def resist() -> None:
        stuck.set()
        with anyio.CancelScope(shield=True):
            await go_on.wait()

    async def aclose() -> None:
        closed.append("storage")

    def storage_for(*_: Any) -> CountingStorage:
        return store

    monkeypatch.setattr("wren.registry.storage_for", storage_for)
    async with Executor() as executor:
        await executor.map(abs, [1], commit_after=0)
        monkeypatch.setattr(store, "aclose", aclose)
        owned.script.append(resist)
        job = executor.map(abs, [2], commit_after=0)
        await stuck.wait()
        closer = asyncio.create_task(executor.aclose())
        await wait_all_tasks_blocked()
        closer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closer
        ended = owned.closed, job.done()
        go_on.set()
    monkeypatch.undo()

    assert closed == ["storage"]
    assert ended == (True, True)


PROGRAM = """
import sys, anyio, wren

def items():
    yield 1
    raise {raised}

async def main():
    async with wren.Executor(concurrency=1) as executor:
        await executor.map(abs, items())

anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("raised", "code"), [("KeyboardInterrupt", -signal.SIGINT), ("SystemExit(3)", 3)]
)
def test_an_interruption_in_a_runner_comes_out_as_itself(
    backend: str, raised: str, code: int
) -> None:
    """Trio raises Ctrl-C in whichever task runs: no group around it, no exit code 1."""
    command = [sys.executable, "-c", PROGRAM.format(raised=raised), backend]

    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60)

    assert done.returncode == code
    assert "ExceptionGroup" not in done.stderr
