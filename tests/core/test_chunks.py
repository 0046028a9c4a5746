"""Chunks are as long as makes an invocation worth its cost, and no longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wren import Executor
from wren.chunks import MOST, ChunkSizer, Pace
from wren.protocols import Limits

if TYPE_CHECKING:
    from tests.core.conftest import FakeCompute


def sizer(
    *, fixed: int | None = None, workers: int = 4, seconds: float | None = None
) -> ChunkSizer:
    pace = Pace()
    if seconds is not None:
        pace.observe(1, seconds, 0)
    return ChunkSizer(fixed, workers, pace)


def test_tasks_go_alone_until_it_is_known_how_long_they_take() -> None:
    """One that takes an hour must not have company."""
    assert sizer().size(1_000_000, MOST) == 1


def test_a_given_size_is_kept() -> None:
    """Whatever is learned."""
    chunks = sizer(fixed=7)

    chunks.observe(7, 100.0, 100.0, 1 << 30)

    assert chunks.size(3, MOST) == 7


def test_slow_tasks_stay_alone() -> None:
    """Two seconds a chunk are enough to make its cost small."""
    assert sizer(seconds=60.0).size(1_000_000, MOST) == 1


def test_quick_tasks_come_in_thousands_but_not_at_once() -> None:
    """Eightfold at a time, since the first one may not be like the others."""
    chunks = sizer()
    sizes: list[int] = []
    for _ in range(8):
        size = chunks.size(10_000_000, MOST)
        sizes.append(size)
        chunks.observe(size, size * 1e-7, size * 1e-7 + 0.001, size)

    assert sizes[:5] == [1, 8, 64, 512, 4096]
    assert max(sizes) == MOST


def test_what_an_invocation_costs_decides_how_long_a_chunk_is() -> None:
    """Twenty times as long as what the driver waits in addition."""
    chunks = sizer(seconds=0.001)

    chunks.observe(1, 0.001, 0.051, 0)

    assert chunks.size(1_000_000, MOST) == pytest.approx(20 * 50, abs=1)


def test_the_end_is_shared_out() -> None:
    """No worker gets more than half of what is left for each."""
    chunks = sizer(workers=4, seconds=0.01)
    chunks.observe(1, 0.01, 0.51, 0)

    assert chunks.size(400, MOST) == 50
    assert chunks.size(8, MOST) >= 1


def test_large_values_make_small_chunks() -> None:
    """A megabyte a request, as long as the tasks are small enough."""
    chunks = sizer(seconds=1e-6)

    chunks.observe(10, 1e-5, 1e-5, 10 * 300_000)

    assert 1 <= chunks.size(1_000_000, MOST) <= 8


@given(
    left=st.one_of(st.none(), st.integers(-5, 10_000_000)),
    most=st.integers(1, MOST),
    seconds=st.floats(0, 1e6),
    elapsed=st.floats(0, 1e6),
    size=st.integers(0, 1 << 40),
    tasks=st.integers(1, MOST),
)
def test_a_chunk_has_at_least_one_task_and_at_most_what_is_allowed(
    left: int | None, most: int, seconds: float, elapsed: float, size: int, tasks: int
) -> None:
    """Whatever was measured."""
    chunks = sizer()
    chunks.observe(tasks, seconds, elapsed, size)

    for _ in range(3):
        assert 1 <= chunks.size(left, most) <= most


@pytest.mark.anyio
async def test_a_job_begins_where_the_last_one_with_its_function_ended(
    make_compute: type[FakeCompute],
) -> None:
    """What is known of a function outlives the job that learned it."""
    compute = make_compute(limits=Limits(concurrency=2, lossless=True))

    async with Executor(backend=compute) as executor:
        await executor.map(abs, range(20_000))
        first = compute.invocations
        await executor.map(abs, range(20_000))
        second = compute.invocations - first

    assert second < first < 200
