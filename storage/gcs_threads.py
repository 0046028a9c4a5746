"""Requests of a client that blocks, made in threads and made again when they fail."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio
from anyio import to_thread

from wren.errors import StorageError, WrenError
from wren.storage.gcs_connection import Connection
from wren.storage.gcs_errors import NAME
from wren.storage.requests import Requests

T = TypeVar("T")


class Threads:
    """Where a store's requests are made. Belongs to one event loop."""

    def __init__(self, connection: Connection, slots: int) -> None:
        """Describe them; none is started yet.

        Args:
            connection: What the requests use; closed with this.
            slots: Most requests, and so threads, at a time.
        """
        self._connection = connection
        self._requests = Requests(slots)
        self._limit: anyio.CapacityLimiter | None = None
        self._closed = False

    async def look(self, call: Callable[[], T]) -> T:
        """Make a request that changes nothing."""
        self.check_open()
        request = partial(self._connection.with_token, call)

        async def send() -> T:
            return await to_thread.run_sync(
                request, abandon_on_cancel=True, limiter=self.limiter()
            )

        return await self._requests.run(send)

    async def change(self, call: Callable[[], T]) -> T:
        """Make a request that must not go on after this call has ended."""
        self.check_open()

        def attempt() -> T | WrenError:
            try:
                return self._connection.with_token(call)
            except WrenError as exc:
                return exc

        async def send() -> T:
            outcomes: list[T | WrenError] = []

            async def run() -> None:
                outcomes.append(
                    await to_thread.run_sync(attempt, limiter=self.limiter())
                )

            # A cancel scope waits for the thread; asyncio's own Task.cancel() does
            # not, unless it hits a task group, which makes it a scope's cancellation.
            async with anyio.create_task_group() as group:
                group.start_soon(run)
            (outcome,) = outcomes
            if isinstance(outcome, WrenError):
                raise outcome
            return outcome

        return await self._requests.run(send)

    def limiter(self) -> anyio.CapacityLimiter:
        """Return what keeps the threads as few as the connections."""
        if self._limit is None:  # made here, where an event loop runs
            self._limit = anyio.CapacityLimiter(self._requests.slots)
        return self._limit

    def check_open(self) -> None:
        """Refuse what comes after `aclose`."""
        if self._closed:
            raise StorageError("the store is closed", store=NAME)

    async def aclose(self) -> None:
        """Close the connection. Idempotent."""
        self._closed = True
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(self._connection.close)
