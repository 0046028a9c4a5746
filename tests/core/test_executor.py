"""An executor: open and closed, its views, and how its jobs share it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from wren import Executor, Job
from wren.errors import ConfigurationError, VersionMismatchError
from wren.protocols import Limits, WorkerInfo

if TYPE_CHECKING:
    from tests.core.conftest import Clock, CountingStorage, FakeCompute

pytestmark = pytest.mark.anyio


async def test_two_jobs_share_the_limit_fairly(
    make_compute: type[FakeCompute],
) -> None:
    """A short job is not held up by a long one that came first."""
    limits = Limits(concurrency=2, lossless=True)
    compute = make_compute(limits=limits)

    async with Executor(backend=compute) as executor:
        long = executor.map(abs, range(1000), chunksize=1)
        short = executor.map(abs, range(1000, 1010), chunksize=1)
        assert await short == list(range(1000, 1010))
        assert not long.done()
        assert len(compute.executed) < 40
        assert await long == list(range(1000))

    assert compute.most_in_flight == 2


async def test_a_job_may_have_a_lower_limit(make_compute: type[FakeCompute]) -> None:
    """``concurrency`` bounds one job; the executor's own bounds all."""
    compute = make_compute(seed=1)

    async with Executor(backend=compute) as executor:
        await executor.map(abs, range(50), chunksize=1, concurrency=2)
        assert compute.most_in_flight == 2
        await executor.map(abs, range(50), chunksize=1, concurrency=99)
        assert compute.most_in_flight == 4


async def test_an_executor_is_used_while_it_is_open(
    make_compute: type[FakeCompute],
) -> None:
    """Before, after and twice: one clear error each time."""
    executor = Executor(backend=make_compute())
    view = executor.options(retries=0)

    with pytest.raises(ConfigurationError, match="async with"):
        executor.submit(abs, 1)
    async with executor:
        assert await view.submit(abs, -1) == 1
        with pytest.raises(ConfigurationError, match="once"):
            await executor.__aenter__()
        assert await executor.submit(abs, -1) == 1
    for use in (executor, view):
        with pytest.raises(ConfigurationError, match="closed"):
            use.map(abs, [1])
    with pytest.raises(ConfigurationError, match="once"):
        await executor.__aenter__()


