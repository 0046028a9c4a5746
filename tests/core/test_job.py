"""`Job` and `Future`: every way to get at results, and what they promise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wren import Executor, Future
from wren.errors import (
    InvalidStateError,
    TaskCancelledError,
    WorkerLostError,
)
from wren.protocols import Limits

if TYPE_CHECKING:
    from tests.core.conftest import Action, Clock, FakeCompute

pytestmark = pytest.mark.anyio


def fail(n: int) -> int:
    raise LookupError(n)


async def stream(count: int) -> AsyncIterator[int]:
    for n in range(count):
        await checkpoint()
        yield n


FAULTS: list[Action] = ["ok", "lose", "duplicate", b"garbage"]


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    items=st.lists(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(max_size=3),
            st.binary(max_size=3),
            st.just(ValueError("a value")),
        ),
        max_size=40,
    ),
    sized=st.booleans(),
    chunksize=st.one_of(st.none(), st.integers(1, 9)),
    buffer=st.integers(1, 20),
    workers=st.integers(1, 4),
    script=st.lists(st.sampled_from(FAULTS), max_size=6),
    seed=st.integers(0, 999),
)
async def test_equals_the_built_in_map(
    make_compute: type[FakeCompute],
    clock: Clock,
    items: list[Any],
    sized: bool,
    chunksize: int | None,
    buffer: int,
    workers: int,
    script: list[Action],
    seed: int,
) -> None:
    """Whatever the input, the platform's faults and the order of completion."""
    limits = Limits(concurrency=workers, lossless=True)
    compute = make_compute(script, limits=limits, seed=seed)
    expected = list(map(repr, items))

    async with Executor(backend=compute, retries=6) as executor:
        options = executor.options(chunksize=chunksize, buffer=buffer)

        def inputs() -> Any:
            return items if sized else iter(items)

        with anyio.fail_after(20):
            assert list(map(repr, await options.map(lambda x: x, inputs()))) == expected
            assert [r async for r in options.map(repr, inputs())] == expected
            futures = options.map(repr, inputs()).as_completed()
            completed = [(f.index, f.result()) async for f in futures]

    assert sorted(completed) == list(enumerate(expected))
    assert compute.in_flight == 0


async def test_a_returned_exception_is_a_value(
    make_compute: type[FakeCompute],
) -> None:
    """Only what was raised counts as a failure."""
    async with Executor(backend=make_compute()) as executor:
        job = executor.map(lambda n: KeyError(n), [1, 2])
        assert [type(result) for result in await job] == [KeyError, KeyError]
        assert job[0].exception() is None
        assert isinstance(job[1].result(), KeyError)
        assert job.stats.failed == 0


