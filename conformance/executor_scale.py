"""Checks of what many or large tasks cost the driver, and of its event loop."""

from __future__ import annotations

import os
import pickle
import resource
import time
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from wren.conformance.executor_values import PATIENCE
from wren.conformance.spec import Level, check, not_offered
from wren.executor import Executor

Open = Callable[..., Executor]

_MANY: Final = 100_000
_MOST_TASKS: Final = 64  # of the event loop; a few for each of four invocations
_MOST_DESCRIPTORS: Final = 64
_MOST_KIB: Final = 200 << 10
_STALL: Final = 0.1


class ScaleChecks:
    """The driver's cost is that of what is in flight, and its event loop goes on."""

    inline = True
    """Small data fits into a request. Where it does not, each chunk is stored."""

    @check("E33", Level.SCALE)
    async def test_many_tasks_take_little_of_the_driver(
        self, open_executor: Open
    ) -> None:
        """100,000 tasks: few tasks of the event loop, descriptors and megabytes."""
        if not self.inline:
            not_offered("small data inside a request")
        tasks = descriptors = 0

        async def watch() -> None:
            nonlocal tasks, descriptors
            while True:
                tasks = max(tasks, len(anyio.get_running_tasks()))
                descriptors = max(descriptors, _descriptors())
                await anyio.sleep(0.01)

        peak = _peak_kib()
        before = _descriptors()
        count = 0
        with anyio.fail_after(2 * PATIENCE):
            async with (
                open_executor(concurrency=4) as executor,
                anyio.create_task_group() as group,
            ):
                group.start_soon(watch)
                async for _ in executor.map(lambda n: None, iter(range(_MANY))):
                    count += 1
                group.cancel_scope.cancel()

        assert count == _MANY
        assert tasks <= _MOST_TASKS
        assert descriptors - before <= _MOST_DESCRIPTORS
        assert _peak_kib() - peak <= _MOST_KIB

    @check("E34", Level.SCALE)
    async def test_pickling_leaves_the_event_loop_free(
        self, open_executor: Open
    ) -> None:
        """A web service must answer while five million numbers are pickled."""
        numbers = list(range(5_000_000))
        began = time.perf_counter()
        pickle.dumps(numbers)
        alone = time.perf_counter() - began

        with anyio.fail_after(2 * PATIENCE):
            async with open_executor() as executor:

                async def send() -> None:
                    assert await executor.submit(len, numbers) == len(numbers)

                stall = await _longest_stall(send)
                if stall > _STALL:  # another program may have had the processors
                    stall = min(stall, await _longest_stall(send))

        assert stall < max(_STALL, alone / 2)

    @check("E36", Level.EXTENDED)
    async def test_the_event_loop_makes_no_difference(
        self, open_executor: Open
    ) -> None:
        """Results, failures, time limits and cancellation look the same on each."""
        seen: list[object] = []

        def divide(n: int) -> float:
            return 6 / n

        def wait(n: int) -> int:
            import time

            time.sleep(n)
            return n

        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                seen.append(await executor.map(divide, [1, 2, 3]))
                seen.append([n async for n in executor.map(abs, iter([-1, -2]))])
                job = executor.map(abs, [-3, -4])
                seen.append(sorted([f.index async for f in job.as_completed()]))
                try:
                    await executor.map(divide, [1, 0])
                except ZeroDivisionError as exc:
                    seen.append(str(exc))
                try:
                    await executor.options(timeout=0.3).submit(wait, 60)
                except TimeoutError as exc:
                    seen.append(type(exc).__name__)
                future = executor.submit(wait, 60)
                seen.append((future.cancel(), future.cancelled(), future.cancel()))
                with anyio.move_on_after(0.2) as scope:
                    await executor.submit(wait, 60)
                seen.append(scope.cancelled_caught)

        assert seen == [
            [6.0, 3.0, 2.0],
            [1, 2],
            [0, 1],
            "division by zero",
            "TaskTimeoutError",
            (True, True, False),
            True,
        ]


def _descriptors() -> int:
    return len(os.listdir("/dev/fd"))  # noqa: PTH208  # Path would make 2 objects each


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def _longest_stall(work: Callable[[], Awaitable[None]]) -> float:
    """Return for how many seconds, at most, nothing else could run beside this."""
    longest = 0.0

    async def probe() -> None:
        nonlocal longest
        while True:
            began = time.perf_counter()
            await anyio.sleep(0.005)
            longest = max(longest, time.perf_counter() - began - 0.005)

    async with anyio.create_task_group() as group:
        group.start_soon(probe)
        await work()
        group.cancel_scope.cancel()
    return longest
