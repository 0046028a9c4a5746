"""What a job does when its platform fails it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wren.conformance.fault_plan import Fault, FaultPlan
from wren.errors import CredentialsError, DeploymentError, TaskTimeoutError, WrenError

if TYPE_CHECKING:
    from tests.faults.conftest import Platform

# Starting an interpreter blocks the loop for a moment.
pytestmark = [pytest.mark.anyio, pytest.mark.blocking]


async def test_a_burst_and_then_a_trickle_ends_and_counts_nothing(
    platform: Platform,
) -> None:
    """The first requests are fine, and then two of three are turned away."""
    late = [n for n in range(11, 41) if n % 3]
    plan = FaultPlan(*(Fault("invoke", "throttle", first=n, seconds=0) for n in late))

    async with platform.open(plan, retries=0) as executor:
        job = executor.map(platform.traced(abs), range(40), chunksize=1)
        assert await job == list(range(40))

    assert job.stats.throttled == len(late)
    assert job.stats.retried == 0
    assert platform.executions.total() == 40


async def test_a_cold_start_out_of_time_is_told_from_a_slow_task(
    platform: Platform,
) -> None:
    """A chunk that began too late is sent again, each task alone."""
    plan = FaultPlan(Fault("invoke", "delay", seconds=3600))

    async with platform.open(plan, retries=1) as executor:
        job = executor.map(platform.traced(abs), [1, 2], chunksize=2, timeout=0.2)
        assert await job == [1, 2]

    assert platform.executions == {1: 1, 2: 1}
    assert job.stats.retried == 2


async def test_a_forgotten_request_ends_its_task_and_no_other(
    platform: Platform,
) -> None:
    """It was accepted and never run; nobody has seen it run, and the clock decides."""
    plan = FaultPlan(Fault("invoke", "drop", first=2))

    async with platform.open(plan) as executor:
        job = executor.map(
            platform.traced(abs),
            range(6),
            chunksize=1,
            timeout=0.3,
            return_exceptions=True,
        )
        results = await job

    (lost,) = set(range(6)) - set(platform.executions)
    assert isinstance(results[lost], TaskTimeoutError)
    results[lost] = lost
    assert results == list(range(6))


@pytest.mark.parametrize(
    ("action", "error"), [("forbid", CredentialsError), ("missing", DeploymentError)]
)
async def test_a_platform_that_is_gone_ends_the_job_and_spares_what_is_done(
    platform: Platform, action: str, error: type[WrenError]
) -> None:
    """Credentials expire or somebody removes the function; results stay readable."""
    plan = FaultPlan(Fault("invoke", action, first=4))

    async with platform.open(plan) as executor:
        job = executor.map(platform.traced(abs), range(50), chunksize=1, concurrency=1)
        with pytest.raises(error, match="by plan"):
            await job

    assert [job[n].result() for n in range(3)] == [0, 1, 2]
    assert all(isinstance(job[n].exception(), error) for n in range(3, 50))
    assert platform.compute.sent == 4
    assert job.stats.finished == 3


@pytest.mark.parametrize("action", ["duplicate", "duplicate-first"])
async def test_a_request_that_was_delivered_twice_is_one_outcome(
    platform: Platform, action: str
) -> None:
    """Whichever answer comes, and also when both were stored."""
    plan = FaultPlan(Fault("invoke", action, times=4))

    async with platform.open(plan, retries=0) as executor:
        job = executor.map(platform.traced(abs), range(4), chunksize=1, commit_after=0)
        given = sorted([future.index async for future in job.as_completed()])
        results = await job

    assert results == given == list(range(4))
    assert platform.executions == dict.fromkeys(range(4), 2)
    assert job.stats.finished == 4
    assert await platform.keys() == []
