"""Checks of how an invocation ends: by a crash, its time, its caller, a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final

import anyio
import pytest

from wren.conformance import probes
from wren.conformance.compute_calls import ComputeCalls
from wren.conformance.marks import Marks
from wren.conformance.request import Answer, ask
from wren.conformance.spec import Level, check, not_offered
from wren.errors import TaskTimeoutError, WorkerLostError
from wren.protocols import Compute

_LIFE: Final = 15.0
"""Seconds after which a process ends by itself that a broken adapter leaves behind."""

_SHORT: Final = 1.0

_DRIVER: Final = """
import math, sys
from pathlib import Path
import anyio

async def main():
    await compute.prepare()
    await compute.invoke([Path(sys.argv[1]).read_bytes()], timeout=math.inf)

anyio.run(main)
"""


class EndingChecks(ComputeCalls):
    """However an invocation ends, it ends, and the next one finds a worker."""

    driver: ClassVar[str] = ""
    """Source of a program that makes `compute`, for the check that kills its driver.
    Empty where a driver's death does not end its workers, as on any cloud."""

    async def lose(self, compute: Compute, request: Any) -> WorkerLostError:
        """Return the error that a request ends with that kills its worker."""
        with (
            self.within(self.patience, "an error"),
            pytest.raises(WorkerLostError) as caught,
        ):
            await compute.invoke(request, timeout=2 * self.patience)
        assert caught.value.may_have_run
        return caught.value

    async def check_alive(self, compute: Compute) -> None:
        """Assert that the next request is served."""
        assert (await self.call(compute, probes.echo, 1)).value == 1

    @check("C12")
    async def test_exit_is_a_lost_worker(self, ready: Compute, marks: Marks) -> None:
        """A task that ends its process is told by the exit code, and ran once."""
        item = (await marks.places("task"), 3)

        error = await self.lose(ready, ask(probes.mark_and_exit, item))

        assert error.exit_code == (3 if self.traits.exit_codes else None)
        assert "memory" not in str(error)
        assert await marks.count("task") == 1
        await self.check_alive(ready)

    @check("C12", Level.EXTENDED)
    async def test_last_words_arrive(self, ready: Compute, marks: Marks) -> None:
        """What a task printed before its process ended is part of the error."""
        item = (await marks.places("task"), 3)

        error = await self.lose(ready, ask(probes.mark_and_exit, item))

        if not self.traits.last_words:
            assert error.output == ""
            not_offered("last_words")
        assert "last words" in error.output

    @check("C12", Level.EXTENDED)
    async def test_crash_harms_no_other_request(
        self, ready: Compute, marks: Marks
    ) -> None:
        """A request that runs beside the one that crashes is answered."""
        if not self.traits.isolation:
            not_offered("isolation")
        if ready.limits.concurrency < 2:
            not_offered("concurrency")
        answers: list[Answer] = []
        places, gate = await marks.places("task"), await marks.gate("gate")

        async def neighbour() -> None:
            item = (places, gate, self.patience)
            answers.append(await self.call(ready, probes.mark_and_hold, item))

        async with anyio.create_task_group() as group:
            group.start_soon(neighbour)
            await marks.made("task", seconds=self.patience / 2)
            await self.lose(ready, ask(probes.die, int(signal.SIGABRT)))
            await marks.open("gate")

        assert isinstance(answers[0].value, int)
        assert await marks.count("task") == 1

    @check("C13")
    async def test_segmentation_fault_is_a_lost_worker(self, ready: Compute) -> None:
        """It is told by the signal's name, and not taken for want of memory."""
        error = await self.lose(ready, ask(probes.die, int(signal.SIGSEGV)))

        if self.traits.exit_codes:
            assert error.exit_code == -signal.SIGSEGV
            assert "SIGSEGV" in str(error)
        else:
            assert error.exit_code is None
        assert "memory" not in str(error)
        await self.check_alive(ready)

    @check("C14", Level.EXTENDED)
    async def test_want_of_memory_is_told(self, ready: Compute) -> None:
        """The task gets a `MemoryError`, or its worker is lost, probably of memory."""
        if self.traits.memory is None:
            not_offered("memory")

        told = ""
        try:
            answer = await self.call(ready, probes.eat, self.traits.memory * 2)
        except WorkerLostError as exc:
            told = str(exc)
        else:
            told = repr(answer.results)

        assert "memory" in told.lower()
        await self.check_alive(ready)

    @check("C15")
    async def test_time_is_up_when_it_is_up(self, ready: Compute) -> None:
        """An invocation longer than its ``timeout`` ends with a `TaskTimeoutError`."""
        await self.check_alive(ready)  # so that a worker has started

        with (
            self.within(_SHORT + self.grace, "the end of the time"),
            pytest.raises(TaskTimeoutError),
        ):
            await ready.invoke(ask(probes.sleep, _LIFE), timeout=_SHORT)

        await self.check_alive(ready)

    @check("C15")
    async def test_end_of_time_stops_the_worker(
        self, ready: Compute, marks: Marks
    ) -> None:
        """When the time is up, the task does not run on."""
        if not self.traits.kill_on_timeout:
            not_offered("kill_on_timeout")
        await self.check_alive(ready)
        request = ask(probes.beat, (await marks.heart("heart"), _LIFE))

        with (
            self.within(_SHORT + self.grace, "the end of the time"),
            pytest.raises(TaskTimeoutError),
        ):
            await ready.invoke(request, timeout=_SHORT)

        await marks.stops("heart", self.grace)

    @check("C15")
    async def test_tasks_time_is_kept_on_the_worker(self, ready: Compute) -> None:
        """The ``timeout`` in a request ends one task, and not those beside it."""
        request = ask(probes.sleep, 0, _LIFE, 0, timeout=_SHORT)

        results = (await self.send(ready, request)).results

        assert results[::2] == [None, None]
        assert isinstance(results[1], TaskTimeoutError)

    @check("C25")
    async def test_cancelled_beforehand_does_not_run(
        self, ready: Compute, marks: Marks
    ) -> None:
        """An invocation in a cancelled scope is not executed."""
        request = ask(probes.mark, await marks.places("task"))

        with anyio.CancelScope() as scope:
            scope.cancel()
            await ready.invoke(request, timeout=self.patience)

        await self.check_alive(ready)  # what was sent before this would have run
        assert scope.cancelled_caught
        assert await marks.count("task") == 0

    @check("C25")
    async def test_cancelling_returns_promptly(
        self, ready: Compute, marks: Marks
    ) -> None:
        """Cancelling an invocation that runs returns within a few seconds.

        The task does not run on, where the platform can stop it.
        """
        request = ask(probes.beat, (await marks.heart("heart"), _LIFE))
        cancelled = 0.0

        async with anyio.create_task_group() as group:
            group.start_soon(lambda: ready.invoke(request, timeout=2 * self.patience))
            await marks.beats("heart", self.patience)
            cancelled = anyio.current_time()
            group.cancel_scope.cancel()

        assert anyio.current_time() - cancelled < self.grace
        if self.traits.cancel:
            await marks.stops("heart", self.grace)
            await self.check_alive(ready)

    @check("C27")
    async def test_workers_do_not_outlive_their_driver(
        self, marks: Marks, tmp_path: Path
    ) -> None:
        """A driver that is killed leaves no worker running."""
        if not self.driver:
            not_offered("driver")
        request = anyio.Path(tmp_path, "request")
        heart = await marks.heart("heart")
        await request.write_bytes(b"".join(ask(probes.beat, (heart, _LIFE))))

        process = await anyio.open_process(
            [sys.executable, "-c", self.driver + _DRIVER, str(request)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None,
        )
        async with process:
            try:
                await marks.beats("heart", self.patience)
            finally:
                with suppress(ProcessLookupError):  # it has ended, and said why
                    process.kill()

        await marks.stops("heart", self.grace)
