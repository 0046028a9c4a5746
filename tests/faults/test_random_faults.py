"""Whatever goes wrong, in whatever order: nothing hangs, is lost, or counts twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wren.conformance.fault_plan import FaultPlan

if TYPE_CHECKING:
    from tests.faults.conftest import Platform

# Starting an interpreter blocks the loop for a moment.
pytestmark = [pytest.mark.anyio, pytest.mark.blocking]

COUNT = 24
SEEDS = range(5)
AGAIN = {"lose", "duplicate", "duplicate-first", "truncate", "flip", "empty", "garbage"}
"""For each of these, a task may be executed once more."""

INVOKE = [*sorted(AGAIN), "throttle", "refuse", "die", "delay"]
PASSING = ["fail-before", "fail-after", "delay"]
DAMAGE = ["truncate", "flip", "empty", "replace"]
SPILLED = {
    "invoke": INVOKE,
    "put": [*PASSING, "duplicate"],
    "get": [*PASSING, *DAMAGE],
    "grant": [*PASSING, "expire"],
}


def pad(item: int) -> tuple[int, str]:
    return -item, "y" * 1000


@pytest.mark.parametrize("seed", SEEDS)
async def test_results_arrive_inside_responses(platform: Platform, seed: int) -> None:
    """Each task has one outcome, and is executed again only for what may be lost."""
    plan = FaultPlan.random(seed, rate=0.3, actions={"invoke": INVOKE}, calls=COUNT)

    async with platform.open(plan, retries=len(plan.faults)) as executor:
        job = executor.map(platform.traced(abs), range(COUNT), chunksize=1)
        results = await job

    assert results == list(range(COUNT))
    check(platform, plan, job.stats.finished, job.stats.failed, job.stats.retried)


@pytest.mark.parametrize("seed", SEEDS)
async def test_results_arrive_through_the_store(platform: Platform, seed: int) -> None:
    """So with a store that fails as well; and nothing stays in it."""
    plan = FaultPlan.random(seed, rate=0.2, actions=SPILLED, calls=COUNT - 4)
    reads = [each for each in plan.faults if each.operation == "get"]
    damages = [each for each in reads if each.action in DAMAGE]
    # What is damaged each time it is read is given up; see the test of that.
    plan = FaultPlan(*(each for each in plan.faults if each not in damages[2:]))

    async with platform.open(plan, spilled=True, retries=len(plan.faults)) as executor:
        job = executor.map(platform.traced(pad), range(COUNT), chunksize=1)
        results = await job

    assert results == [pad(item) for item in range(COUNT)]
    check(platform, plan, job.stats.finished, job.stats.failed, job.stats.retried)
    assert await platform.keys() == []


@pytest.mark.parametrize("seed", SEEDS)
async def test_chunks_come_apart_and_lose_nothing(
    platform: Platform, seed: int
) -> None:
    """Of a chunk that is lost, each task goes on alone."""
    plan = FaultPlan.random(seed, rate=0.5, actions={"invoke": INVOKE}, calls=6)

    async with platform.open(plan, retries=len(plan.faults)) as executor:
        job = executor.map(platform.traced(abs), range(COUNT), chunksize=4)
        seen = [future.index async for future in job.as_completed()]
        results = await job

    assert results == sorted(seen) == list(range(COUNT))
    assert (job.stats.finished, job.stats.failed) == (COUNT, 0)
    assert set(platform.executions) == set(range(COUNT))


def check(
    platform: Platform, plan: FaultPlan, finished: int, failed: int, retried: int
) -> None:
    counts = platform.executions
    # What could not be stored, for its grant was refused, is lost like a reply.
    again = sum(
        fired.action in AGAIN or (fired.action == "expire" and "/out/" in fired.key)
        for fired in plan.fired
    )
    assert (finished, failed) == (COUNT, 0)
    assert sorted(counts) == list(range(COUNT))
    assert COUNT <= counts.total() <= min(COUNT + again, platform.compute.executed)
    assert retried <= len(plan.fired)
    assert max(counts.values()) <= 1 + len(plan.faults)
