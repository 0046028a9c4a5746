"""`ExecutorFaultSuite`: what a map does when its platform or its store fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from wren.conformance import rewriting as rewriting  # before the checks; see there
from wren.conformance.executor_bench import JOBS, Bench
from wren.conformance.executor_cleaning import CleaningChecks
from wren.conformance.executor_commits import CommitChecks
from wren.conformance.executor_values import PATIENCE
from wren.conformance.faults import Fault, FaultPlan
from wren.conformance.spec import Level, check, not_offered
from wren.errors import (
    ComputeError,
    DeploymentError,
    SerializationError,
    TaskTimeoutError,
    WorkerLostError,
)
from wren.protocols import Compute, Storage

_HOURS: float = 8 * 3600.0


def _ends_its_process(poison: int) -> Callable[[int], int]:
    def task(n: int) -> int:
        import os
        import signal

        if n == poison:
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    return task


class FaultChecks:
    """However often something fails, each task has one outcome, and in time."""

    inline = True
    """Small data fits into a request."""

    @check("E16", Level.FAULT)
    @pytest.mark.parametrize(
        ("action", "times", "retries", "sent", "executed", "error"),
        [
            # Not executed, and so not counted.
            ("throttle", 2, 0, 3, 1, None),
            ("refuse", 4, 0, 5, 1, None),
            ("refuse", 5, 2, 5, 0, ComputeError),
            # Cannot work at all: nothing more is tried.
            ("missing", 1, 2, 1, 0, DeploymentError),
            # May have been executed: counted.
            ("die", 2, 2, 3, 1, None),
            ("die", 3, 2, 3, 0, WorkerLostError),
            ("die", 1, 0, 1, 0, WorkerLostError),
            ("lose", 1, 1, 2, 2, None),
            ("lose", 3, 2, 3, 3, WorkerLostError),
            ("lose", 1, 0, 1, 1, WorkerLostError),
            # The answer is none.
            ("truncate", 1, 1, 2, 2, None),
            ("empty", 2, 1, 2, 2, WorkerLostError),
        ],
    )
    async def test_a_fault_is_dealt_with_by_its_class(
        self,
        bench: Bench,
        action: str,
        times: int,
        retries: int,
        sent: int,
        executed: int,
        error: type[Exception] | None,
    ) -> None:
        """What may have run runs again as often as is allowed, exactly."""
        plan = FaultPlan(Fault("invoke", action, times=times))

        with anyio.fail_after(PATIENCE):
            async with bench.open(plan, retries=retries) as executor:
                job = executor.map(abs, [-7])
                await job.wait()
                outcome = job[0].exception() or job[0].result()

        assert type(outcome) is error if error else outcome == 7
        assert (bench.sent, bench.executed) == (sent, executed)

    @check("E16", Level.FAULT)
    @pytest.mark.parametrize(
        ("name", "options", "executed", "error"),
        [
            ("raises", {}, 1, ZeroDivisionError),
            ("raises", {"retry_on": (ArithmeticError,)}, 3, ZeroDivisionError),
            ("takes too long", {"timeout": 0.3}, 1, TaskTimeoutError),
            ("cannot answer", {}, 1, SerializationError),
            ("exits", {}, 3, WorkerLostError),
        ],
    )
    async def test_a_failure_is_dealt_with_by_its_class(
        self,
        bench: Bench,
        name: str,
        options: dict[str, Any],
        executed: int,
        error: type[Exception],
    ) -> None:
        """What a task does itself is final, unless one asks for more."""

        def fail(how: str) -> object:
            import os
            import threading
            import time

            match how:
                case "raises":
                    return 1 // 0
                case "takes too long":
                    time.sleep(600)
                case "cannot answer":
                    return threading.Lock()
                case _:
                    os._exit(3)
            return None

        with anyio.fail_after(PATIENCE):
            async with bench.open() as executor:
                job = executor.map(fail, [name], **options)
                await job.wait()

        assert type(job[0].exception()) is error
        assert bench.executed == executed

    @check("E16", Level.FAULT)
    @pytest.mark.parametrize("kind", ["fn", "in"])
    async def test_a_grant_that_has_expired_is_replaced(
        self, bench: Bench, kind: str
    ) -> None:
        """It ends with the credentials that made it; no task fails for that."""
        padding = "x" * 40_000
        plan = FaultPlan(Fault("grant", "expire", key=f"{JOBS}*/{kind}/*"))

        with anyio.fail_after(PATIENCE):
            async with bench.open(plan, request_bytes=300, retries=0) as executor:
                job = executor.map(lambda text: len(text + padding), ["x" * 20_000])
                assert await job == [60_000]

    @check("E17", Level.FAULT)
    async def test_throttling_is_never_an_attempt(self, bench: Bench) -> None:
        """Without any retries a task waits until the platform has room."""
        plan = FaultPlan(Fault("invoke", "throttle", times=4))

        with anyio.fail_after(PATIENCE):
            async with bench.open(plan, retries=0) as executor:
                job = executor.map(abs, [-1, -2], chunksize=1)
                assert await job == [1, 2]

        assert bench.executed == 2
        assert (job.stats.throttled, job.stats.retried) == (4, 0)

    @check("E19", Level.FAULT)
    async def test_poison_stops_after_three_executions(self, bench: Bench) -> None:
        """A task that kills its worker must not kill workers for ever."""
        with anyio.fail_after(PATIENCE):
            async with bench.open(retries=2) as executor:
                with pytest.raises(WorkerLostError):
                    await executor.submit(_ends_its_process(1), 1)
                assert await executor.submit(abs, -1) == 1

        assert bench.executed == 3 + 1

    @check("E20", Level.FAULT)
    async def test_a_duplicate_is_no_second_outcome(self, bench: Bench) -> None:
        """Each task is executed twice, and is observed once."""
        plan = FaultPlan(Fault("invoke", "duplicate", times=5))

        with anyio.fail_after(PATIENCE):
            async with bench.open(plan, retries=0) as executor:
                job = executor.map(abs, range(5), chunksize=1)
                given = [future.index async for future in job.as_completed()]
                results = await job

        assert sorted(given) == results == list(range(5))
        assert bench.executed == 10
        assert (job.stats.finished, job.stats.failed) == (5, 0)

    @check("E20", Level.FAULT)
    async def test_a_late_outcome_changes_nothing(self, bench: Bench) -> None:
        """A task that was given up is given up, although its answer comes."""
        plan = FaultPlan(Fault("invoke", "delay", seconds=0.3))

        with anyio.fail_after(PATIENCE):
            async with bench.open(plan) as executor:
                job = executor.map(abs, [-1, -2], chunksize=2)
                while not bench.sent:
                    await checkpoint()
                assert job[0].cancel()
                await job.wait()

        assert job[0].cancelled()
        assert job[1].result() == 2
        assert bench.executed == 1
        assert (job.stats.finished, job.stats.cancelled) == (1, 1)

    @check("E23", Level.FAULT)
    async def test_a_task_that_never_starts_ends(self, bench: Bench) -> None:
        """The platform took it and forgot it: the driver's clock decides."""
        plan = FaultPlan(Fault("invoke", "drop"))

        with anyio.fail_after(PATIENCE):
            async with bench.open(plan, retries=0) as executor:
                job = executor.map(abs, [-1], timeout=0.2)
                with pytest.raises(TaskTimeoutError):
                    await job

        assert bench.executed == 0

    @check("E35", Level.FAULT)
    @pytest.mark.parametrize("hours", [-_HOURS, _HOURS])
    async def test_a_wrong_clock_ends_nothing(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, hours: float
    ) -> None:
        """It jumps while tasks run: deadlines are of another clock."""
        if not self.inline:
            not_offered("small data inside a request")
        plan = FaultPlan(Fault("invoke", "delay", seconds=0.2, times=2))
        real = time.time

        with anyio.fail_after(PATIENCE):
            async with bench.open(plan, retries=0) as executor:
                job = executor.map(abs, [-1, -2], chunksize=1, timeout=60)
                while bench.sent < 1:
                    await checkpoint()
                monkeypatch.setattr(time, "time", lambda: real() + hours)
                assert await job == [1, 2]
                with pytest.raises(TaskTimeoutError):
                    await executor.options(timeout=0.3).submit(_sleeping(600))

        assert bench.executed == 3

    @check("E40", Level.FAULT)
    async def test_poison_in_a_chunk_fails_alone(self, bench: Bench) -> None:
        """With what killed it; all that shared its request have their results."""
        with anyio.fail_after(PATIENCE):
            async with bench.open(retries=2) as executor:
                job = executor.map(
                    _ends_its_process(3), range(6), chunksize=6, return_exceptions=True
                )
                results: list[Any] = await job

        error = results.pop(3)
        assert results == [0, 1, 2, 4, 5]
        assert isinstance(error, WorkerLostError)
        assert error.exit_code in {-9, None}  # not every platform tells
        assert job.stats.retried == 6 + 1
        assert "task 3" in "\n".join(error.__notes__)


def _sleeping(seconds: float) -> Callable[[], None]:
    def sleep() -> None:
        import time

        time.sleep(seconds)

    return sleep


@pytest.mark.anyio
class ExecutorFaultSuite(FaultChecks, CommitChecks, CleaningChecks):
    """Subclass it with fixtures ``compute`` and ``store``.

    They are those of `ComputeSuite` and `StorageSuite`: a compute that workers answer
    for, and an empty store whose grants these workers can use. They stay open, and may
    be shared by tests as far as the store is empty each time.
    """

    @pytest.fixture
    def bench(self, compute: Compute, store: Storage) -> Bench:
        """Return what opens executors on them."""
        return Bench(compute, store)
