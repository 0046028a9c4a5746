"""Adapters around adapters that pass everything on: override what is to differ."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Generic, Literal, TypeVar

from wren.errors import ConfigurationError
from wren.protocols import (
    Buffer,
    Compute,
    Grant,
    HasStorage,
    Limits,
    ObjectInfo,
    Storage,
    StorageCapabilities,
    WorkerInfo,
)

S = TypeVar("S", bound=Storage)
C = TypeVar("C", bound=Compute)


class WrappedStorage(Storage, Generic[S]):
    """Does what ``inner`` does. Closing it closes that."""

    def __init__(self, inner: S) -> None:
        """Wrap a store."""
        self.inner = inner

    @property
    def name(self) -> str:
        """See `Storage.name`."""
        return self.inner.name

    @property
    def capabilities(self) -> StorageCapabilities:
        """See `Storage.capabilities`."""
        return self.inner.capabilities

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """See `Storage.get`."""
        return await self.inner.get(key, start=start, stop=stop)

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Storage.put`."""
        await self.inner.put(key, data, if_absent=if_absent)

    async def head(self, key: str) -> ObjectInfo:
        """See `Storage.head`."""
        return await self.inner.head(key)

    async def delete(self, keys: Iterable[str]) -> None:
        """See `Storage.delete`."""
        await self.inner.delete(keys)

    def list(
        self, prefix: str = "", *, start_after: str = ""
    ) -> AsyncIterator[ObjectInfo]:
        """See `Storage.list`."""
        return self.inner.list(prefix, start_after=start_after)

    async def grant(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        *,
        expires_in: float,
        if_absent: bool = False,
    ) -> Grant:
        """See `Storage.grant`."""
        return await self.inner.grant(
            key, method, expires_in=expires_in, if_absent=if_absent
        )

    async def aclose(self) -> None:
        """See `Storage.aclose`."""
        await self.inner.aclose()


class WrappedCompute(Generic[C]):
    """Does what ``inner`` does. Closing it closes that."""

    def __init__(self, inner: C) -> None:
        """Wrap a compute."""
        self.inner = inner

    @property
    def name(self) -> str:
        """See `Compute.name`."""
        return self.inner.name

    @property
    def limits(self) -> Limits:
        """See `Compute.limits`."""
        return self.inner.limits

    async def prepare(self) -> WorkerInfo:
        """See `Compute.prepare`."""
        return await self.inner.prepare()

    def open_storage(self) -> Storage:
        """See `HasStorage.open_storage`.

        Raises:
            ConfigurationError: The wrapped compute has no store of its own.
        """
        if isinstance(self.inner, HasStorage):
            return self.inner.open_storage()
        raise ConfigurationError(f"{self.name} has no storage of its own")

    async def invoke(
        self,
        request: Sequence[Buffer],
        *,
        timeout: float,  # noqa: ASYNC109  # the contract
    ) -> Buffer:
        """See `Compute.invoke`."""
        return await self.inner.invoke(request, timeout=timeout)

    async def aclose(self) -> None:
        """See `Compute.aclose`."""
        await self.inner.aclose()
