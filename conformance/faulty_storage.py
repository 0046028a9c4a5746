"""A `Storage` that fails by plan, and otherwise does what the one it wraps does."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, Literal

import anyio

from wren.conformance.fault_plan import Fault, FaultPlan, damage
from wren.conformance.wrappers import WrappedStorage
from wren.errors import AccessDeniedError, KeyNotFoundError, TransientError
from wren.protocols import Buffer, Grant, ObjectInfo, Storage
from wren.storage.pages import Pages

_COMMON: Final = frozenset(
    {
        "fail-before",  # nothing was done; it may be tried again
        "fail-after",  # it was done, and the reply is lost
        "delay",  # it is done after `Fault.seconds`
        "stall",  # nothing comes for `Fault.seconds`; then it fails
        "forbid",  # a permission is denied: never "not found", as a store may hide that
    }
)
_DAMAGE: Final = frozenset({"truncate", "flip", "empty", "replace"})
ACTIONS: Final = {
    # What is read is damaged, this once; or is not found, though it is there.
    "get": _COMMON | _DAMAGE | {"missing"},
    # What is stored is damaged, for good; or is stored twice.
    "put": _COMMON | _DAMAGE | {"duplicate"},
    "head": _COMMON | {"missing"},
    "delete": _COMMON,
    # What the listing of this prefix before has shown; at first nothing.
    "list": _COMMON | {"stale"},
    # A grant that the store refuses, as it refuses one whose time has passed.
    "grant": _COMMON | {"expire"},
}
"""What may happen to each operation."""

_DELAY: Final = 0.1
_STALL: Final = 1.0
_PAST: Final = 1.0
"""Seconds since the epoch."""

_SIGNATURE: Final = re.compile(r"(?i)(?<=[?&])((?:x-\w+-)?sig(?:nature)?)=[^&]+")


class FaultyStorage(WrappedStorage[Storage]):
    """Plays a plan on a store's methods.

    The key of a fault is a pattern of the key; for ``delete`` of the first one, for
    ``list`` of the prefix. A listing is one call, and read whole. The wrapped store
    stays its owner's; `aclose` closes it.
    """

    def __init__(self, storage: Storage, plan: FaultPlan) -> None:
        """Wrap a store.

        Raises:
            ValueError: An action that is none of `ACTIONS`.
        """
        super().__init__(storage)
        plan.check(ACTIONS)
        self._plan = plan
        self._shown: dict[str, list[ObjectInfo]] = {}  # by prefix

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """See `Storage.get`."""
        fault = await self._before("get", key)
        data = await self.inner.get(key, start=start, stop=stop)
        self._after(fault, key)
        return damage(data, fault.action) if fault else data

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Storage.put`."""
        fault = await self._before("put", key)
        if fault and fault.action in _DAMAGE:
            data = damage(bytes(data), fault.action)
        await self.inner.put(key, data, if_absent=if_absent)
        if fault and fault.action == "duplicate":
            await self.inner.put(key, data)
        self._after(fault, key)

    async def head(self, key: str) -> ObjectInfo:
        """See `Storage.head`."""
        fault = await self._before("head", key)
        info = await self.inner.head(key)
        self._after(fault, key)
        return info

    async def delete(self, keys: Iterable[str]) -> None:
        """See `Storage.delete`."""
        wanted = keys if isinstance(keys, str) else list(keys)
        first = next(iter(wanted), "")
        fault = await self._before("delete", first)
        await self.inner.delete(wanted)
        self._after(fault, first)

    def list(self, prefix: str = "", *, start_after: str = "") -> Pages:
        """See `Storage.list`."""
        begun = False

        async def read() -> list[ObjectInfo]:
            nonlocal begun
            if begun:
                return []
            begun = True
            fault = await self._before("list", prefix)
            found = self.inner.list(prefix, start_after=start_after)
            fresh = [info async for info in found]
            self._after(fault, prefix)
            before = self._shown.get(prefix, [])
            self._shown[prefix] = fresh
            if fault is None or fault.action != "stale":
                return fresh
            return [info for info in before if info.key > start_after]

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
        grant = await self.inner.grant(
            key, method, expires_in=expires_in, if_absent=if_absent
        )
        self._after(fault, key)
        return _refused(grant) if fault and fault.action == "expire" else grant

    async def _before(self, operation: str, key: str) -> Fault | None:
        fault = self._plan.take(operation, key)
        if fault is None:
            return None
        match fault.action:
            case "fail-before":
                raise TransientError("refused by plan", store=self.name, key=key)
            case "forbid":
                raise AccessDeniedError("forbidden by plan", store=self.name, key=key)
            case "missing":
                raise KeyNotFoundError("hidden by plan", store=self.name, key=key)
            case "delay":
                await anyio.sleep(fault.lasts(_DELAY))
            case "stall":
                await anyio.sleep(fault.lasts(_STALL))
                raise TransientError("stalled by plan", store=self.name, key=key)
            case _:
                pass
        return fault

    def _after(self, fault: Fault | None, key: str) -> None:
        if fault and fault.action == "fail-after":
            raise TransientError("the reply was lost", store=self.name, key=key)


def _refused(grant: Grant) -> Grant:
    """Return a grant that is refused: a file's as expired, any other as forged.

    Of the other, the time is left as it is: a grant may end before it, with the
    credentials that made it.
    """
    if grant.url.startswith("file:"):
        return replace(grant, expires=_PAST)
    headers = {
        name: "Bearer expired" if name.lower() == "authorization" else value
        for name, value in grant.headers.items()
    }
    return replace(
        grant, url=_SIGNATURE.sub(rf"\1={'0' * 64}", grant.url), headers=headers
    )
