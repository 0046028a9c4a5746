"""A connection to one bucket: opened once, when it is first needed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import CancelScope, Lock, to_thread

from wren.errors import ConfigurationError, StorageError
from wren.storage.location import Location
from wren.storage.requests import Requests, pool_size

if TYPE_CHECKING:
    from wren.config import Settings
    from wren.storage.s3_client import Opened

T = TypeVar("T")


class Connection:
    """Sends requests to a bucket. For asyncio, and for one event loop.

    The client library takes up to a second to import and to set up, so both happen in
    a thread, and once, however many calls come first at the same time.
    """

    def __init__(
        self, location: Location, region: str | None, settings: Settings
    ) -> None:
        """Describe the connection; nothing is opened.

        Args:
            location: The bucket, and what the names in it begin with.
            region: Where the bucket is; None for what AWS's own tools would use.
            settings: Say how many requests are in flight at most.
        """
        self.location = location
        self._region = region
        self._requests = Requests(pool_size(settings))
        self._opening = Lock()
        self._opened: Opened | None = None
        self._closed = False

    async def open(self) -> Opened:
        """Return the client.

        Raises:
            ConfigurationError: The event loop is not asyncio's.
            AccessDeniedError: There are no usable credentials.
            StorageError: The connection is closed, or a setting is malformed.
        """
        self.check()
        if self._opened is not None:
            return self._opened
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError(
                "storage on S3 needs asyncio: its client knows no other event loop"
            ) from None
        async with self._opening:
            self.check()
            if self._opened is None:
                self._opened = await to_thread.run_sync(self._connect)
            return self._opened

    def check(self) -> None:
        """Raise `StorageError` if the connection is closed."""
        if self._closed:
            raise StorageError("the store is closed", store="s3")

    def _connect(self) -> Opened:
        from wren.storage.s3_client import connect

        return connect(self.location, self._region, self._requests.slots)

    async def send(self, operation: str, key: str = "", **arguments: Any) -> Any:
        """Make one request, once.

        Args:
            operation: The client's method.
            key: The object's key, if it is about one.
            **arguments: Those of the method besides bucket and key.

        Returns:
            S3's answer. A body in it is still to be read, under `explained`.

        Raises:
            TransientError: It may be made again.
            StorageError: Otherwise.
        """
        opened = await self.open()
        if key:
            arguments["Key"] = self.location.full(key)
        with self.explained(key):
            return await getattr(opened.client, operation)(
                Bucket=self.location.bucket, **arguments
            )

    async def ask(self, operation: str, key: str = "", **arguments: Any) -> Any:
        """Make a request as `send` does, again while it fails for the moment."""
        return await self.run(partial(self.send, operation, key, **arguments))

    async def run(self, send: Callable[[], Awaitable[T]]) -> T:
        """Return what ``send`` returns, when it is its turn; see `Requests.run`."""
        return await self._requests.run(send)

    def explained(self, key: str) -> AbstractContextManager[None]:
        """Raise wren's errors in place of the client's, in a ``with`` block."""
        from wren.storage.s3_errors import explained

        region = self._opened.region if self._opened else ""
        return explained(self.location, region, key)

    async def aclose(self) -> None:
        """Close all connections. Idempotent; waits until all is closed."""
        self._closed = True
        with CancelScope(shield=True):
            async with self._opening:
                opened, self._opened = self._opened, None
                if opened is not None:
                    await opened.client.close()


def code_of(error: StorageError) -> str:
    """Return S3's own word for what went wrong; empty if it sent none."""
    # Some of the client's own errors have the attribute, and nothing in it.
    response: dict[str, Any] = getattr(error.__cause__, "response", None) or {}
    code: str = response.get("Error", {}).get("Code", "")
    return code
