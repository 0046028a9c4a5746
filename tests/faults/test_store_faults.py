"""What a job does when its store fails it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from anyio.lowlevel import checkpoint

from wren.conformance.fault_plan import Fault, FaultPlan
from wren.errors import (
    AccessDeniedError,
    IntegrityError,
    StorageError,
    TransientError,
    WorkerLostError,
)

if TYPE_CHECKING:
    from tests.faults.conftest import Platform

# Starting an interpreter blocks the loop for a moment.
pytestmark = [pytest.mark.anyio, pytest.mark.blocking]

DAMAGE = ["truncate", "flip", "empty", "replace"]
LARGE = 1 << 20  # bytes of an array that travels apart from what refers to it


def pad(item: int) -> tuple[int, str]:
    return item, "y" * 1000


# --- it is busy -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "key", "action"),
    [
        ("put", "*/fn/*", "fail-before"),
        ("put", "*/in/*", "fail-after"),
        ("put", "*/in/*", "stall"),
        ("grant", "*/in/*", "fail-before"),
        ("grant", "*/out/*", "fail-after"),
        ("get", "*/out/*", "fail-before"),
        ("get", "*/out/*", "stall"),
    ],
)
async def test_a_request_that_fails_is_made_again_and_is_no_attempt(
    platform: Platform, operation: str, key: str, action: str
) -> None:
    """A 500, a 503, a lost reply, a silence: two in a row cost a task nothing."""
    plan = FaultPlan(Fault(operation, action, key, times=2, seconds=0))

    async with platform.open(plan, spilled=True, retries=0) as executor:
        job = executor.map(platform.traced(pad), [7], chunksize=1)
        assert await job == [pad(7)]

    assert platform.executions == {7: 1}
    assert job.stats.invocations == 1
    assert await platform.keys() == []


async def test_a_store_that_stays_busy_uses_up_the_attempts(platform: Platform) -> None:
    """Each task's own; and nothing was executed, as nothing could be sent."""
    plan = FaultPlan(Fault("put", "fail-before", "*/in/*", times=9))

    async with platform.open(plan, spilled=True, retries=2) as executor:
        with pytest.raises(TransientError, match="refused by plan"):
            await executor.map(platform.traced(pad), [7], chunksize=1)
        assert await executor.submit(platform.traced(pad), 8) == pad(8)

    assert platform.executions == {8: 1}


async def test_a_response_that_cannot_be_read_costs_an_attempt(
    platform: Platform,
) -> None:
    """The task is executed again, and finds that its outcome is there already."""
    plan = FaultPlan(Fault("get", "fail-before", "*/out/*", times=3))

    async with platform.open(plan, spilled=True, retries=1) as executor:
        job = executor.map(platform.traced(pad), [7], chunksize=1)
        assert await job == [pad(7)]

    assert platform.executions == {7: 2}
    assert (job.stats.finished, job.stats.retried) == (1, 1)


async def test_a_store_that_hangs_holds_up_nobody_who_leaves(
    platform: Platform,
) -> None:
    """A job under way in it is cancelled at once, with all that it has begun."""
    plan = FaultPlan(Fault("put", "stall", "*/in/*", seconds=math.inf))

    async with platform.open(plan, spilled=True) as executor:
        job = executor.map(pad, range(5), chunksize=1)
        while not plan.fired:
            await checkpoint()
        job.cancel()
        await job.wait()
        assert await executor.submit(pad, 8) == pad(8)

    assert await platform.keys() == []


# --- what it returns is damaged -------------------------------------------------------


@pytest.mark.parametrize("action", DAMAGE)
async def test_a_response_that_was_bent_on_its_way_is_read_again(
    platform: Platform, action: str
) -> None:
    """Twice; it is in order in the store."""
    plan = FaultPlan(Fault("get", action, "*/out/*", times=2))

    async with platform.open(plan, spilled=True, retries=0) as executor:
        assert await executor.submit(platform.traced(pad), 7) == pad(7)

    assert platform.executions == {7: 1}


@pytest.mark.parametrize("action", DAMAGE)
async def test_a_response_that_stays_damaged_is_an_integrity_error(
    platform: Platform, action: str
) -> None:
    """After three reads; it is not unpickled, and nothing is executed again."""
    plan = FaultPlan(Fault("get", action, "*/out/*", times=3))

    async with platform.open(plan, spilled=True, retries=2) as executor:
        with pytest.raises(IntegrityError, match="not written by this job"):
            await executor.submit(platform.traced(pad), 7)

    assert platform.executions == {7: 1}


