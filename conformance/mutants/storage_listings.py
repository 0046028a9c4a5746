"""Stores whose listings are not what they should be."""

from __future__ import annotations

from collections.abc import AsyncIterator

from wren.conformance.mutants.sound_storage import Sound
from wren.protocols import ObjectInfo


class ListFirstPageOnly(Sound, caught_by="S13"):
    """Forgets the continuation token."""

    async def list(
        self, prefix: str = "", *, start_after: str = ""
    ) -> AsyncIterator[ObjectInfo]:
        count = 0
        async for info in self.inner.list(prefix, start_after=start_after):
            count += 1
            if count > 1000:
                return
            yield info


class ListUnsorted(Sound, caught_by="S12"):
    """Lists in some other order."""

    async def list(
        self, prefix: str = "", *, start_after: str = ""
    ) -> AsyncIterator[ObjectInfo]:
        found = self.inner.list(prefix, start_after=start_after)
        for info in reversed([info async for info in found]):
            yield info


class ListInOrderOfUTF16(Sound, caught_by="S12"):
    """Sorts as JavaScript, Java and .NET do."""

    async def list(
        self, prefix: str = "", *, start_after: str = ""
    ) -> AsyncIterator[ObjectInfo]:
        found = self.inner.list(prefix, start_after=start_after)
        infos = [info async for info in found]
        for info in sorted(infos, key=lambda info: info.key.encode("utf-16-be")):
            yield info


class ListPrefixIsDirectory(Sound, caught_by="S11"):
    """Adds a slash to the prefix."""

    def list(
        self, prefix: str = "", *, start_after: str = ""
    ) -> AsyncIterator[ObjectInfo]:
        folder = prefix if not prefix or prefix.endswith("/") else f"{prefix}/"
        return self.inner.list(folder, start_after=start_after)


class ListAfterInclusive(Sound, caught_by="S14"):
    """Lists the key that it should start after."""

    async def list(
        self, prefix: str = "", *, start_after: str = ""
    ) -> AsyncIterator[ObjectInfo]:
        if (
            start_after.startswith(prefix)
            and start_after
            and await self.has(start_after)
        ):
            yield await self.inner.head(start_after)
        async for info in self.inner.list(prefix, start_after=start_after):
            yield info


class ListStale(Sound, caught_by="S15"):
    """Each listing shows what was there at the listing before."""

    def __init__(self) -> None:
        super().__init__()
        self.before: list[ObjectInfo] = []

    async def list(
        self, prefix: str = "", *, start_after: str = ""
    ) -> AsyncIterator[ObjectInfo]:
        shown, self.before = self.before, [info async for info in self.inner.list()]
        for info in shown:
            if info.key.startswith(prefix) and info.key > start_after:
                yield info


class ListByOffset(Sound, caught_by="S16"):
    """Counts pages from the start, so that what was deleted moves the rest."""

    async def list(
        self, prefix: str = "", *, start_after: str = ""
    ) -> AsyncIterator[ObjectInfo]:
        offset = 0
        while True:
            found = self.inner.list(prefix, start_after=start_after)
            infos = [info async for info in found][offset : offset + 10]
            offset += 10
            for info in infos:
                yield info
            if not infos:
                return
