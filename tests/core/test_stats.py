"""Counts and timings: every task is counted once, and can be looked up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wren import Executor
from wren.errors import WorkerLostError
from wren.protocols import Limits
from wren.stats import History

if TYPE_CHECKING:
    from tests.core.conftest import Clock, FakeCompute


def row(start: int, count: int, attempts: int = 1) -> tuple[Any, ...]:
    return start, count, attempts, 1.0, 2.0, 3.0, 0.5, False, 10, 20, 30


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.randoms())
def test_a_task_is_found_among_the_chunks(sizes: list[int], order: Any) -> None:
    """In whatever order they came, and one that has not come is not there."""
    rows: list[tuple[Any, ...]] = []
    start = 0
    for size in sizes:
        rows.append(row(start, size))
        start += size
    order.shuffle(rows)
    missing = rows.pop()
    history = History()
    for one in rows:
        history.add("w", *one)

    for begin, count, *_ in rows:
        for index in range(begin, begin + count):
            found = history.find(index)
            assert found is not None
            assert found.index == index
            assert found.shared_with == count - 1
    assert history.find(missing[0]) is None
    assert history.find(start) is None
    assert history.find(-1) is None


def test_rows_that_come_after_a_look_up_are_found() -> None:
    """The order is made again when there is more."""
    history = History()
    history.add("a", *row(5, 5))
    assert history.find(0) is None

    assert not history.add("a", *row(0, 5, attempts=2))
    assert history.add("b", *row(10, 1))

    found = history.find(4)
    assert found is not None
    assert (found.attempts, found.worker) == (2, "a")
    assert history.find(10) == history.find(10)


def test_of_a_stream_only_the_recent_rows_are_kept() -> None:
    """An endless job's history ends somewhere."""
    history = History()
    for n in range(50_000):
        history.add("w", *row(n, 1))
        history.forget_old()

    assert history.find(0) is None
    assert history.find(49_999) is not None
    assert history.find(45_000) is not None


@pytest.mark.anyio
async def test_a_job_counts_what_it_did(
    make_compute: type[FakeCompute], clock: Clock
) -> None:
    """Tasks, requests, attempts, workers, bytes and time."""
    compute = make_compute(workers=2)
    began = time.time()

    async with Executor(backend=compute) as executor:
        with compute.held():
            job = executor.map(abs, range(10), chunksize=5)
            await compute.blocked(2)
            under_way = job.stats
        await job

    stats = job.stats
    assert (under_way.total, under_way.dispatched, under_way.finished) == (10, 10, 0)
    assert under_way.ended is None
    assert (stats.finished, stats.failed, stats.cancelled) == (10, 0, 0)
    assert stats.invocations == 2
    assert (stats.workers, stats.cold_starts) == (2, 2)
    assert stats.bytes_in > 0
    assert stats.bytes_out > 0
    assert stats.peak_memory > 1 << 20
    assert stats.busy_seconds > 0
    assert stats.ended is not None
    assert began <= stats.started <= stats.ended <= time.time()


@pytest.mark.anyio
async def test_a_task_tells_its_story(
    make_compute: type[FakeCompute], clock: Clock
) -> None:
    """When it was queued, started and finished, where, and in which attempt."""
    compute = make_compute([WorkerLostError()])

    async with Executor(backend=compute) as executor:
        job = executor.map(abs, range(3), chunksize=3)
        await job
        single = executor.submit(abs, -1)
        await single

    for index, future in enumerate(job):
        stats = future.stats
        assert stats is not None
        assert (stats.index, stats.attempts, stats.shared_with) == (index, 2, 0)
        assert stats.queued <= stats.started <= stats.finished
        assert stats.worker == "w0"
        assert stats.bytes_in > 0
    assert job.stats.retried == 3
    assert single.stats is not None
    assert not single.stats.cold


@pytest.mark.anyio
async def test_every_task_is_counted_in_exactly_one_way(
    make_compute: type[FakeCompute], clock: Clock
) -> None:
    """Finished, failed or cancelled, when all of that happens in one job."""
    limits = Limits(concurrency=2, lossless=True)
    compute = make_compute(limits=limits, poison=lambda n: n == 17)

    async with Executor(backend=compute) as executor:
        with compute.held():
            job = executor.map(
                lambda n: 6 // (n % 5), range(40), chunksize=4, return_exceptions=True
            )
            await compute.blocked(2)
            for index in (0, 1, 5, 20, 33):
                job[index].cancel()
        await job

    stats = job.stats
    assert stats.finished + stats.failed + stats.cancelled == stats.total == 40
    assert stats.cancelled == 5
    assert stats.failed == 8 - 3 + 1 + 0
