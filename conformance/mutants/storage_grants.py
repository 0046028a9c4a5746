"""Stores that do not do what they declare."""

from __future__ import annotations

from typing import Literal

from wren.conformance.mutants.sound_storage import Sound
from wren.errors import UnsupportedError
from wren.protocols import Buffer, Grant, StorageCapabilities


class UndeclaredAndIgnored(Sound, caught_by="S48"):
    """Says that it has no conditional puts, and makes unconditional ones."""

    @property
    def capabilities(self) -> StorageCapabilities:
        return StorageCapabilities(conditional_put=False)

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        await self.inner.put(key, data)


class DeclaredAndRefused(Sound, caught_by="S24"):
    """Says that it has conditional puts, and has none."""

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        if if_absent:
            raise UnsupportedError(key=key)
        await self.inner.put(key, data)


class GrantIgnoresCondition(Sound, caught_by="S40"):
    """Leaves the condition out of the grant, as SigV2 does."""

    async def grant(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        *,
        expires_in: float,
        if_absent: bool = False,
    ) -> Grant:
        return await self.inner.grant(key, method, expires_in=expires_in)


class GrantForAnotherObject(Sound, caught_by="S39"):
    """Grants what lies beside the object."""

    async def grant(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        *,
        expires_in: float,
        if_absent: bool = False,
    ) -> Grant:
        return await self.inner.grant(
            f"{key}-", method, expires_in=expires_in, if_absent=if_absent
        )


class PutGrantNeverExpires(Sound, caught_by="S41"):
    """Limits only who reads."""

    async def grant(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        *,
        expires_in: float,
        if_absent: bool = False,
    ) -> Grant:
        seconds = expires_in if method == "GET" else 1e6
        return await self.inner.grant(
            key, method, expires_in=seconds, if_absent=if_absent
        )
