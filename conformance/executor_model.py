"""Any map under any faults, compared with the built-in `map`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wren.conformance.fault_plan import Fault, FaultPlan
from wren.conformance.faulty_compute import FaultyCompute
from wren.conformance.spec import Level, check
from wren.executor import Executor

_PATIENCE: Final = 60.0
_FREE: Final = ("throttle", "delay", "duplicate")
_COUNTED: Final = ("lose", "die")
_ACTIONS: Final = st.sampled_from([*_FREE, *_COUNTED, None])

Open = Callable[..., AbstractAsyncContextManager[tuple[Executor, FaultyCompute]]]


@dataclass(frozen=True, slots=True)
class Case:
    """One map."""

    items: list[int]
    failing: frozenset[int]
    """Items whose task raises."""

    chunksize: int | None
    concurrency: int
    actions: list[str | None]
    """What happens to the first invocations."""

    streamed: bool

    @property
    def plan(self) -> FaultPlan:
        """The same, as a plan."""
        return FaultPlan(
            *(
                Fault("invoke", action, first=number, seconds=0.001)
                for number, action in enumerate(self.actions, start=1)
                if action is not None
            )
        )

    @property
    def retries(self) -> int:
        """As many as it takes if all faults hit one task."""
        return sum(action in _COUNTED for action in self.actions)


cases: Final = st.builds(
    Case,
    items=st.lists(st.integers(-9, 9), min_size=1, max_size=25),
    failing=st.frozensets(st.integers(-9, 9), max_size=3),
    chunksize=st.one_of(st.none(), st.integers(1, 7)),
    concurrency=st.integers(1, 4),
    actions=st.lists(_ACTIONS, max_size=6),
    streamed=st.booleans(),
)


def _task(failing: frozenset[int]) -> Callable[[int], tuple[int, int]]:
    def task(n: int) -> tuple[int, int]:
        if n in failing:
            raise LookupError(n)
        return n, n * n

    return task


@pytest.mark.anyio
class ExecutorModelSuite:
    """Subclass it with a fixture ``open_faulty``.

    That returns a function that takes a plan and an executor's options, and returns an
    async context manager of an executor, entered, and of the `FaultyCompute` below it.
    """

    @check("E01", Level.FAULT)
    @settings(
        max_examples=30,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[
            HealthCheck.differing_executors,
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
        ],
    )
    @given(case=cases)
    async def test_a_map_under_faults_equals_the_builtin_map(
        self, open_faulty: Open, case: Case
    ) -> None:
        """One outcome for each input, in order, whatever happens on the way."""
        outcomes: list[object] = []
        options = {"retries": case.retries, "concurrency": case.concurrency}

        with anyio.fail_after(_PATIENCE):
            async with open_faulty(case.plan, **options) as (executor, compute):
                job = executor.map(
                    _task(case.failing),
                    case.items,
                    chunksize=case.chunksize,
                    return_exceptions=True,
                )
                if case.streamed:
                    outcomes = [each async for each in job]
                else:
                    outcomes = [*await job]

        assert [
            repr(LookupError(n)) if n in case.failing else repr((n, n * n))
            for n in case.items
        ] == [repr(each) for each in outcomes]
        assert job.stats.finished + job.stats.failed == len(case.items)
        assert job.stats.retried <= case.retries * len(case.items)
        lost = sum(action in {"throttle", "die"} for action in case.actions)
        assert compute.sent - lost <= compute.executed <= 2 * compute.sent
