"""Adapters that execute at the wrong time, or answer with the wrong thing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import anyio

from wren.conformance.mutants.sound_compute import Sound
from wren.envelope import RESPONSE, Buffer, decode, encode
from wren.errors import (
    ComputeError,
    TaskTimeoutError,
    ThrottledError,
    WorkerLostError,
)
from wren.protocols import Limits

# What a method promises is in `wren.protocols`; how it is broken, in the class.
# ruff: noqa: ASYNC109


# --- how often it runs ----------------------------------------------------------------


class RetriesInvokeSilently(Sound, caught_by="C07 C12 C31"):
    """A library's retries are on: a lost worker's request is sent again."""

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        try:
            return await super().invoke(request, timeout=timeout)
        except WorkerLostError:
            return await super().invoke(request, timeout=timeout)


class SwallowsThrottle(Sound, caught_by="C31"):
    """A library's retries are on: what was throttled is sent again."""

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        with suppress(ThrottledError):
            return await super().invoke(request, timeout=timeout)
        return await super().invoke(request, timeout=timeout)


class GivesUpEarly(Sound, caught_by="C06"):
    """A library's own time limit ends a slow invocation, which is then sent again."""

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        with suppress(TaskTimeoutError):
            return await super().invoke(request, timeout=min(timeout, 1.0))
        return await super().invoke(request, timeout=timeout)


class ExecutesTwice(Sound, caught_by="C05"):
    """Events are delivered at least once."""

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        await super().invoke(request, timeout=timeout)
        return await super().invoke(request, timeout=timeout)


class Serialises(Sound, caught_by="C24", patience=8.0):
    """One connection for all: it is as if the platform had one worker."""

    def __init__(self, *, startable: bool = True) -> None:
        super().__init__(startable=startable)
        self._connection = anyio.Lock()

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        async with self._connection:
            return await super().invoke(request, timeout=timeout)


# --- what comes back ------------------------------------------------------------------


class ReturnsOtherTasksReply(Sound, caught_by="C01"):
    """Answers are not matched with requests: each gets the one before."""

    def __init__(self, *, startable: bool = True) -> None:
        super().__init__(startable=startable)
        self._before: Buffer | None = None

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        response = await super().invoke(request, timeout=timeout)
        before, self._before = self._before, response
        return response if before is None else before


class PayloadTruncated(Sound, caught_by="C01"):
    """A buffer's size limits what is read of a response."""

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        return (await super().invoke(request, timeout=timeout))[: 1 << 16]


class RaisesTasksErrors(Sound, caught_by="C11"):
    """A function whose task failed counts as a failed function."""

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        response = await super().invoke(request, timeout=timeout)
        header, _ = decode(response, RESPONSE)
        if header.get("failures"):
            raise ComputeError("the function failed")
        return response


class DropsStderr(Sound, caught_by="C18"):
    """Only standard output is collected."""

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        response = await super().invoke(request, timeout=timeout)
        header, buffers = decode(response, RESPONSE)
        if header.get("output"):
            lines = header["output"].splitlines(keepends=True)
            kept = "".join(line for line in lines if not line.startswith("err "))
            header = header | {"output": kept}
        return b"".join(encode(RESPONSE, header, [[each] for each in buffers]))


class OverstatesLimit(Sound, caught_by="C02"):
    """The declared limit is the platform's, before the encoding that makes it less."""

    @property
    def limits(self) -> Limits:
        own = super().limits
        return replace(own, request_bytes=own.request_bytes * 4 // 3)


class IgnoresRequestLimit(Sound, caught_by="C03"):
    """What is declared is not held: a large request goes out, and may be billed."""

    @property
    def limits(self) -> Limits:
        own = super().limits
        return replace(own, request_bytes=own.request_bytes // 2)


class IgnoresResponseLimit(Sound, caught_by="C04"):
    """What is declared is not held: a large response comes in."""

    @property
    def limits(self) -> Limits:
        own = super().limits
        return replace(own, response_bytes=own.response_bytes // 2)
