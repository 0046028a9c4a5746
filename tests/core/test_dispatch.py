"""Dispatch brings every task to exactly one outcome, whatever the platform does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from wren import Executor
from wren.errors import (
    ComputeError,
    CredentialsError,
    DeploymentError,
    IntegrityError,
    PayloadTooLargeError,
    SerializationError,
    TaskTimeoutError,
    ThrottledError,
    TransientError,
    VersionMismatchError,
    WorkerLostError,
    WrenError,
)
from wren.protocols import Limits

if TYPE_CHECKING:
    from tests.core.conftest import Action, Clock, FakeCompute

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("clock")]

Refusal = Callable[..., bytes]


LOST = WorkerLostError("gone", exit_code=-11)
TIMEOUT = TaskTimeoutError("too long")


@pytest.mark.parametrize(
    ("fault", "times", "retries", "invocations", "executions"),
    [
        # Throttled: not executed, never counted, however often.
        (ThrottledError(), 40, 0, 41, 1),
        # Not sent: not executed, not counted, 5 tries.
        (ComputeError("refused"), 4, 0, 5, 1),
        # Lost: counted.
        (WorkerLostError(), 2, 2, 3, 1),
        (WorkerLostError(), 1, 1, 2, 1),
        # The reply is lost after the task has run: it runs again.
        ("lose", 2, 2, 3, 3),
        # Delivered twice: two executions, one outcome.
        ("duplicate", 1, 0, 1, 2),
        # Storage between driver and worker.
        (TransientError(), 2, 2, 3, 1),
        # Garbage in place of an answer.
        (b"<html>502 Bad Gateway</html>", 2, 2, 3, 1),
    ],
)
async def test_a_fault_that_passes_leaves_the_result(
    make_compute: type[FakeCompute],
    fault: Action,
    times: int,
    retries: int,
    invocations: int,
    executions: int,
) -> None:
    """Within its attempts a task survives every fault of the infrastructure."""
    compute = make_compute([fault] * times)

    async with Executor(backend=compute, retries=retries) as executor:
        job = executor.map(abs, [-7])
        assert await job == [7]

    assert compute.invocations == job.stats.invocations == invocations
    assert compute.counts == {-7: executions}
    assert (job.stats.finished, job.stats.failed) == (1, 0)


@pytest.mark.parametrize(
    ("fault", "retries", "invocations", "kind"),
    [
        (ComputeError("refused"), 2, 5, ComputeError),
        (WorkerLostError(), 2, 3, WorkerLostError),
        (WorkerLostError(), 0, 1, WorkerLostError),
        ("lose", 2, 3, WorkerLostError),
        ("lose", 0, 1, WorkerLostError),
        (b"", 1, 2, WorkerLostError),
        (TransientError(), 2, 3, TransientError),
        (TaskTimeoutError(), 2, 1, TaskTimeoutError),
        (CredentialsError("denied"), 2, 1, CredentialsError),
        (DeploymentError("not there"), 2, 1, DeploymentError),
        (PayloadTooLargeError(), 2, 1, PayloadTooLargeError),
        (ZeroDivisionError("a bug"), 2, 1, ComputeError),
    ],
)
async def test_a_fault_that_stays_ends_the_task_with_its_class(
    make_compute: type[FakeCompute],
    fault: Action,
    retries: int,
    invocations: int,
    kind: type[Exception],
) -> None:
    """The number of attempts is exact, and the error says whether it may have run."""
    compute = make_compute([fault] * 20)

    async with Executor(backend=compute, retries=retries) as executor:
        job = executor.map(abs, [-7], return_exceptions=True)
        error: object
        try:
            (error,) = await job
        except WrenError as exc:  # the whole job has failed
            error = exc
        await job.wait()

    assert type(error) is kind
    assert compute.invocations == invocations
    assert (job.stats.finished, job.stats.failed) == (0, 1)
    assert job.done()


@pytest.mark.parametrize(
    ("reason", "kind", "text"),
    [
        ("version", VersionMismatchError, "3.9, 1, 2"),
        ("module", DeploymentError, "WREN_REQUIREMENTS"),
        ("unpickle", SerializationError, "3.9, 1, 2"),
    ],
)
async def test_what_cannot_work_at_all_ends_the_job_at_first_sight(
    make_compute: type[FakeCompute],
    refusal: Refusal,
    reason: str,
    kind: type[Exception],
    text: str,
) -> None:
    """Trying a thousand tasks would only repeat the answer to the first."""
    limits = Limits(concurrency=1, lossless=True)
    compute = make_compute([refusal(reason, "3.9, 1, 2")] * 100, limits=limits)

    async with Executor(backend=compute) as executor:
        job = executor.map(abs, range(1000), return_exceptions=True)
        with pytest.raises(kind, match=text):
            await job
        await job.wait()
        errors = {type(future.exception()) for future in job}

    assert errors == {kind}
    assert compute.invocations == 1
    assert not compute.executed


async def test_every_worker_may_be_too_old_at_once(
    make_compute: type[FakeCompute], refusal: Refusal
) -> None:
    """Several failures that each end the job, at the same time, end it once."""
    compute = make_compute([refusal("version", "3.9, 1, 2")] * 100)

    async with Executor(backend=compute) as executor:
        with compute.held():
            job = executor.map(abs, range(8), chunksize=1)
            await compute.blocked(4)
        with pytest.raises(VersionMismatchError):
            await job
        await job.wait()

    assert job.done()
    assert job.stats.failed == 4


async def test_a_request_that_arrives_altered_is_sent_again_and_then_given_up(
    make_compute: type[FakeCompute], refusal: Refusal
) -> None:
    """Nothing has run of it, so that sending it again is safe; but not for ever."""
    compute = make_compute([refusal("integrity", "altered")] * 4)

    async with Executor(backend=compute, retries=0) as executor:
        assert await executor.map(abs, [-7]) == [7]
        compute.script.extend([refusal("integrity", "altered")] * 5)
        with pytest.raises(IntegrityError, match="altered"):
            await executor.map(abs, [-8])

    assert compute.invocations == 10
    assert compute.executed == [-7]


async def test_a_users_exception_is_final(make_compute: type[FakeCompute]) -> None:
    """Only what the infrastructure did is tried again unless one asks for more."""
    compute = make_compute()

    async with Executor(backend=compute, retries=2) as executor:
        job = executor.map(lambda n: 1 // n, [1, 0], chunksize=2)
        with pytest.raises(ZeroDivisionError) as caught:
            await job

    assert compute.counts == {1: 1, 0: 1}
    notes = "\n".join(caught.value.__notes__)
    assert "task 1, attempt 1, on fake" in notes
    assert "in <lambda>" in notes


async def test_retry_on_tries_the_named_exceptions_again_and_only_those(
    make_compute: type[FakeCompute],
) -> None:
    """A task that fails so is tried again alone; its neighbours are not."""
    compute = make_compute()

    async with Executor(backend=compute, retries=2) as executor:
        job = executor.map(
            lambda text: int(text) and 1 // (int(text) - 2),
            ["x", "2", "3"],
            chunksize=3,
            retry_on=(ValueError, KeyError),
            return_exceptions=True,
        )
        results: list[Any] = await job
        first, second, third = results

    assert isinstance(first, ValueError)
    assert isinstance(second, ZeroDivisionError)
    assert third == 1
    assert compute.counts == {"x": 3, "2": 1, "3": 1}
    assert job.stats.retried == 2
    assert job[0].stats is not None
    assert job[0].stats.attempts == 3


@pytest.mark.parametrize("kind", [TaskTimeoutError, TimeoutError, Exception])
async def test_retry_on_includes_time_outs_by_class(
    make_compute: type[FakeCompute], kind: type[Exception]
) -> None:
    """Whoever noticed the time-out, worker or driver, and under any base class."""
    compute = make_compute([TIMEOUT, TIMEOUT])

    async with Executor(backend=compute) as executor:
        assert await executor.map(abs, [-7], retry_on=(kind,)) == [7]

    assert compute.invocations == 3


async def test_poison_in_a_chunk_fails_alone(make_compute: type[FakeCompute]) -> None:
    """Its neighbours run again, once, and it stops after three executions."""
    compute = make_compute(poison=lambda item: item == 3)

    async with Executor(backend=compute) as executor:
        job = executor.map(abs, range(8), chunksize=8, return_exceptions=True)
        results: list[Any] = await job

    error = results.pop(3)
    assert results == [0, 1, 2, 4, 5, 6, 7]
    assert isinstance(error, WorkerLostError)
    assert error.exit_code == -9
    assert compute.counts[3] == 3
    assert all(compute.counts[n] == 2 for n in range(3))
    assert all(compute.counts[n] == 1 for n in range(4, 8))
    assert job.stats.retried == 8 + 1


async def test_without_retries_a_lost_chunk_is_lost_as_a_whole(
    make_compute: type[FakeCompute],
) -> None:
    """What may have run is never run again, those that had not started included."""
    compute = make_compute(poison=lambda item: item == 1)

    async with Executor(backend=compute, retries=0) as executor:
        job = executor.map(abs, range(6), chunksize=3, return_exceptions=True)
        results: list[Any] = await job

    assert [type(result) for result in results[:3]] == [WorkerLostError] * 3
    assert results[3:] == [3, 4, 5]
    assert max(compute.counts.values()) == 1


async def test_a_time_out_in_a_chunk_is_found_out_alone(
    make_compute: type[FakeCompute],
) -> None:
    """Neighbours of a stuck task are unharmed, and it alone has timed out."""
    compute = make_compute([TIMEOUT, "ok", TIMEOUT, "ok"])

    async with Executor(backend=compute, concurrency=1) as executor:
        results: list[Any] = await executor.map(
            abs, [-1, -2, -3], chunksize=3, concurrency=1, return_exceptions=True
        )

    assert results[0] == 1
    assert type(results[1]) is TaskTimeoutError
    assert results[2] == 3


async def test_a_request_too_large_for_many_is_tried_with_each_alone(
    make_compute: type[FakeCompute],
) -> None:
    """Being too large is not an attempt, and is final only for a task alone."""
    compute = make_compute([PayloadTooLargeError(), PayloadTooLargeError()])

    async with Executor(backend=compute, retries=0) as executor:
        results: list[Any] = await executor.map(
            abs, [-1, -2], chunksize=2, concurrency=1, return_exceptions=True
        )

    assert type(results[0]) is PayloadTooLargeError
    assert results[1] == 2
    assert compute.executed == [-2]


async def test_a_storage_fault_of_the_worker_counts_as_an_attempt(
    make_compute: type[FakeCompute], refusal: Refusal
) -> None:
    """The requests to storage were tried again before; now the task is."""
    compute = make_compute([refusal("transient", "503")] * 2)

    async with Executor(backend=compute, retries=2) as executor:
        assert await executor.map(abs, [-7]) == [7]
        compute.script.extend([refusal("transient", "503")] * 3)
        with pytest.raises(TransientError, match="503"):
            await executor.map(abs, [-7])
        compute.script.append(refusal("reply", "no room"))
        with pytest.raises(WorkerLostError, match="no room"):
            await executor.map(abs, [-7], retries=0)

    assert compute.invocations == 7


async def test_an_answer_for_other_tasks_is_no_outcome(
    make_compute: type[FakeCompute],
) -> None:
    """An answer with too few results must neither hang nor shift the others."""
    compute = make_compute()

    async with Executor(backend=compute, retries=1) as executor:
        await executor.map(abs, [-1])
        compute.script.append(compute.answer)
        job = executor.map(abs, [-1, -2, -3], chunksize=3)
        with anyio.fail_after(5):
            assert await job == [1, 2, 3]


async def test_a_bug_in_an_adapter_is_named(make_compute: type[FakeCompute]) -> None:
    """It ends the job rather than hanging it, with the original as the cause."""
    bug = LookupError("boto3")
    compute = make_compute([bug] * 9)

    async with Executor(backend=compute) as executor:
        with pytest.raises(ComputeError, match=r"^fake: LookupError: boto3$") as caught:
            await executor.map(abs, range(100))

    assert caught.value.__cause__ is bug


async def test_waiting_between_attempts_is_bounded(
    make_compute: type[FakeCompute], clock: Clock
) -> None:
    """Each pause is drawn below a bound that doubles: full jitter."""
    limits = Limits(concurrency=1)
    compute = make_compute([LOST, LOST], limits=limits)

    async with Executor(backend=compute, storage="memory:") as executor:
        assert await executor.map(abs, [-7], commit_after=float("inf")) == [7]

    assert len(clock.slept) == 2
    assert all(0 <= pause <= 0.2 for pause in clock.slept)


@pytest.mark.parametrize(
    ("timeout", "chunksize", "retries", "expected"),
    [
        (None, 4, 2, 900 + 60),
        (5, 1, 2, 5 + 60),
        (5, 4, 0, 4 * 5 + 60),
        (5, 4, 2, 4 * 5 + 60),  # whoever asks for chunks knows how long they take
        (1000, 4, 0, 900 + 60),
    ],
)
async def test_every_invocation_has_a_deadline(
    make_compute: type[FakeCompute],
    timeout: float | None,  # noqa: ASYNC109  # an option of the job
    chunksize: int,
    retries: int,
    expected: float,
) -> None:
    """A task that never starts ends, too: the start, the tasks, and a little grace."""
    limits = Limits(concurrency=1, lossless=True, seconds=900, start_seconds=60)
    compute = make_compute(limits=limits)

    async with Executor(backend=compute) as executor:
        await executor.map(
            abs, range(4), timeout=timeout, chunksize=chunksize, retries=retries
        )

    assert compute.timeouts[0] == pytest.approx(expected, abs=1)


async def test_a_chunk_out_of_time_blames_no_task_for_it(
    make_compute: type[FakeCompute],
) -> None:
    """Without retries nobody can know which one it was."""
    compute = make_compute([TIMEOUT])

    async with Executor(backend=compute, retries=0) as executor:
        results: list[Any] = await executor.map(
            abs, range(3), chunksize=3, timeout=5, return_exceptions=True
        )

    assert [type(result) for result in results] == [WorkerLostError] * 3
    assert "shared" in str(results[0])


async def test_jobs_are_isolated(make_compute: type[FakeCompute]) -> None:
    """The failure, the end or the faults of one are nothing to another."""
    compute = make_compute(poison=lambda n: n == -1, seed=5)

    async with Executor(backend=compute) as executor:
        lost = executor.map(abs, [-1] * 20, chunksize=2)
        failing = executor.map(lambda n: 1 // n, range(20), chunksize=2)
        fine = executor.map(abs, range(200), chunksize=2)
        with pytest.raises(ZeroDivisionError):
            await failing
        with pytest.raises(WorkerLostError):
            await lost
        assert await fine == list(range(200))


async def test_jobs_inside_jobs_share_the_limit_without_deadlock(
    make_compute: type[FakeCompute],
) -> None:
    """Reading one while waiting for others, with one invocation at a time."""
    compute = make_compute(limits=Limits(concurrency=1, lossless=True))

    with anyio.fail_after(10):
        async with Executor(backend=compute) as executor:
            outer = executor.map(abs, iter(range(10)), buffer=1)
            total = 0
            async for n in outer:
                inner = await executor.map(abs, iter(range(n)), buffer=1)
                total += sum(inner) + await executor.submit(abs, -1)

    assert total == sum(sum(range(n)) + 1 for n in range(10))
