"""A hundred thousand tasks cost a bounded number of event-loop tasks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio
import pytest
from anyio.lowlevel import checkpoint

from wren import Executor
from wren.protocols import Limits

if TYPE_CHECKING:
    from tests.core.conftest import FakeCompute

pytestmark = pytest.mark.anyio

ITEMS = 100_000
TASKS = 4 + 8  # what Limits allow, and what the test itself and anyio have


def running() -> int:
    return len(asyncio.all_tasks())


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("sized", [True, False])
async def test_a_wide_job_has_few_tasks(
    make_compute: type[FakeCompute],
    record_property: Callable[[str, object], None],
    sized: bool,
) -> None:
    """As many as are in flight, however many items there are."""
    compute = make_compute(forgets=True)
    most = 0
    longest = 0.0

    async def probe() -> None:
        nonlocal most, longest
        last = time.perf_counter()
        while True:
            most = max(most, running())
            await checkpoint()
            now = time.perf_counter()
            longest = max(longest, now - last)
            last = now

    async with (
        anyio.create_task_group() as group,
        Executor(backend=compute) as executor,
    ):
        group.start_soon(probe)
        items = range(ITEMS) if sized else iter(range(ITEMS))
        job = executor.map(abs, items)
        if sized:
            assert await job == list(items)
        else:
            read = 0
            async for result in job:
                assert result == read
                read += 1
            assert read == ITEMS
        group.cancel_scope.cancel()

    record_property("longest_turn_seconds", longest)  # for people; not asserted
    assert most <= TASKS
    assert compute.most_in_flight <= 4
    assert compute.invocations < ITEMS / 50


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_cancelling_a_wide_job_takes_few_steps(
    make_compute: type[FakeCompute],
) -> None:
    """As many as are in flight: nothing is done for each of its items."""
    compute = make_compute(["hang"] * 4)

    async with Executor(backend=compute) as executor:
        job = executor.map(abs, range(ITEMS), chunksize=1)
        await compute.blocked(4)
        assert running() <= TASKS
        steps = count_calls(job.cancel)
        assert job.done()
        turns = 0
        while compute.in_flight:
            turns += 1
            await checkpoint()
        assert job[ITEMS - 1].cancelled()

    assert steps < 500
    assert turns < 10
    assert job.stats.dispatched == 4
    assert compute.invocations == 4


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_thousand_jobs_at_once_share_the_runners(
    make_compute: type[FakeCompute],
) -> None:
    """One task for each invocation in flight, not for each job."""
    compute = make_compute(limits=Limits(concurrency=3, lossless=True))

    async with Executor(backend=compute) as executor:
        with compute.held():
            futures = [executor.submit(abs, -n) for n in range(1000)]
            jobs = [executor.map(abs, [n]) for n in range(100)]
            await compute.blocked(3)
            assert running() <= TASKS
        assert [await future for future in futures] == list(range(1000))
        assert [await job for job in jobs] == [[n] for n in range(100)]

    assert compute.most_in_flight == 3


def count_calls(function: object) -> int:
    import sys

    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    assert callable(function)
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(before)
    return calls
