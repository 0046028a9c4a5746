"""Requests of a client that blocks, made in threads and made again when they fail."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio import to_thread

from wren.errors import StorageError, WrenError
from wren.storage.gcs_faults import NAME
from wren.storage.requests import Requests

if TYPE_CHECKING:
    from wren.storage.gcs_bucket import Bucket

T = TypeVar("T")


class Threads:
    """Where a store's requests are made. Belongs to one event loop.

    Google's client is imported here, when it is first needed: that takes half a second.
    """

    def __init__(self, bucket: str, project: str | None, slots: int) -> None:
        """Describe them; none is started yet.

        Args:
            bucket: The bucket's name.
            project: Google Cloud project; None for that of the credentials.
            slots: Most requests, and so threads and connections, at a time.
        """
        self._name = bucket
        self._project = project
        self._requests = Requests(slots)
        self._limiter: anyio.CapacityLimiter | None = None
        self._lock = threading.Lock()
        self._bucket: Bucket | None = None
        self._closed = False

    async def look(self, call: Callable[[Bucket], T]) -> T:
        """Make a request that changes nothing."""
        self.check_open()

        async def send() -> T:
            return await self.run(lambda: self._attempt(call), abandon=True)

        return await self._requests.run(send)

    async def change(self, call: Callable[[Bucket], T]) -> T:
        """Make a request that must not go on after this call has ended."""
        self.check_open()

        def attempt() -> T | WrenError:
            try:
                return self._attempt(call)
            except WrenError as exc:
                return exc

        async def send() -> T:
            outcomes: list[T | WrenError] = []

            async def run() -> None:
                outcomes.append(await self.run(attempt))

            # A cancel scope waits for the thread; asyncio's own Task.cancel() does
            # not, unless it hits a task group, which makes it a scope's cancellation.
            async with anyio.create_task_group() as group:
                group.start_soon(run)
            (outcome,) = outcomes
            if isinstance(outcome, WrenError):
                raise outcome
            return outcome

        return await self._requests.run(send)

    async def clean_up(self, call: Callable[[Bucket], None]) -> None:
        """Make a request after another one failed or was cancelled. Once."""
        with anyio.CancelScope(shield=True):
            await self.run(lambda: call(self._load()))

    async def run(self, call: Callable[[], T], *, abandon: bool = False) -> T:
        """Call something that takes time, in a thread.

        Args:
            call: What to call.
            abandon: Leave the thread to itself when this is cancelled.
        """
        if self._limiter is None:  # made here, where an event loop runs
            self._limiter = anyio.CapacityLimiter(self._requests.slots)
        return await to_thread.run_sync(
            call, abandon_on_cancel=abandon, limiter=self._limiter
        )

    def check_open(self) -> None:
        """Refuse what comes after `aclose`."""
        if self._closed:
            raise StorageError("the store is closed", store=NAME)

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        self._closed = True
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(self._close)

    def _attempt(self, call: Callable[[Bucket], T]) -> T:
        bucket = self._load()
        return bucket.connection.with_token(lambda: call(bucket))

    def _load(self) -> Bucket:
        with self._lock:
            if self._bucket is None:
                from wren.storage.gcs_bucket import Bucket
                from wren.storage.gcs_connection import Connection

                self.check_open()
                slots = self._requests.slots
                connection = Connection(self._name, self._project, slots)
                self._bucket = Bucket(self._name, connection)
            return self._bucket

    def _close(self) -> None:
        with self._lock:
            if self._bucket is not None:
                self._bucket.connection.close()
