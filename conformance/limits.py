"""A `Compute` that allows less than the one it wraps, and refuses the rest.

With limits of a few hundred bytes every function, argument and result has to travel
through storage, on any backend; with a short ``direct_seconds`` every response has to
be stored and waited for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

import anyio

from wren.conformance.wrappers import WrappedCompute
from wren.envelope import REQUEST, RESPONSE, Buffer, decode, size
from wren.errors import (
    IntegrityError,
    PayloadTooLargeError,
    ThrottledError,
    WorkerLostError,
)
from wren.protocols import Compute, Limits

HEADER_ROOM: Final = 16 * 1024
"""Bytes of an envelope beside its payload that no limit counts.

A limit below this could never be kept: the grants by which everything else travels are
a few kilobytes themselves. What is held to the limits is the payload of an envelope:
functions, arguments, results.
"""


class LimitedCompute(WrappedCompute[Compute]):
    """Lowers limits of a `Compute`: they are declared, and they are enforced.

    Enter it with ``async with`` where ``direct_seconds`` is given: what goes on after a
    connection was dropped is ended on leaving. The wrapped compute stays the caller's;
    `aclose` closes it.
    """

    def __init__(
        self,
        compute: Compute,
        *,
        request_bytes: float = math.inf,
        response_bytes: float = math.inf,
        concurrency: int | None = None,
        direct_seconds: float = math.inf,
        lossless: bool | None = None,
    ) -> None:
        """Describe the limits; none can be raised.

        Args:
            compute: What runs the requests.
            request_bytes: Largest payload of a request.
            response_bytes: Largest payload of a response.
            concurrency: Most invocations in flight. More are throttled.
            direct_seconds: An invocation that takes longer loses its connection, and
                runs on.
            lossless: What is declared of it; None for what is true of ``compute``, or
                False where connections are dropped.
        """
        super().__init__(compute)
        self._request_bytes = request_bytes
        self._response_bytes = response_bytes
        self._concurrency = concurrency
        self._direct_seconds = direct_seconds
        self._lossless = False if direct_seconds < math.inf else lossless
        self._in_flight = 0
        self._group = anyio.create_task_group()
        self._entered = False

    @property
    def limits(self) -> Limits:
        """See `Compute.limits`."""
        own = self.inner.limits
        limits = replace(
            own,
            request_bytes=min(own.request_bytes, self._request_bytes),
            response_bytes=min(own.response_bytes, self._response_bytes),
            direct_seconds=min(own.direct_seconds, self._direct_seconds),
        )
        if self._concurrency is not None and self._concurrency < own.concurrency:
            limits = replace(limits, concurrency=self._concurrency, queue=0)
        if self._lossless is not None:
            limits = replace(limits, lossless=self._lossless)
        return limits

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._entered = True
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)

    async def invoke(
        self,
        request: Sequence[Buffer],
        *,
        timeout: float,  # noqa: ASYNC109  # the contract
    ) -> Buffer:
        """See `Compute.invoke`."""
        limits = self.limits
        _check("request", b"".join(request), REQUEST, limits.request_bytes)
        if self._in_flight >= limits.concurrency + limits.queue:
            raise ThrottledError(f"{self._in_flight} invocations are in flight already")
        self._in_flight += 1
        try:
            if self._direct_seconds < math.inf:
                response = await self._invoke_directly(request, timeout)
            else:
                response = await self.inner.invoke(request, timeout=timeout)
        finally:
            self._in_flight -= 1
        _check("response", response, RESPONSE, limits.response_bytes)
        return response

    async def _invoke_directly(
        self,
        request: Sequence[Buffer],
        timeout: float,  # noqa: ASYNC109  # the contract
    ) -> Buffer:
        assert self._entered, "direct_seconds needs 'async with'"
        answer: list[Buffer | Exception] = []
        answered = anyio.Event()
        working = anyio.CancelScope()

        async def work() -> None:
            with working:
                try:
                    answer.append(await self.inner.invoke(request, timeout=timeout))
                except Exception as exc:  # noqa: BLE001  # raised below, if awaited
                    answer.append(exc)
                answered.set()

        self._group.start_soon(work)
        try:
            with anyio.move_on_after(self._direct_seconds):
                await answered.wait()
        except BaseException:
            working.cancel()
            raise
        if not answer:
            raise WorkerLostError(
                f"the connection was dropped after {self._direct_seconds:g} s"
            )
        outcome = answer[0]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def _check(what: str, envelope: Buffer, kind: int, limit: float) -> None:
    """Refuse an envelope whose payload, or whose rest, is over its limit."""
    if limit == math.inf:
        return
    try:
        payload = size(decode(envelope, kind)[1])
    except IntegrityError:  # whatever it is, all of it counts
        payload = len(envelope)
    if payload > limit or len(envelope) > limit + HEADER_ROOM:
        raise PayloadTooLargeError(
            f"a {what} of {len(envelope)} bytes with {payload} bytes of payload; at"
            f" most {limit:g} are allowed"
        )
