"""An executor between a platform and a store that fail by plan and are looked at."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, NamedTuple

from wren.conformance.faults import FaultPlan, FaultyCompute, FaultyStorage
from wren.conformance.limits import LimitedCompute
from wren.conformance.wrappers import WrappedCompute, WrappedStorage
from wren.executor import Executor
from wren.protocols import Buffer, Compute, Grant, ObjectInfo, Storage

JOBS: Final = "wren/jobs/"
"""Where jobs keep what they store."""


class Call(NamedTuple):
    """A request to a store."""

    operation: str
    key: str
    """A listing's prefix; of a deletion the first key."""


class WatchedStorage(WrappedStorage[Storage]):
    """Notes every request to a store, and may show something else than is there."""

    def __init__(self, storage: Storage) -> None:
        """Wrap a store, which stays its owner's."""
        super().__init__(storage)
        self.calls: list[Call] = []
        """Every request, in order."""

        self.listing = 0
        """Listings under way."""

        self.most_listing = 0
        """Most listings under way at a time."""

        self.show: Callable[[str, bytes], bytes] | None = None
        """What `get` returns, given the key and the content."""

    def count(self, operation: str, prefix: str = "") -> int:
        """Return how many requests were about a key that begins so."""
        return sum(
            call.operation == operation and call.key.startswith(prefix)
            for call in self.calls
        )

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """See `Storage.get`."""
        self.calls.append(Call("get", key))
        data = await self.inner.get(key, start=start, stop=stop)
        return data if self.show is None else self.show(key, data)

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Storage.put`."""
        self.calls.append(Call("put", key))
        await self.inner.put(key, data, if_absent=if_absent)

    async def head(self, key: str) -> ObjectInfo:
        """See `Storage.head`."""
        self.calls.append(Call("head", key))
        return await self.inner.head(key)

    async def delete(self, keys: Iterable[str]) -> None:
        """See `Storage.delete`."""
        wanted = list(keys)
        self.calls.append(Call("delete", next(iter(wanted), "")))
        await self.inner.delete(wanted)

    async def list(
        self, prefix: str = "", *, start_after: str = ""
    ) -> AsyncIterator[ObjectInfo]:
        """See `Storage.list`."""
        self.calls.append(Call("list", prefix))
        self.listing += 1
        self.most_listing = max(self.most_listing, self.listing)
        try:
            async for info in self.inner.list(prefix, start_after=start_after):
                yield info
        finally:
            self.listing -= 1

    async def grant(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        *,
        expires_in: float,
        if_absent: bool = False,
    ) -> Grant:
        """See `Storage.grant`."""
        self.calls.append(Call("grant", key))
        return await self.inner.grant(
            key, method, expires_in=expires_in, if_absent=if_absent
        )

    async def aclose(self) -> None:
        """Leave the store to its owner."""


class WatchedCompute(WrappedCompute[Compute]):
    """Keeps the responses of a compute."""

    def __init__(self, compute: Compute) -> None:
        """Wrap a compute, which stays its owner's."""
        super().__init__(compute)
        self.responses: list[bytes] = []
        """Every response, in order."""

    async def invoke(
        self,
        request: Sequence[Buffer],
        *,
        timeout: float,  # noqa: ASYNC109  # the contract
    ) -> Buffer:
        """See `Compute.invoke`."""
        response = await self.inner.invoke(request, timeout=timeout)
        self.responses.append(bytes(response))
        return response

    async def aclose(self) -> None:
        """Leave the compute to its owner."""


class Bench:
    """A compute and a store, with faults and a watch between them and an executor.

    The platform is declared to lose responses, whatever it says itself: here it does.
    """

    def __init__(self, compute: Compute, storage: Storage) -> None:
        """Take what is to be wrapped; both stay their owner's.

        Args:
            compute: Not closed, and need not be prepared.
            storage: Empty.
        """
        self._inner = compute
        self.inside = storage
        """The store itself."""

        self.store = WatchedStorage(storage)
        """What the executor asks of the store."""

        self.compute: FaultyCompute
        """What the executor asks of the platform."""

        self._watched: WatchedCompute

    @property
    def sent(self) -> int:
        """Invocations that the executor asked for."""
        return self.compute.sent

    @property
    def executed(self) -> int:
        """Invocations that workers were given."""
        return self.compute.executed

    @property
    def responses(self) -> Sequence[bytes]:
        """What workers answered, whether it arrived or not."""
        return self._watched.responses

    @asynccontextmanager
    async def open(
        self,
        plan: FaultPlan | None = None,
        *,
        direct_seconds: float = math.inf,
        request_bytes: float = math.inf,
        **options: Any,
    ) -> AsyncGenerator[Executor]:
        """Open an executor; at the end, all of the plan must have happened.

        Args:
            plan: What goes wrong.
            direct_seconds: After how long the platform drops a connection.
            request_bytes: From how many bytes arguments have to be stored.
            options: Of the executor.
        """
        with plan or FaultPlan() as plan:
            async with LimitedCompute(
                self._inner,
                direct_seconds=direct_seconds,
                request_bytes=request_bytes,
                lossless=False,
            ) as limited:
                self._watched = WatchedCompute(limited)
                self.compute = FaultyCompute(self._watched, plan)
                self.store = WatchedStorage(FaultyStorage(self.inside, plan))
                async with Executor(
                    backend=self.compute, storage=self.store, **options
                ) as executor:
                    yield executor

    async def keys(self, prefix: str = "") -> list[str]:
        """Return the keys that lie in the store."""
        return [info.key async for info in self.inside.list(prefix)]
