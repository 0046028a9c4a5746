"""A `Storage` that fails by plan, and otherwise does what the one it wraps does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Final, Literal

import anyio

from wren.conformance.fault_plan import Fault, FaultPlan, damage
from wren.errors import AccessDeniedError, TransientError
from wren.protocols import Buffer, Grant, ObjectInfo, Storage, StorageCapabilities
from wren.storage.pages import Pages

_COMMON: Final = frozenset(
    {
        "fail-before",  # nothing was done; it may be tried again
        "fail-after",  # it was done, and the reply is lost
        "delay",  # it is done after `Fault.seconds`
        "stall",  # nothing comes for `Fault.seconds`; then it fails
        "forbid",  # a permission is denied
    }
)
ACTIONS: Final = {
    "get": _COMMON | {"truncate", "flip", "empty", "replace"},
    "put": _COMMON | {"duplicate", "truncate", "flip", "empty", "replace"},
    "head": _COMMON,
    "delete": _COMMON,
    "list": _COMMON | {"stale"},  # what the listing before this one showed
    "grant": _COMMON | {"expire"},  # the grant's time has passed before it is used
}
_STALL: Final = 1.0
_PAST: Final = 1.0
"""Seconds since the epoch."""


class FaultyStorage(Storage):
    """Plays a plan on a store's methods; the key of a listing is its prefix.

    What ``truncate``, ``flip``, ``empty`` and ``replace`` do to a put is what lies in
    the store afterwards. The wrapped store stays its owner's; `aclose` closes it.
    """

    def __init__(self, storage: Storage, plan: FaultPlan) -> None:
        """Wrap a store.

        Raises:
            ValueError: An action that is none of `ACTIONS`.
        """
        plan.check(ACTIONS)
        self._storage = storage
        self._plan = plan
        self._listed: list[ObjectInfo] = []

    @property
    def name(self) -> str:
        """See `Storage.name`."""
        return self._storage.name

    @property
    def capabilities(self) -> StorageCapabilities:
        """See `Storage.capabilities`."""
        return self._storage.capabilities

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """See `Storage.get`."""
        fault = await self._before("get", key)
        data = await self._storage.get(key, start=start, stop=stop)
        self._after(fault, key)
        return damage(data, fault.action) if fault else data

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Storage.put`."""
        fault = await self._before("put", key)
        if fault and fault.action == "duplicate":
            await self._storage.put(key, data, if_absent=if_absent)
            if_absent = False
        content = damage(bytes(data), fault.action) if fault else data
        await self._storage.put(key, content, if_absent=if_absent)
        self._after(fault, key)

    async def head(self, key: str) -> ObjectInfo:
        """See `Storage.head`."""
        fault = await self._before("head", key)
        info = await self._storage.head(key)
        self._after(fault, key)
        return info

    async def delete(self, keys: Iterable[str]) -> None:
        """See `Storage.delete`. The first key is the one that a plan's is matched with."""
        wanted = keys if isinstance(keys, str) else list(keys)
        first = next(iter(wanted), "")
        fault = await self._before("delete", first)
        await self._storage.delete(wanted)
        self._after(fault, first)

    def list(
        self, prefix: str = "", *, start_after: str = ""
    ) -> AsyncIterator[ObjectInfo]:
        """See `Storage.list`."""
        pages = 0

        async def read() -> list[ObjectInfo]:
            nonlocal pages
            pages += 1
            if pages > 1:
                return []
            fault = await self._before("list", prefix)
            found = self._storage.list(prefix, start_after=start_after)
            fresh = [info async for info in found]
            self._after(fault, prefix)
            stale, self._listed = self._listed, fresh
            return stale if fault and fault.action == "stale" else fresh

        return Pages(read)

    async def grant(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        *,
        expires_in: float,
        if_absent: bool = False,
    ) -> Grant:
        """See `Storage.grant`."""
        fault = await self._before("grant", key)
        made = await self._storage.grant(
            key, method, expires_in=expires_in, if_absent=if_absent
        )
        self._after(fault, key)
        if fault and fault.action == "expire":
            return replace(made, expires=_PAST)
        return made

    async def aclose(self) -> None:
        """See `Storage.aclose`."""
        await self._storage.aclose()

    async def _before(self, operation: str, key: str) -> Fault | None:
        fault = self._plan.take(operation, key)
        match fault.action if fault else "":
            case "fail-before":
                raise TransientError("refused by plan", store=self.name, key=key)
            case "forbid":
                raise AccessDeniedError("forbidden by plan", store=self.name, key=key)
            case "delay" if fault:
                await anyio.sleep(fault.lasts(0.1))
            case "stall" if fault:
                await anyio.sleep(fault.lasts(_STALL))
                raise TransientError("stalled by plan", store=self.name, key=key)
            case _:
                pass
        return fault

    def _after(self, fault: Fault | None, key: str) -> None:
        if fault and fault.action == "fail-after":
            raise TransientError("the reply was lost", store=self.name, key=key)
