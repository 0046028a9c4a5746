"""An input that fails ends its own job, and harms no other."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from wren import Executor, Job
from wren.errors import TaskCancelledError

if TYPE_CHECKING:
    from tests.core.conftest import FakeCompute

pytestmark = pytest.mark.anyio


def lazy(error: BaseException) -> Iterator[int]:
    yield 1
    raise error


async def asynchronous(error: BaseException) -> AsyncIterator[int]:
    yield 1
    raise error


INPUTS = pytest.mark.parametrize("make", [lazy, asynchronous])
ON_ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])
"""Where anybody can raise the exception that stands for a cancellation."""


async def test_an_input_that_cannot_begin_ends_its_job_only(
    make_compute: type[FakeCompute],
) -> None:
    """Also where an input before it has begun and is to be closed."""

    class Broken:
        def __aiter__(self) -> AsyncIterator[int]:
            raise LookupError("cannot begin")

    async with Executor(backend=make_compute()) as executor:
        with anyio.fail_after(5), pytest.raises(LookupError, match="cannot begin"):
            await executor.map(abs, Broken())
        with anyio.fail_after(5), pytest.raises(LookupError, match="cannot begin"):
            await executor.map(max, asynchronous(KeyError()), Broken())
        assert await executor.submit(abs, -1) == 1


@ON_ASYNCIO
@INPUTS
async def test_an_input_that_was_cancelled_ends_its_job_only(
    make_compute: type[FakeCompute], make: Callable[[BaseException], Any]
) -> None:
    """It may have awaited what somebody else cancelled. That is no end of an input."""
    cancelled = anyio.get_cancelled_exc_class()("by somebody else")

    async with Executor(backend=make_compute()) as executor:
        with anyio.fail_after(5), pytest.raises(TaskCancelledError) as caught:
            await executor.map(abs, make(cancelled))
        assert await executor.submit(abs, -1) == 1

    assert "input" in str(caught.value)
    assert caught.value.__cause__ is cancelled


@ON_ASYNCIO
async def test_an_input_that_is_cancelled_while_it_is_closed_harms_nobody(
    make_compute: type[FakeCompute], caplog: pytest.LogCaptureFixture
) -> None:
    """Its cleaning up may fail like anything else."""

    async def input_() -> AsyncIterator[int]:
        try:
            for n in count():
                yield n
        finally:
            raise anyio.get_cancelled_exc_class()

    async with Executor(backend=make_compute()) as executor:
        with anyio.fail_after(5):
            async for _ in executor.map(abs, input_(), buffer=4):
                break
            assert await executor.map(abs, range(-9, 0)) == list(range(9, 0, -1))

    assert "failed while it was closed" in caplog.text


async def test_cancelling_what_surrounds_the_executor_goes_through_an_input(
    make_compute: type[FakeCompute],
) -> None:
    """That cancellation is not the input's own, and must not be taken for it."""
    pulled = anyio.Event()
    stopped: list[bool] = []
    jobs: list[Job[int]] = []

    async def input_() -> AsyncIterator[int]:
        yield 1
        pulled.set()
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            stopped.append(True)
            raise

    with anyio.fail_after(5), anyio.CancelScope() as scope:
        async with Executor(backend=make_compute()) as executor:
            jobs.append(executor.map(abs, input_()))
            await pulled.wait()
            scope.cancel()
            await jobs[0]

    assert scope.cancelled_caught
    assert stopped == [True]
    assert jobs[0].done()


# asyncio says so of tasks that are cancelled before their first step.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@INPUTS
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_input_leaves_no_job_waiting(
    make_compute: type[FakeCompute],
    anyio_backend: str,
    make: Callable[[BaseException], Any],
    error: type[BaseException],
) -> None:
    """The interruption itself ends the program, as it would from any other place."""
    jobs: list[Job[int]] = []

    async def main() -> None:
        async with Executor(backend=make_compute()) as executor:
            jobs.append(executor.map(abs, make(error())))
            await anyio.sleep_forever()

    with pytest.raises(BaseException) as caught:  # noqa: PT011  # alone or in a group
        anyio.run(main, backend=anyio_backend)

    assert isinstance(caught.value, error) or caught.group_contains(error)
    assert jobs.pop().done()
    del caught
    gc.collect()  # while the warning is ignored


async def test_an_input_may_cancel_its_own_job(
    make_compute: type[FakeCompute],
) -> None:
    """What it gives at the same time is not begun, and keeps nobody waiting."""
    compute = make_compute()
    jobs: list[Job[int]] = []

    def input_() -> Iterator[int]:
        jobs[0].cancel()
        yield 1

    async with Executor(backend=compute) as executor:
        jobs.append(executor.map(abs, input_()))
        with anyio.fail_after(5), pytest.raises(TaskCancelledError):
            await jobs[0]

    assert jobs[0].done()
    assert compute.executed == []
