"""The number of invocations in flight follows what the platform takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from wren import Executor
from wren.errors import ThrottledError
from wren.protocols import Limits
from wren.window import PATIENCE, Window

if TYPE_CHECKING:
    from tests.core.conftest import Clock, FakeCompute


def test_throttling_halves_and_success_adds_one_a_round(clock: Clock) -> None:
    """As TCP does it, between one and what the platform promises."""
    window = Window(64)

    sizes: list[int] = []
    for _ in range(8):
        window.throttled(clock.now, None)
        clock.now += 1
        sizes.append(window.size)
    assert sizes == [32, 16, 8, 4, 2, 1, 1, 1]

    for expected in range(1, 64):
        assert window.size == expected
        for _ in range(expected + 1):
            window.succeeded()
    for _ in range(1000):
        window.succeeded()
    assert window.size == 64


def test_requests_of_one_wave_halve_it_once(clock: Clock) -> None:
    """They were on their way when the first of them came back."""
    window = Window(64)
    sent = clock.now
    clock.now += 1

    for _ in range(64):
        window.throttled(sent, None)

    assert window.size == 32


def test_pauses_are_drawn_below_a_bound_that_doubles(clock: Clock) -> None:
    """Full jitter up to twenty seconds; what the platform asks for comes on top."""
    window = Window(4)
    longest: list[float] = []
    for _ in range(12):
        sent = clock.now
        clock.now += 1
        pauses = [window.throttled(sent, None) for _ in range(200)]
        longest.append(max(pauses))
        assert min(pauses) >= 0

    for bound, pause in zip([0.2, 0.4, 0.8, 1.6, 3.2], longest, strict=False):
        assert bound / 2 < pause <= bound
    assert 10 < longest[-1] <= 20
    assert window.throttled(clock.now, 7.0) >= 7.0

    window.succeeded()
    clock.now += 1
    assert window.throttled(clock.now, None) <= 0.2


def test_throttling_for_ever_overflows_nothing(clock: Clock) -> None:
    """The bound is reached long before the numbers end."""
    window = Window(4)

    for _ in range(5000):
        clock.now += 1
        assert window.throttled(clock.now, None) <= 20


@pytest.mark.anyio
async def test_throttling_is_never_an_attempt(
    make_compute: type[FakeCompute], clock: Clock
) -> None:
    """However often, and without any retries."""
    compute = make_compute([ThrottledError(retry_after=1)] * 30)

    async with Executor(backend=compute, retries=0) as executor:
        job = executor.map(abs, range(8), chunksize=1)
        assert await job == list(range(8))

    assert compute.counts == dict.fromkeys(range(8), 1)
    assert job.stats.throttled == 30
    assert job.stats.retried == 0
    assert min(clock.slept) >= 1


@pytest.mark.anyio
async def test_what_is_in_flight_comes_down_to_what_the_platform_takes(
    make_compute: type[FakeCompute], clock: Clock
) -> None:
    """A platform that promises sixty-four and takes four is not stormed for long."""
    limits = Limits(concurrency=64, lossless=True)
    compute = make_compute(limits=limits, capacity=4, seed=1)

    with anyio.fail_after(20):
        async with Executor(backend=compute) as executor:
            job = executor.map(abs, range(500), chunksize=1)
            assert await job == list(range(500))
            assert await executor.submit(abs, -1) == 1

    assert max(compute.counts.values()) == 1
    assert compute.most_in_flight <= 64
    assert job.stats.throttled < 110


@pytest.mark.anyio
async def test_ten_minutes_of_nothing_but_throttling_are_enough(
    make_compute: type[FakeCompute], clock: Clock
) -> None:
    """Then a task ends with `ThrottledError`; not before, and not for the idle time."""
    limits = Limits(concurrency=1, lossless=True)
    compute = make_compute(limits=limits)

    async with Executor(backend=compute) as executor:
        clock.now += 10 * PATIENCE  # an application that had nothing to do
        compute.script.append(ThrottledError("busy"))
        assert await executor.submit(abs, -1) == 1
        clock.now += 10 * PATIENCE
        began = clock.now
        compute.script.extend([ThrottledError("busy")] * 10_000)
        with pytest.raises(ThrottledError, match="busy"):
            await executor.map(abs, [-1])
        assert PATIENCE < clock.now - began < PATIENCE + 21
        compute.script.clear()
        assert await executor.submit(abs, -1) == 1


@pytest.mark.anyio
async def test_any_progress_renews_the_patience(
    make_compute: type[FakeCompute], clock: Clock
) -> None:
    """A trickle is progress; only the caller's own time-out bounds it."""
    limits = Limits(concurrency=1, lossless=True)
    compute = make_compute(limits=limits)
    for _ in range(20):
        compute.script.extend([ThrottledError()] * 30)
        compute.script.append("ok")
    began = clock.now

    async with Executor(backend=compute) as executor:
        assert await executor.map(abs, range(20), chunksize=1) == list(range(20))

    assert clock.now - began > PATIENCE
