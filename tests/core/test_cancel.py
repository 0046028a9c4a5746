"""Cancelling: one task, one job, or the code that waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from wren import Executor, Job
from wren.errors import TaskCancelledError, WorkerLostError
from wren.protocols import Limits

if TYPE_CHECKING:
    from tests.core.conftest import Clock, CountingStorage, FakeCompute

pytestmark = pytest.mark.anyio

ONE = Limits(concurrency=1, lossless=True)


async def gather(job: Job[int]) -> object:
    return await job


async def iterate(job: Job[int]) -> object:
    return [result async for result in job]


async def complete(job: Job[int]) -> object:
    return [future async for future in job.as_completed()]


async def wait(job: Job[int]) -> object:
    await job.wait()
    return None


async def one(job: Job[int]) -> object:
    return await job[0]


@pytest.mark.parametrize("read", [gather, iterate, complete, wait])
async def test_cancelling_the_code_that_waits_cancels_the_job(
    make_compute: type[FakeCompute], read: Callable[[Job[int]], Any]
) -> None:
    """Nothing new is sent, and what runs is stopped."""
    compute = make_compute(["hang"] * 4)

    async with Executor(backend=compute) as executor:
        job = executor.map(abs, range(1000), chunksize=1)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(read, job)
                await compute.blocked(4)
                assert compute.in_flight == 4
                scope.cancel()
        await wait_all_tasks_blocked()
        assert scope.cancelled_caught
        assert job.done()
        assert compute.in_flight == 0
        assert await executor.submit(abs, -1) == 1

    assert compute.invocations == 5
    assert (job.stats.cancelled, job.stats.failed, job.stats.finished) == (4, 0, 0)


async def test_cancelling_the_code_that_waits_for_a_future_cancels_its_task(
    make_compute: type[FakeCompute],
) -> None:
    """The rest of its job goes on."""
    compute = make_compute(["hang"], limits=ONE)

    async with Executor(backend=compute) as executor:
        job = executor.map(abs, range(5), chunksize=1, return_exceptions=True)
        with anyio.move_on_after(60) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(one, job)
                await compute.blocked(1)
                scope.cancel()
        assert job[0].cancelled()
        results: list[Any] = await job
        assert isinstance(results[0], TaskCancelledError)
        assert results[1:] == [1, 2, 3, 4]


async def test_nested_scopes_each_catch_their_own(
    make_compute: type[FakeCompute],
) -> None:
    """A time-out inside a shield inside a cancelled scope; the executor lives on."""
    compute = make_compute()

    async with Executor(backend=compute) as executor:
        with anyio.CancelScope() as outer:
            with anyio.CancelScope(shield=True):
                with compute.held(), anyio.move_on_after(0.01) as inner:
                    await executor.map(abs, range(10))
                assert inner.cancelled_caught
                outer.cancel()
                assert await executor.map(abs, [-1]) == [1]
            await executor.map(abs, range(10), chunksize=1)
        assert outer.cancelled_caught
        assert await executor.map(abs, [-1]) == [1]


async def test_cancelling_a_job_twice_is_cancelling_it_once(
    make_compute: type[FakeCompute],
) -> None:
    """Only the first call had an effect, and says so."""
    compute = make_compute(["hang"] * 4)

    async with Executor(backend=compute) as executor:
        job = executor.map(abs, range(100), chunksize=1)
        await compute.blocked(4)
        assert job.cancel()
        assert not job.cancel()
        assert job.done()
        for future in (job[0], job[99]):
            assert future.cancelled()
            assert not future.cancel()
        with pytest.raises(TaskCancelledError, match="was cancelled"):
            await job
        with pytest.raises(TaskCancelledError):
            await anext(aiter(job))
        await job.wait()
        finished = executor.map(abs, range(3))
        await finished
        assert not finished.cancel()
        assert await finished == [0, 1, 2]


async def test_results_that_were_there_stay(make_compute: type[FakeCompute]) -> None:
    """Partial outcomes are readable from futures after a job was cancelled."""
    compute = make_compute(["ok", "ok", "hang"], limits=ONE)

    async with Executor(backend=compute) as executor:
        job = executor.map(abs, range(4), chunksize=1)
        await compute.blocked(1)
        job.cancel()
        assert [future.cancelled() for future in job] == [False, False, True, True]
        assert await job[1] == 1
        completed = [future.index async for future in job.as_completed()]
        assert completed == [0, 1, 2]


async def test_a_task_that_runs_alone_is_stopped(
    make_compute: type[FakeCompute],
) -> None:
    """Its neighbours go on, and its place is free at once."""
    compute = make_compute(["hang"], limits=ONE)

    async with Executor(backend=compute) as executor:
        job = executor.map(abs, range(3), chunksize=1, return_exceptions=True)
        await compute.blocked(1)
        assert job[0].cancel()
        assert not job[0].cancel()
        assert job[0].cancelled()
        with pytest.raises(TaskCancelledError):
            job[0].result()
        with pytest.raises(TaskCancelledError):
            job[0].exception()
        await job
        assert [future.done() for future in job] == [True] * 3

    assert compute.executed == [1, 2]
    assert (job.stats.finished, job.stats.cancelled, job.stats.failed) == (2, 1, 0)


async def test_a_task_in_a_chunk_runs_on_and_its_outcome_is_dropped(
    make_compute: type[FakeCompute],
) -> None:
    """Its neighbours' outcomes are not, and the counters count it once."""
    compute = make_compute()

    async with Executor(backend=compute) as executor:
        with compute.held():
            job = executor.map(
                lambda n: 6 // n, [1, 2, 0, 0], chunksize=4, return_exceptions=True
            )
            await compute.blocked(1)
            assert job[1].cancel()
            assert job[2].cancel()
        results: list[Any] = await job

    kinds: list[type[object]] = [type(result) for result in results]
    assert kinds == [int, TaskCancelledError, TaskCancelledError, ZeroDivisionError]
    assert compute.counts == {1: 1, 2: 1, 0: 2}
    assert (job.stats.finished, job.stats.cancelled, job.stats.failed) == (1, 2, 1)


