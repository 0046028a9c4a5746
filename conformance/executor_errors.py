"""Checks of what becomes of tasks that fail."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from wren.conformance.executor_values import PATIENCE
from wren.conformance.spec import check
from wren.errors import RemoteError, SerializationError
from wren.executor import Executor

Open = Callable[..., Executor]


def _odd_fails() -> Callable[[int], int]:
    def odd_fails(n: int) -> int:
        if n % 2:
            raise LookupError(n)
        return n

    return odd_fails


class ErrorChecks:
    """A failure is the task's own, stays with its index, and spoils nothing else."""

    @check("E08")
    async def test_first_failure_is_raised_as_itself(self, open_executor: Open) -> None:
        """Its own type, its own arguments, and which task it was."""
        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                with pytest.raises(LookupError) as caught:
                    await executor.map(_odd_fails(), [0, 1])
                assert await executor.submit(abs, -1) == 1

        assert caught.value.args == (1,)
        assert "task 1" in "\n".join(caught.value.__notes__)

    @check("E08")
    async def test_a_tasks_own_group_is_raised_as_it_is(
        self, open_executor: Open
    ) -> None:
        """``except*`` finds in it what the task put there."""

        def fail_twice() -> None:
            raise ExceptionGroup("both", [LookupError(1), ValueError(2)])

        found: list[object] = []
        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                try:
                    await executor.submit(fail_twice)
                except* LookupError as group:
                    found += [exc.args for exc in group.exceptions]
                except* ValueError as group:
                    found += [exc.args for exc in group.exceptions]

        assert found == [(1,), (2,)]

    @check("E08")
    async def test_a_failure_cancels_the_rest(self, open_executor: Open) -> None:
        """Nothing that is left of the job is begun."""

        def fail_or_wait(n: int) -> int:
            import time

            if n == 0:
                raise LookupError
            time.sleep(0.05)
            return n

        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                job = executor.map(fail_or_wait, range(2000), chunksize=1)
                with pytest.raises(LookupError):
                    await job
                await job.wait()

        assert job.done()
        assert job.stats.finished < 1000

    @check("E09")
    async def test_failures_are_returned_in_their_places(
        self, open_executor: Open
    ) -> None:
        """With ``return_exceptions``, as `asyncio.gather` does."""
        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                got = await executor.map(_odd_fails(), range(6), return_exceptions=True)

        assert [each if isinstance(each, int) else type(each) for each in got] == [
            0,
            LookupError,
            2,
            LookupError,
            4,
            LookupError,
        ]

    @check("E10")
    async def test_what_was_finished_can_still_be_read(
        self, open_executor: Open
    ) -> None:
        """A failure does not take the outcomes of others with it."""
        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                job = executor.map(
                    _odd_fails(), range(6), chunksize=1, return_exceptions=True
                )
                await job.wait()

        assert [job[n].result() for n in (0, 2, 4)] == [0, 2, 4]
        assert isinstance(job[3].exception(), LookupError)

    @check("E10")
    async def test_what_was_finished_outlives_the_failure(
        self, open_executor: Open
    ) -> None:
        """Also where the first failure was raised and has ended the job."""
        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                job = executor.map(_odd_fails(), range(2), chunksize=1)
                assert await job[0] == 0
                with pytest.raises(LookupError):
                    await job

        assert job[0].result() == 0
        assert isinstance(job[1].exception(), LookupError)

    @check("E11")
    async def test_a_function_that_cannot_travel_is_refused(
        self, open_executor: Open
    ) -> None:
        """At once; the error says what holds it back."""
        lock = threading.Lock()

        def locked(n: int) -> int:
            with lock:
                return n

        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                with pytest.raises(SerializationError, match="lock"):
                    await executor.map(locked, range(3))

    @check("E11")
    async def test_an_argument_that_cannot_travel_fails_alone(
        self, open_executor: Open
    ) -> None:
        """Its neighbours are executed."""
        items: list[Any] = [1, threading.Lock(), 3]

        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                got = await executor.map(
                    lambda each: repr(each), items, return_exceptions=True
                )

        assert (got[0], got[2]) == ("1", "3")
        assert isinstance(got[1], SerializationError)

    @check("E12")
    async def test_a_result_that_cannot_travel_fails_alone(
        self, open_executor: Open
    ) -> None:
        """The task has run, and its neighbours' results are intact."""

        def lock_or_number(n: int) -> object:
            import threading

            return threading.Lock() if n == 1 else n

        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                got = await executor.map(
                    lock_or_number, range(3), return_exceptions=True
                )

        assert (got[0], got[2]) == (0, 2)
        assert isinstance(got[1], SerializationError)

    @check("E13")
    async def test_an_exception_that_cannot_be_rebuilt_is_told(
        self, open_executor: Open
    ) -> None:
        """Its type, its message and its traceback arrive in a `RemoteError`."""

        def fail() -> None:
            class TwoArgumentsError(Exception):
                def __init__(self, name: str, place: str) -> None:
                    super().__init__(f"{name} in {place}")

            raise TwoArgumentsError("mouse", "house")

        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                with pytest.raises(RemoteError, match="mouse in house") as caught:
                    await executor.submit(fail)

        assert "TwoArgumentsError" in caught.value.type_name
        assert "Traceback" in caught.value.traceback

    @check("E14")
    @pytest.mark.parametrize(
        "name", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "StopIteration"]
    )
    async def test_a_task_cannot_end_the_driver(
        self, open_executor: Open, name: str
    ) -> None:
        """Whatever it raises is an ordinary exception here."""

        def end() -> None:
            import builtins

            raise getattr(builtins, name)("enough")

        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                with pytest.raises(RemoteError, match="enough") as caught:
                    await executor.submit(end)
                assert await executor.submit(abs, -1) == 1

        assert caught.value.type_name.endswith(name)

    @check("E14")
    async def test_a_cancellation_on_the_worker_stays_there(
        self, open_executor: Open
    ) -> None:
        """The caller is not being cancelled."""

        async def cancel() -> None:
            import asyncio

            raise asyncio.CancelledError

        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                with pytest.raises(RemoteError):
                    await executor.submit(cancel)

    @check("E15")
    async def test_the_workers_traceback_and_notes_arrive(
        self, open_executor: Open
    ) -> None:
        """Where it failed there, and what was added to it."""

        def fail_with_a_note() -> None:
            error = LookupError("no such bird")
            error.add_note("it has flown")
            raise error

        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                with pytest.raises(LookupError, match="no such bird") as caught:
                    await executor.submit(fail_with_a_note)

        error = caught.value
        told = "\n".join([*error.__notes__, str(error.__cause__)])
        assert "it has flown" in told
        assert "fail_with_a_note" in told
