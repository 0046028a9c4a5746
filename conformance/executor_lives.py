"""Checks of jobs side by side, of cancelling, of time, and of what is left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

from wren.conformance.executor_values import PATIENCE
from wren.conformance.spec import Level, check, not_offered
from wren.errors import TaskCancelledError, TaskTimeoutError
from wren.executor import Executor

Open = Callable[..., Executor]
Leftovers = Callable[[], Awaitable[list[str]]]


def _waiting(seconds: float) -> Callable[[int], int]:
    def wait(n: int) -> int:
        import time

        time.sleep(seconds)
        return n

    return wait


class LifeChecks:
    """Jobs do not disturb each other, end when they are ended, and leave nothing."""

    @pytest.fixture
    def leftovers(self) -> Leftovers | None:
        """Returns the keys that jobs have left in the store, where one can look."""
        return None

    @check("E24")
    async def test_nothing_is_asked_of_the_store_afterwards(
        self, open_executor: Open
    ) -> None:
        """A job that has ended costs nothing any more."""
        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                job = executor.map(abs, range(20), commit_after=0)
                await job
                asked = job.stats.storage_requests
                await executor.map(abs, range(20))

        assert job.stats.storage_requests == asked

    @check("E25", Level.SCALE)
    async def test_a_large_job_can_be_cancelled(self, open_executor: Open) -> None:
        """100,000 tasks: the cancellation comes out, and the executor goes on."""
        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                await executor.submit(abs, -1)
                with anyio.move_on_after(0.5) as scope:
                    await executor.map(_waiting(0.02), range(100_000), chunksize=1)
                assert await executor.submit(abs, -1) == 1

        assert scope.cancelled_caught

    @check("E26")
    async def test_cancelling_works_inside_other_scopes(
        self, open_executor: Open
    ) -> None:
        """A shield protects a map inside it; a nested timeout ends only its own."""
        results: list[list[int]] = []
        inner = anyio.CancelScope(deadline=anyio.current_time() + PATIENCE)

        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                with anyio.CancelScope() as outer:
                    outer.cancel()
                    with anyio.CancelScope(shield=True):
                        results.append(await executor.map(abs, range(3)))
                with anyio.move_on_after(PATIENCE):
                    with inner:
                        inner.deadline = anyio.current_time() + 0.2
                        await executor.map(_waiting(30), range(3), chunksize=1)
                    results.append(await executor.map(abs, [-1]))

        assert results == [[0, 1, 2], [1]]
        assert inner.cancelled_caught

    @check("E26")
    async def test_one_future_can_be_cancelled(self, open_executor: Open) -> None:
        """The rest of its job is not."""
        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                job = executor.map(_waiting(0.05), range(30), chunksize=1)
                assert job[29].cancel()
                await job.wait()

        assert job[29].cancelled()
        with pytest.raises(TaskCancelledError):
            job[29].result()
        assert [job[n].result() for n in range(29)] == list(range(29))

    @check("E27")
    async def test_maps_inside_of_maps_do_not_wait_for_each_other(
        self, open_executor: Open
    ) -> None:
        """Each result of one starts another, and one invocation at a time is enough."""
        total = 0
        with anyio.fail_after(PATIENCE):
            async with open_executor(concurrency=1) as executor:
                async for n in executor.map(abs, range(5)):
                    total += sum(await executor.map(abs, range(n)))

        assert total == sum(sum(range(n)) for n in range(5))

    @check("E28")
    async def test_jobs_side_by_side_keep_their_results(
        self, open_executor: Open
    ) -> None:
        """One that fails does not touch the others."""
        outcomes: dict[int, object] = {}

        def multiply(factor: int) -> Callable[[int], int]:
            def run(n: int) -> int:
                if factor == 3:
                    raise LookupError
                return n * factor

            return run

        async def use(executor: Executor, factor: int) -> None:
            try:
                outcomes[factor] = await executor.map(multiply(factor), range(50))
            except LookupError:
                outcomes[factor] = LookupError

        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor, anyio.create_task_group() as group:
                for factor in range(6):
                    group.start_soon(use, executor, factor)

        assert outcomes == {
            factor: LookupError if factor == 3 else [n * factor for n in range(50)]
            for factor in range(6)
        }

    @check("E31")
    async def test_a_job_leaves_nothing_in_the_store(
        self, open_executor: Open, leftovers: Leftovers | None
    ) -> None:
        """However it ended, and while others go on."""
        if leftovers is None:
            not_offered("looking into the store")
        data = bytes(8 << 20)

        def one_returns(n: int) -> bytes:
            import time

            time.sleep(30 * n)  # what is stopped now can write nothing later
            return bytes(8 << 20)

        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                await executor.map(len, [data] * 2, commit_after=0)
                with pytest.raises(TypeError):
                    await executor.map(len, [1, 2], commit_after=0)
                with anyio.move_on_after(0.2):
                    await executor.map(_waiting(30), range(2), commit_after=0)
                async for _ in executor.map(one_returns, range(2), chunksize=1):
                    break

        assert await leftovers() == []

    @check("E33", Level.SCALE)
    async def test_many_small_tasks_are_few_invocations(
        self, open_executor: Open
    ) -> None:
        """100,000 of them, all right, in chunks that grow."""
        with anyio.fail_after(2 * PATIENCE):
            async with open_executor() as executor:
                job = executor.map(lambda n: n + 1, range(100_000))
                got = await job

        same = got == list(range(1, 100_001))
        assert same
        assert job.stats.invocations < 10_000

    inline = True
    """Small data fits into a request. Where it does not, it has to be stored."""

    @check("E37", Level.COMMIT)
    async def test_quick_small_tasks_touch_no_store(self, open_executor: Open) -> None:
        """What fits inline is neither read nor written, task by task."""
        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                job = executor.map(abs, range(50))
                await job

        if not self.inline:
            not_offered("small data inside a request")
        assert job.stats.storage_requests == 0

    @check("E42")
    async def test_a_functions_bytes_travel_once_to_a_worker(
        self, open_executor: Open
    ) -> None:
        """Not with every task."""
        weight = bytes(range(256)) * 200  # 50 KB

        def weigh(n: int) -> int:
            return len(weight) + n

        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                job = executor.map(weigh, range(60), chunksize=1)
                assert await job == [len(weight) + n for n in range(60)]

        copies = job.stats.workers + job.stats.cold_starts + 1
        assert job.stats.bytes_in < copies * len(weight) + 60 * 8192

    @check("E43")
    async def test_a_tasks_time_limit_ends_that_task_alone(
        self, open_executor: Open
    ) -> None:
        """Its neighbours are not disturbed, those in its own invocation included."""

        def wait_or_return(n: int) -> int:
            import time

            if n == 3:
                time.sleep(600)
            return n

        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                got = await executor.map(
                    wait_or_return, range(8), timeout=1.5, return_exceptions=True
                )

        assert [n for n in got if isinstance(n, int)] == [0, 1, 2, 4, 5, 6, 7]
        assert isinstance(got[3], TaskTimeoutError)

    @check("E43")
    async def test_a_busy_task_is_stopped_as_well(self, open_executor: Open) -> None:
        """One that never gives way to anything."""

        def spin() -> None:
            while True:
                pass

        with anyio.fail_after(PATIENCE):
            async with open_executor(timeout=1.0) as executor:
                with pytest.raises(TaskTimeoutError):
                    await executor.submit(spin)
                assert await executor.submit(abs, -1) == 1