async def test_a_cancelled_task_is_not_tried_again(
    make_compute: type[FakeCompute], clock: Clock
) -> None:
    """Whether its chunk was lost, or it waits for its next attempt."""
    compute = make_compute([WorkerLostError()])

    async with Executor(backend=compute) as executor:
        with compute.held():
            job = executor.map(abs, range(4), chunksize=4, return_exceptions=True)
            await compute.blocked(1)
            job[2].cancel()
        await job

    assert compute.counts == {0: 1, 1: 1, 3: 1}
    assert job.stats.retried == 3


@pytest.mark.parametrize("chunksize", [1, 2, 3, 10])
async def test_tasks_are_cancelled_before_their_turn(
    make_compute: type[FakeCompute], chunksize: int
) -> None:
    """They are never sent, are cancelled at once, and hold up nobody."""
    compute = make_compute(limits=ONE)

    async with Executor(backend=compute) as executor:
        with compute.held():
            first = executor.submit(abs, -100)
            job = executor.map(
                abs, range(10), chunksize=chunksize, return_exceptions=True
            )
            await compute.blocked(1)
            for index in (1, 2, 3, 6, 9):
                assert job[index].cancel()
                assert not job[index].cancel()
                assert job[index].cancelled()
            with pytest.raises(TaskCancelledError):
                await job[9]
        results: list[Any] = await job
        assert await first == 100

    assert [n for n in results if isinstance(n, int)] == [0, 4, 5, 7, 8]
    assert compute.executed == [-100, 0, 4, 5, 7, 8]
    assert (job.stats.finished, job.stats.cancelled) == (5, 5)


async def test_all_tasks_may_be_cancelled_one_by_one(
    make_compute: type[FakeCompute],
) -> None:
    """Then the job has ended."""
    compute = make_compute(["hang"] * 4)

    async with Executor(backend=compute) as executor:
        job = executor.map(abs, range(100), chunksize=1)
        await compute.blocked(4)
        assert sum(future.cancel() for future in job) == 100
        await job.wait()
        assert all(future.cancelled() for future in job)

    assert compute.invocations == 4
    assert job.stats.cancelled == 100


async def test_leaving_the_loop_ends_the_job(make_compute: type[FakeCompute]) -> None:
    """By `break`, by an exception, or by dropping the iterator."""
    compute = make_compute()

    async with Executor(backend=compute) as executor:
        jobs = [executor.map(abs, range(10_000), chunksize=1) for _ in range(4)]
        async for _ in jobs[0]:
            break
        with pytest.raises(LookupError):
            await raise_inside(jobs[1])
        async for _ in jobs[2].as_completed():
            break
        iterator = aiter(jobs[3])
        await anext(iterator)
        assert not jobs[3].done()
        del iterator
        assert all(job.done() for job in jobs)
        await wait_all_tasks_blocked()
        assert compute.in_flight == 0
        whole = executor.map(abs, range(10))
        assert [result async for result in whole] == list(range(10))

    assert compute.invocations < 10_000


async def raise_inside(job: Job[int]) -> None:
    async for _ in job:
        raise LookupError


@pytest.mark.parametrize(
    "answer", ["ok", "lose", b"garbage", LookupError("a bug"), WorkerLostError()]
)
async def test_whatever_arrives_in_the_turn_of_the_cancellation_is_ignored(
    make_compute: type[FakeCompute], answer: Any
) -> None:
    """The job ends once: no outcome changes, and nobody hangs."""
    compute = make_compute([answer] * 4)

    async with Executor(backend=compute, retries=0) as executor:
        with compute.held():
            job = executor.map(abs, range(8), chunksize=2, return_exceptions=True)
            await compute.blocked(4)
            compute.on_answer = job.cancel
        with anyio.fail_after(5):
            await job.wait()
        await wait_all_tasks_blocked()
        assert job.done()
        assert all(future.cancelled() for future in job)
        assert await executor.submit(abs, -1) == 1

    stats = job.stats
    assert (stats.finished, stats.failed, stats.cancelled) == (0, 0, 8)


async def test_a_job_that_is_cancelled_leaves_nothing_in_storage(
    make_compute: type[FakeCompute], store: CountingStorage
) -> None:
    """Also what was on its way there when it was cancelled."""
    limits = Limits(concurrency=2, request_bytes=4096)
    compute = make_compute(["ok", "hang", "hang"], limits=limits, threads=True)

    async with Executor(backend=compute, storage=store) as executor:
        job = executor.map(str, ["x" * 10_000] * 10, chunksize=1)
        while compute.invocations < 3:
            await checkpoint()
        job.cancel()
        compute.script.clear()
        assert await executor.submit(abs, -1) == 1

    assert await store.keys() == []