async def test_the_first_failure_in_time_ends_the_job(
    make_compute: type[FakeCompute],
) -> None:
    """It is raised as the task's own exception; the rest is cancelled, not sent."""
    limits = Limits(concurrency=1, lossless=True)
    compute = make_compute(["ok", "ok"], limits=limits)

    async with Executor(backend=compute) as executor:
        job = executor.map(lambda n: 6 // n, [3, 0, *range(1, 1000)], chunksize=1)
        with pytest.raises(ZeroDivisionError):
            await job
        assert job.done()
        with pytest.raises(ZeroDivisionError):
            await job
        await job.wait()
        assert job[0].result() == 2
        assert isinstance(job[1].exception(), ZeroDivisionError)
        assert job[999].cancelled()
        with pytest.raises(TaskCancelledError):
            await job[999]

    assert len(compute.executed) < 10


async def test_failures_take_their_places_among_the_results(
    make_compute: type[FakeCompute],
) -> None:
    """Like `asyncio.gather`, in each way of reading."""
    async with Executor(backend=make_compute()) as executor:
        options = executor.options(return_exceptions=True, chunksize=2)

        def job() -> Any:
            return options.map(lambda n: 6 // n, [1, 0, 2, 0, 3])

        expected = ["6", "ZeroDivisionError", "3", "ZeroDivisionError", "2"]

        def names(results: list[Any]) -> list[str]:
            return [
                type(r).__name__ if isinstance(r, Exception) else str(r)
                for r in results
            ]

        assert names(await job()) == expected
        assert names([result async for result in job()]) == expected
        finished = job()
        await finished.wait()
        assert [f.exception() is None for f in finished] == [True, False] * 2 + [True]
        assert (finished.stats.finished, finished.stats.failed) == (3, 2)


async def test_a_failure_ends_the_iteration_in_its_place(
    make_compute: type[FakeCompute],
) -> None:
    """What comes before it is given first; what comes after is cancelled."""
    async with Executor(backend=make_compute()) as executor:
        job = executor.map(lambda n: 6 // n, [3, 2, 0, 1], chunksize=1)
        results = aiter(job)
        assert await anext(results) == 2
        assert await anext(results) == 3
        with pytest.raises(ZeroDivisionError):
            await anext(results)
        await job.wait()
        assert job.done()


async def test_futures_are_completed_in_order_of_completion_and_once_each(
    make_compute: type[FakeCompute],
) -> None:
    """Two iterators share them; a failure ends nothing."""
    compute = make_compute(seed=7)

    async with Executor(backend=compute) as executor:
        job = executor.map(lambda n: 6 // n, range(40), chunksize=1)
        first, second = job.as_completed(), job.as_completed()
        order = [(await anext(first)).index, (await anext(second)).index]
        order += [future.index async for future in first]
        assert [future async for future in second] == []
        assert sorted(order) == list(range(40))
        assert isinstance(job[0].exception(), ZeroDivisionError)
        assert order == compute.executed
        again = [result async for result in executor.map(abs, range(3)).as_completed()]
        assert {future.result() for future in again} == {0, 1, 2}


async def test_a_sized_job_can_be_read_again_in_every_way(
    make_compute: type[FakeCompute],
) -> None:
    """Its results are kept."""
    async with Executor(backend=make_compute()) as executor:
        job = executor.map(abs, range(300), chunksize=10)
        for _ in range(2):
            assert [result async for result in job] == list(range(300))
            assert await job == list(range(300))
        indices = [future.index async for future in job.as_completed()]
        assert sorted(indices) == list(range(300))
        assert [future async for future in job.as_completed()] == []


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_stream_is_read_once(
    make_compute: type[FakeCompute], asynchronous: bool
) -> None:
    """Its results are not kept; a second reader is told so, and the first goes on."""
    async with Executor(backend=make_compute()) as executor:

        def job() -> Any:
            return executor.map(abs, stream(500) if asynchronous else iter(range(500)))

        in_order = job()
        results = aiter(in_order)
        for n in range(100):
            assert await anext(results) == n
        for read in (lambda: aiter(in_order), in_order.as_completed):
            with pytest.raises(InvalidStateError, match="once"):
                read()
        with pytest.raises(InvalidStateError, match="once"):
            await in_order
        assert [result async for result in results] == list(range(100, 500))

        completing = job()
        futures = completing.as_completed()
        await anext(futures)
        with pytest.raises(InvalidStateError, match="once"):
            aiter(completing)
        with pytest.raises(InvalidStateError, match="once"):
            await completing
        rest = completing.as_completed()
        await anext(rest)
        assert len([future async for future in futures]) == 498

        awaited = job()
        results = await awaited
        for _ in range(2):
            assert [result async for result in awaited] == results == list(range(500))
        assert len([future async for future in awaited.as_completed()]) == 500
        assert await awaited == results


async def test_waiting_does_not_disturb_the_reader_of_a_stream(
    make_compute: type[FakeCompute],
) -> None:
    """It wants the whole input; what is unread stays readable."""
    async with Executor(backend=make_compute()) as executor:
        job = executor.map(abs, iter(range(500)), buffer=8)
        results = aiter(job)
        first = [await anext(results) for _ in range(100)]
        await job.wait()
        assert first + [result async for result in results] == list(range(500))


async def test_indexing_is_that_of_a_list(make_compute: type[FakeCompute]) -> None:
    """Futures of a sized input, from both ends."""
    async with Executor(backend=make_compute()) as executor:
        job = executor.map(abs, [-5, -6, -7])
        assert [await future for future in job] == [5, 6, 7]
        assert await job[-1] == await job[2] == 7
        assert [future.index for future in job] == [0, 1, 2]
        for wrong in (3, -4):
            with pytest.raises(IndexError):
                job[wrong]
        assert "3/3" in repr(job)
        assert job.id not in repr(job)
        assert len(job.id) == 32


async def test_a_future_has_the_states_of_asyncios(
    make_compute: type[FakeCompute],
) -> None:
    """Pending, then a result or an exception for good."""
    compute = make_compute()

    async with Executor(backend=compute) as executor:
        with compute.held():
            future, failing = executor.submit(abs, -7), executor.submit(fail, 7)
            for read in (future.result, future.exception):
                with pytest.raises(InvalidStateError):
                    read()
            assert not future.done()
            assert not future.cancelled()
            assert future.stats is None
            assert "pending" in repr(future)
        assert await future == await future == future.result() == 7
        assert future.exception() is None
        assert future.done()
        assert not future.cancel()
        assert not future.cancelled()
        assert "finished" in repr(future)
        for _ in range(2):
            with pytest.raises(LookupError):
                await failing
        assert isinstance(failing.exception(), LookupError)
        with pytest.raises(LookupError):
            failing.result()
        assert "LookupError" in repr(failing)
        assert not failing.cancelled()
        assert future.stats is not None
        assert future.stats.attempts == 1


async def test_many_may_wait_for_one_task(make_compute: type[FakeCompute]) -> None:
    """All of them get its result, whoever carries it out, and nobody is forgotten."""
    limits = Limits(concurrency=1, lossless=True)
    compute = make_compute(limits=limits)
    results: list[int] = []

    async def wait(future: Future[int]) -> None:
        results.append(await future)

    async def call(executor: Executor, n: int) -> None:
        results.append(await executor.submit(abs, -n))

    async with Executor(backend=compute) as executor:
        futures = [executor.submit(abs, -n) for n in range(5)]
        async with anyio.create_task_group() as group:
            for future in futures * 3:
                group.start_soon(wait, future)
        async with anyio.create_task_group() as group:
            for n in range(5):
                group.start_soon(call, executor, n)

    assert sorted(results) == sorted([*range(5)] * 4)
    assert compute.most_in_flight == 1
    assert compute.invocations == 10


async def test_a_job_is_awaited_in_another_task(
    make_compute: type[FakeCompute],
) -> None:
    """And in several at once."""
    results: list[list[int]] = []

    async with Executor(backend=make_compute()) as executor:
        job = executor.map(abs, range(100))

        async def wait() -> None:
            results.append(await job)

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            group.start_soon(wait)
            group.start_soon(job.wait)

    assert results == [list(range(100))] * 2


async def test_every_argument_of_submit_is_the_functions(
    make_compute: type[FakeCompute],
) -> None:
    """No keyword is reserved."""

    def collect(*args: int, **kwargs: int) -> tuple[tuple[int, ...], dict[str, int]]:
        return args, kwargs

    async with Executor(backend=make_compute()) as executor:
        assert await executor.submit(collect) == ((), {})
        assert await executor.submit(collect, 1) == ((1,), {})
        assert await executor.submit(collect, 1, 2) == ((1, 2), {})
        named = {"timeout": 1, "retries": 2, "fn": 3, "self": 4}
        assert await executor.submit(collect, 1, **named) == ((1,), named)


async def test_an_error_says_where_it_happened(
    make_compute: type[FakeCompute], clock: Clock
) -> None:
    """Index and attempt, for a lost worker as for a task's own exception."""
    compute = make_compute(["ok", WorkerLostError(), WorkerLostError()])

    async with Executor(backend=compute, retries=1) as executor:
        job = executor.map(abs, [1, 2], chunksize=1, concurrency=1)
        with pytest.raises(WorkerLostError) as caught:
            await job

    assert "task 1, attempt 2" in "\n".join(caught.value.__notes__)


async def test_nothing_is_kept_waiting_by_a_false_exception(
    make_compute: type[FakeCompute],
) -> None:
    """An exception may be false, as an object; it is a failure nevertheless."""

    def fail_falsely(n: int) -> int:
        class FalseError(Exception):
            def __bool__(self) -> bool:
                return False

        raise FalseError(n)

    compute = make_compute(["ok", "hang"])
    async with Executor(backend=compute) as executor:
        with anyio.fail_after(5), pytest.raises(Exception, match="0"):
            await executor.map(fail_falsely, range(2), chunksize=1)
        await wait_all_tasks_blocked()


async def test_a_future_that_was_read_from_a_stream_cannot_be_cancelled(
    make_compute: type[FakeCompute],
) -> None:
    """Its place may belong to another task by now, which goes on."""
    async with Executor(backend=make_compute()) as executor:
        job = executor.map(abs, stream(1000), buffer=100)
        async for future in job.as_completed():
            assert not future.cancel()
            assert future.result() == future.index

    assert job.stats.cancelled == 0
    assert job.stats.finished == 1000


async def test_a_reader_that_has_raised_has_ended(
    make_compute: type[FakeCompute],
) -> None:
    """As a generator would have; the job's end is not raised again and again."""

    async def broken() -> AsyncIterator[int]:
        yield 1
        raise LookupError("the input broke")

    async with Executor(backend=make_compute()) as executor:
        results = aiter(executor.map(fail, range(3)))
        futures = executor.map(abs, broken()).as_completed()
        assert (await anext(futures)).index == 0
        for reader in (results, futures):
            with pytest.raises(LookupError):
                await anext(reader)
            for _ in range(2):
                with pytest.raises(StopAsyncIteration):
                    await anext(reader)