async def test_other_versions_are_refused_before_anything_is_sent(
    make_compute: type[FakeCompute], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sides are named; the backend that was given is left open."""
    compute = make_compute()

    async def prepare() -> WorkerInfo:
        return WorkerInfo(python="3.9", wren="0", cloudpickle="1", name="wren-old")

    monkeypatch.setattr(compute, "prepare", prepare)
    with pytest.raises(VersionMismatchError, match=r"wren-old.*3\.9.*this driver"):
        async with Executor(backend=compute):
            pass

    assert not compute.closed


async def test_views_share_the_executor_and_have_defaults_of_their_own(
    make_compute: type[FakeCompute], clock: Clock
) -> None:
    """A view of a view adds to it; the executor itself is unchanged."""
    compute = make_compute(poison=lambda item: item == 3)

    async with Executor(backend=compute, retries=0) as executor:
        lenient = executor.options(return_exceptions=True)
        patient = lenient.options(retries=4)
        await executor.map(abs, [3], return_exceptions=True)
        await lenient.map(abs, [3])
        assert compute.counts[3] == 2
        await patient.map(abs, [3])
        assert compute.counts[3] == 7
        await patient.map(abs, [3], retries=1)
        assert compute.counts[3] == 9
        with pytest.raises(ConfigurationError, match=r"option retry .*known: buffer"):
            executor.options(retry=1)  # type: ignore[call-arg]
        with pytest.raises(ConfigurationError, match="chunksize=0"):
            executor.map(abs, [1], chunksize=0)


async def test_an_exception_of_the_body_comes_out_as_it_is(
    make_compute: type[FakeCompute],
) -> None:
    """Not in a group, and with jobs under way that are cancelled."""
    compute = make_compute(["hang"] * 4)
    error = LookupError("the application's own")
    jobs: list[Job[int]] = []

    async def application() -> None:
        async with Executor(backend=compute) as executor:
            jobs.append(executor.map(abs, range(100), chunksize=1))
            await compute.blocked(4)
            raise error

    with pytest.raises(LookupError) as caught:
        await application()

    assert caught.value is error
    assert jobs[0].done()
    assert jobs[0][0].cancelled()
    assert compute.in_flight == 0


async def test_leaving_waits_for_nothing_that_was_not_awaited(
    make_compute: type[FakeCompute],
) -> None:
    """What is left is cancelled, and nothing of it runs on."""
    compute = make_compute(["hang"])

    async with Executor(backend=compute) as executor:
        hanging = executor.submit(abs, 1)
        await compute.blocked(1)
        waiting = executor.map(abs, range(1000), chunksize=1)
    invocations = compute.invocations
    await wait_all_tasks_blocked()

    assert hanging.cancelled()
    assert waiting.done()
    assert compute.invocations == invocations
    assert compute.in_flight == 0


async def test_closing_early_cancels_and_leaves_the_body_alone(
    make_compute: type[FakeCompute],
) -> None:
    """`aclose` may be called by any task, any number of times."""
    compute = make_compute(["hang"] * 2)

    async with Executor(backend=compute) as executor:
        job = executor.map(abs, range(2), chunksize=1)
        await compute.blocked(2)
        await executor.aclose()
        await executor.aclose()
        assert job[0].cancelled()
        assert compute.in_flight == 0
        await wait_all_tasks_blocked()  # the body goes on
        with pytest.raises(ConfigurationError, match="closed"):
            executor.submit(abs, 1)

    assert not compute.closed  # it belongs to the caller


async def test_closing_releases_whoever_waits_in_another_task(
    make_compute: type[FakeCompute],
) -> None:
    """Also one that carries its task out itself."""
    compute = make_compute(["hang"] * 4)
    ended: list[str] = []

    async def wait(waitable: Any, name: str) -> None:
        with pytest.raises(Exception, match="cancelled"):
            await waitable
        ended.append(name)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group, Executor(backend=compute) as ex:
            group.start_soon(wait, ex.submit(abs, 1), "future")
            group.start_soon(wait, ex.map(abs, range(9)), "job")
            group.start_soon(wait, anext(aiter(ex.map(abs, [1]))), "stream")
            await compute.blocked(4)

    assert sorted(ended) == ["future", "job", "stream"]


async def test_what_surrounds_the_executor_may_be_cancelled(
    make_compute: type[FakeCompute],
) -> None:
    """Jobs that others wait for end, too: nobody hangs."""
    compute = make_compute(["hang"] * 4)
    ended: list[str] = []

    async def wait(waitable: Any) -> None:
        with pytest.raises(Exception, match="cancelled"):
            await waitable
        ended.append("cancelled")

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as scope:
                async with Executor(backend=compute) as executor:
                    group.start_soon(wait, executor.map(abs, range(9), chunksize=1))
                    group.start_soon(wait, executor.submit(abs, 1))
                    await compute.blocked(4)
                    scope.cancel()
                    await anyio.sleep_forever()

    assert ended == ["cancelled"] * 2
    assert compute.in_flight == 0


async def test_storage_is_closed_only_where_the_executor_opened_it(
    make_compute: type[FakeCompute], store: CountingStorage
) -> None:
    """A store that was given belongs to the caller."""
    compute = make_compute(limits=Limits(concurrency=1), threads=True)

    async with Executor(backend=compute, storage=store) as executor:
        await executor.map(abs, [1], commit_after=0)

    assert await store.keys() == []


async def test_a_backend_without_storage_says_what_to_set(
    make_compute: type[FakeCompute],
) -> None:
    """As soon as storage is needed."""
    compute = make_compute(limits=Limits(concurrency=1))

    async with Executor(backend=compute) as executor:
        with pytest.raises(ConfigurationError, match="WREN_STORAGE"):
            await executor.map(abs, [1])