@pytest.mark.parametrize("action", ["flip", "replace"])
@pytest.mark.parametrize("kind", ["fn", "in", "blob"])
async def test_what_was_damaged_in_the_store_is_never_unpickled(
    platform: Platform, kind: str, action: str
) -> None:
    """Function, arguments or a shared array: the worker refuses, and nothing runs."""
    plan = FaultPlan(Fault("put", action, f"*/{kind}/*"))
    traced, shared = platform.traced(abs), np.zeros(LARGE, dtype=np.uint8)

    def task(item: str) -> int:
        return int(shared.sum()) + int(traced(len(item)))

    async with platform.open(plan, spilled=True, retries=2) as executor:
        with pytest.raises(IntegrityError, match="read 3 times"):
            await executor.submit(task, "x" * 1000)
        assert platform.executions == {}
        # The next job has nothing to do with that.
        assert await executor.submit(task, "x" * 1000) == 1000


# --- it shows what was, or not yet what is --------------------------------------------


async def test_a_response_that_is_late_is_looked_for_again(platform: Platform) -> None:
    """The worker has said that it is there."""
    plan = FaultPlan(Fault("get", "missing", "*/out/*", times=2))

    async with platform.open(plan, spilled=True, retries=0) as executor:
        assert await executor.submit(platform.traced(pad), 7) == pad(7)

    assert platform.executions == {7: 1}


async def test_a_response_that_never_comes_is_lost(platform: Platform) -> None:
    """Not waited for without end; the error says what is missing."""
    plan = FaultPlan(Fault("get", "missing", "*/out/*", times=3))

    async with platform.open(plan, spilled=True, retries=0) as executor:
        with pytest.raises(WorkerLostError, match="is not there"):
            await executor.submit(platform.traced(pad), 7)


async def test_a_listing_that_is_late_is_only_a_hint(platform: Platform) -> None:
    """Where connections are dropped, the object itself decides, if all else is old."""
    plan = FaultPlan(Fault("list", "stale", "*/out/", times=2))

    def slow(item: int) -> int:
        import time

        time.sleep(0.6)
        return item

    async with platform.open(plan, direct_seconds=0.3, retries=0) as executor:
        job = executor.map(platform.traced(slow), [1, 2], chunksize=1, timeout=30)
        assert await job == [1, 2]

    assert platform.executions == {1: 1, 2: 1}


async def test_denied_is_not_absent(platform: Platform) -> None:
    """A store that hides what is absent must not make wren do the work again."""
    plan = FaultPlan(Fault("invoke", "lose"), Fault("get", "forbid", "*/out/*"))

    async with platform.open(plan, retries=2) as executor:
        with pytest.raises(AccessDeniedError, match="forbidden by plan"):
            await executor.map(platform.traced(abs), [1], commit_after=0)

    assert platform.executions == {1: 1}


@pytest.mark.parametrize("operation", ["put", "grant"])
async def test_a_permission_that_is_withdrawn_ends_the_job(
    platform: Platform, operation: str
) -> None:
    """With the store's words; and what is done stays readable."""
    plan = FaultPlan(Fault(operation, "forbid", "*/in/*", first=3))

    async with platform.open(plan, spilled=True) as executor:
        job = executor.map(pad, range(20), chunksize=1, concurrency=1)
        with pytest.raises(AccessDeniedError, match="forbidden by plan"):
            await job

    assert [job[n].result() for n in range(2)] == [pad(0), pad(1)]
    assert platform.compute.sent == 2


# --- grants that are refused ----------------------------------------------------------


@pytest.mark.parametrize("kind", ["fn", "in", "blob"])
async def test_a_grant_that_has_expired_is_replaced(
    platform: Platform, kind: str
) -> None:
    """It is no attempt, and nothing was executed."""
    plan = FaultPlan(Fault("grant", "expire", f"*/{kind}/*", times=2))
    traced, shared = platform.traced(abs), np.zeros(LARGE, dtype=np.uint8)

    def task(item: str) -> int:
        return int(shared.sum()) + int(traced(len(item)))

    async with platform.open(plan, spilled=True, retries=0) as executor:
        assert await executor.submit(task, "x" * 1000) == 1000

    assert platform.executions == {1000: 1}
    assert await platform.keys() == []


async def test_work_is_done_again_that_an_expired_grant_could_not_store(
    platform: Platform,
) -> None:
    """It is lost, as its response is too large for anything else."""
    plan = FaultPlan(Fault("grant", "expire", "*/out/*"))

    async with platform.open(plan, spilled=True, retries=1) as executor:
        assert await executor.submit(platform.traced(pad), 7) == pad(7)

    assert platform.executions == {7: 2}


async def test_a_grant_that_is_never_accepted_says_what_to_look_at(
    platform: Platform,
) -> None:
    """A clock that is wrong, or credentials that have expired, here."""
    plan = FaultPlan(Fault("grant", "expire", "*/in/*", times=5))

    async with platform.open(plan, spilled=True, retries=2) as executor:
        with pytest.raises(StorageError, match="this machine's clock"):
            await executor.submit(platform.traced(pad), 7)

    assert platform.executions == {}
