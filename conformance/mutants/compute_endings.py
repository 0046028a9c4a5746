"""Adapters that tell the wrong end, or bring about none."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import anyio

from wren.conformance.mutants.sound_compute import Sound
from wren.envelope import Buffer
from wren.errors import TaskTimeoutError, WorkerLostError

# What a method promises is in `wren.protocols`; how it is broken, in the class.
# ruff: noqa: ASYNC109


class CrashReportedAsOOM(Sound, caught_by="C12 C13"):
    """Every death of a worker is taken for want of memory."""

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        try:
            return await super().invoke(request, timeout=timeout)
        except WorkerLostError as exc:
            exc.args = (f"{exc}; suspected: out of memory",)
            raise


class CrashHangs(Sound, caught_by="C13", patience=4.0):
    """Nobody notices that the worker is dead."""

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        with suppress(WorkerLostError):
            return await super().invoke(request, timeout=timeout)
        await anyio.sleep_forever()
        raise AssertionError


class ForgetsExitCode(Sound, caught_by="C12 C13"):
    """How a worker ended is not passed on."""

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        try:
            return await super().invoke(request, timeout=timeout)
        except WorkerLostError as exc:
            raise WorkerLostError(str(exc), output=exc.output) from exc


class ForgetsLastWords(Sound, caught_by="C12"):
    """What a lost worker had printed is not passed on."""

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        try:
            return await super().invoke(request, timeout=timeout)
        except WorkerLostError as exc:
            exc.output = ""
            raise


class IgnoresTimeout(Sound, caught_by="C15"):
    """The library's own limit is used, and not the one given."""

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        return await super().invoke(request, timeout=900)


class TimeoutReportedAsLost(Sound, caught_by="C15"):
    """A closed connection is all that it sees of a timeout."""

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        try:
            return await super().invoke(request, timeout=timeout)
        except TaskTimeoutError as exc:
            raise WorkerLostError("the connection was closed") from exc


class TimeoutLeavesProcess(Sound, caught_by="C15", platform="Deaf"):
    """The caller is told, and the task runs on."""


class IgnoresCancel(Sound, caught_by="C25"):
    """A call in a thread cannot be interrupted: cancelling waits for its end."""

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        with anyio.CancelScope(shield=True):
            return await super().invoke(request, timeout=timeout)
        raise AssertionError


class CancelLeavesProcess(Sound, caught_by="C25", platform="Deaf"):
    """The caller goes on at once, and so does the task."""


class LeavesProcess(Sound, caught_by="C26", patience=8.0):
    """Closing releases the client, and not what it has started."""

    async def aclose(self) -> None:
        pass


# --- broken platforms -----------------------------------------------------------------


class StdoutDeadlock(Sound, caught_by="C18", platform="Stuffed", patience=4.0):
    """Nobody reads the pipe that tasks print to."""


class LeaksEnv(Sound, caught_by="C20", platform="Leaky"):
    """Workers inherit the driver's environment."""


class ReusesDirtyTmp(Sound, caught_by="C21", platform="Untidy"):
    """All requests share a directory of temporary files."""


class KeepsChildren(Sound, caught_by="C22", platform="Fertile"):
    """What a task has started goes on after it."""


class CrashTakesNeighbours(Sound, caught_by="C12", platform="Frail"):
    """One worker's death is that of all."""


class OrphansOnDriverKill(Sound, caught_by="C27", platform="Loyal"):
    """Workers finish what they have begun, whoever is dead."""
