"""Stores that read something else than was written."""

from __future__ import annotations

from dataclasses import replace

from wren.conformance.mutants.sound_storage import Sound
from wren.errors import KeyNotFoundError, TransientError
from wren.protocols import ObjectInfo


class GetMissingReturnsEmpty(Sound, caught_by="S05"):
    """Hides that there is no object."""

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        try:
            return await self.inner.get(key, start=start, stop=stop)
        except KeyNotFoundError:
            return b""


class GetMissingKeyError(Sound, caught_by="S05"):
    """Lets the library's own exception out."""

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        try:
            return await self.inner.get(key, start=start, stop=stop)
        except KeyNotFoundError:
            raise KeyError(key) from None


class HeadMissingIsTransient(Sound, caught_by="S06"):
    """Has a missing object looked for again and again."""

    async def head(self, key: str) -> ObjectInfo:
        try:
            return await self.inner.head(key)
        except KeyNotFoundError:
            raise TransientError(key=key) from None


class RangeEndInclusive(Sound, caught_by="S17"):
    """Counts as HTTP does."""

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        last = stop if stop is None or stop <= start else stop + 1
        return await self.inner.get(key, start=start, stop=last)


class RangeIgnored(Sound, caught_by="S17 S18"):
    """Returns the whole object."""

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        await self.inner.get(key, start=start, stop=stop)
        return await self.inner.get(key)


class RangeBeyondTheEndFails(Sound, caught_by="S18 S19"):
    """Passes a server's 416 on."""

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        data = await self.inner.get(key, start=start, stop=stop)
        if start and not data:
            raise TransientError(key=key)
        return data


class EmptyRangeNotSent(Sound, caught_by="S46"):
    """Answers an empty range without asking whether there is an object."""

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        if start == stop:
            return b""
        return await self.inner.get(key, start=start, stop=stop)


class StatSizeWrong(Sound, caught_by="S23"):
    """Counts something other than bytes."""

    async def head(self, key: str) -> ObjectInfo:
        info = await self.inner.head(key)
        return replace(info, size=info.size + 1)


class EtagConstant(Sound, caught_by="S23"):
    """Gives every object the same etag."""

    async def head(self, key: str) -> ObjectInfo:
        return replace(await self.inner.head(key), etag="x")


class NaiveTime(Sound, caught_by="S23"):
    """Gives times without a zone."""

    async def head(self, key: str) -> ObjectInfo:
        info = await self.inner.head(key)
        return replace(info, modified=info.modified.replace(tzinfo=None))
