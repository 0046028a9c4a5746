"""`ComputeFaultSuite`: how an adapter reads what its platform's API answers.

It needs something that makes the platform's API fail on request: an emulator, or a
proxy in front of the real one. What counts is the difference between a request that was
certainly not executed, which is sent again, and one that may have been.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Protocol

import pytest

from wren.conformance import probes
from wren.conformance import rewriting as rewriting  # before the checks; see there
from wren.conformance.compute_calls import ComputeCalls
from wren.conformance.marks import Marks
from wren.conformance.request import ask
from wren.conformance.spec import Level, check
from wren.errors import (
    ComputeError,
    CredentialsError,
    DeploymentError,
    ThrottledError,
    WorkerLostError,
)
from wren.protocols import Compute


class Fault(StrEnum):
    """What the API does to an invocation."""

    SLOW = "slow"
    """Executes it, and holds the answer back."""

    LOST = "lost"
    """Executes it, and ends the connection instead of answering."""

    RESET = "reset"
    """Takes all of the request, and resets the connection; nothing is executed."""

    THROTTLED = "throttled"
    """Refuses it with the platform's own "too many requests", such as 429."""

    MISSING = "missing"
    """Says that there is no such function, such as 404."""

    UNAUTHORIZED = "unauthorized"
    """Says that the credentials are wrong, such as 401."""

    FORBIDDEN = "forbidden"
    """Says that a permission is lacking, such as 403."""

    FAILED = "failed"
    """Answers with the platform's own 5xx, which is no envelope."""


class Faults(Protocol):
    """Makes the platform's API fail."""

    async def inject(self, fault: Fault | None, *, seconds: float = 0) -> None:
        """Do this to every invocation from now on; None for nothing.

        Args:
            fault: What to do.
            seconds: How long to hold an answer back.
        """
        ...

    async def received(self) -> int:
        """Return how many invocations have arrived at the API, failed ones included."""
        ...


class FaultChecks(ComputeCalls):
    """One request a call, and an error that says whether it was executed."""

    slow: ClassVar[float] = 65.0
    """Seconds for which an answer is held back: longer than the platform's library
    waits for one unless it is told otherwise."""

    async def fail(
        self,
        compute: Compute,
        marks: Marks,
        expected: type[Exception] | tuple[type[Exception], ...],
    ) -> Exception:
        """Return the error that an invocation ends with, whose task makes a mark."""
        request = ask(probes.mark, await marks.places("task"))
        with (
            self.within(self.patience, "an error"),
            pytest.raises(expected) as caught,
        ):
            await compute.invoke(request, timeout=2 * self.patience)
        return caught.value

    @check("C06", Level.FAULT)
    async def test_slow_answer_is_waited_for(
        self, ready: Compute, faults: Faults, marks: Marks
    ) -> None:
        """No library's own time limit ends an invocation, or begins another."""
        await faults.inject(Fault.SLOW, seconds=self.slow)
        request = ask(probes.mark, await marks.places("task"))
        before = await faults.received()

        with self.within(self.slow + self.patience, "an answer"):
            await ready.invoke(request, timeout=self.slow + 2 * self.patience)

        assert await faults.received() == before + 1
        assert await marks.count("task") == 1

    @check("C07", Level.FAULT)
    async def test_lost_answer_is_a_lost_worker(
        self, ready: Compute, faults: Faults, marks: Marks
    ) -> None:
        """An answer that is lost after the task ran is not asked for again."""
        await faults.inject(Fault.LOST)

        error = await self.fail(ready, marks, WorkerLostError)

        assert isinstance(error, ComputeError)
        assert error.may_have_run
        assert await marks.count("task") == 1

    @check("C08", Level.FAULT)
    async def test_throttling_is_told(
        self, ready: Compute, faults: Faults, marks: Marks
    ) -> None:
        """A platform at its limit is a `ThrottledError`: nothing was executed."""
        await faults.inject(Fault.THROTTLED)

        error = await self.fail(ready, marks, ThrottledError)

        assert isinstance(error, ThrottledError)
        assert not error.may_have_run
        assert error.retry_after is None or error.retry_after >= 0
        assert await marks.count("task") == 0
        await faults.inject(None)
        assert (await self.call(ready, probes.echo, 1)).value == 1

    @check("C09", Level.FAULT)
    async def test_missing_function_is_told(
        self, ready: Compute, faults: Faults, marks: Marks
    ) -> None:
        """A function that is not deployed, or no more, is a `DeploymentError`."""
        await faults.inject(Fault.MISSING)

        error = await self.fail(ready, marks, DeploymentError)

        assert isinstance(error, DeploymentError)
        assert not error.may_have_run
        assert await marks.count("task") == 0

    @check("C10", Level.FAULT)
    async def test_denied_is_told(
        self, ready: Compute, faults: Faults, marks: Marks
    ) -> None:
        """Wrong credentials and lacking permissions are a `CredentialsError`."""
        for fault in (Fault.UNAUTHORIZED, Fault.FORBIDDEN):
            await faults.inject(fault)

            error = await self.fail(ready, marks, CredentialsError)

            assert str(error)
        assert await marks.count("task") == 0

    @check("C31", Level.FAULT)
    async def test_nothing_is_sent_twice(
        self, ready: Compute, faults: Faults, marks: Marks
    ) -> None:
        """Whatever the API answers, it has got one request a call."""
        for fault, expected in (
            (Fault.THROTTLED, ThrottledError),
            (Fault.FAILED, WorkerLostError),
            (Fault.RESET, WorkerLostError),
            (Fault.LOST, WorkerLostError),
            (Fault.MISSING, DeploymentError),
            (Fault.FORBIDDEN, CredentialsError),
        ):
            await faults.inject(fault)
            before = await faults.received()

            await self.fail(ready, marks, expected)

            sent = await faults.received() - before
            assert sent == 1, f"{fault}: sent {sent} times"


@pytest.mark.anyio
class ComputeFaultSuite(FaultChecks):
    """Subclass it with two fixtures that belong together.

    ``compute`` is as in `ComputeSuite`; ``faults`` makes the API fail that it speaks
    to, see `Faults`. The fixture ``store`` and the attributes are as in `ComputeSuite`.
    """
