"""Stores that write, or delete, something else than they should."""

from __future__ import annotations

from collections.abc import Iterable

from anyio.lowlevel import checkpoint

from wren.conformance.mutants.sound_storage import Sound
from wren.errors import KeyExistsError
from wren.protocols import Buffer
from wren.storage.keys import check_key, check_keys


class PutIfAbsentNotAtomic(Sound, caught_by="S25 S26"):
    """Looks first and writes later."""

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        if if_absent and await self.has(key):
            raise KeyExistsError(key=key)
        await checkpoint()
        await self.inner.put(key, data)


class IfAbsentIgnored(Sound, caught_by="S24"):
    """Accepts the condition and overwrites."""

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        await self.inner.put(key, data)


class TornWrite(Sound, caught_by="S29"):
    """Lets readers see half of a large object while it is written."""

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        if len(data) > 4096 and not if_absent:
            await self.inner.put(key, memoryview(data)[: len(data) // 2])
            await checkpoint()
        await self.inner.put(key, data, if_absent=if_absent)


class TextModeNewlines(Sound, caught_by="S03"):
    """Writes in text mode."""

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        text = bytes(data).replace(b"\r\n", b"\n")
        await self.inner.put(key, text, if_absent=if_absent)


class EmptyBodyDropped(Sound, caught_by="S02"):
    """Takes an empty body for no body."""

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        if data or check_key(key) != key:
            await self.inner.put(key, data, if_absent=if_absent)


class AliasesCallerBuffer(Sound, caught_by="S35"):
    """Writes the caller's buffer after the call has returned."""

    def __init__(self) -> None:
        super().__init__()
        self.late: dict[str, Buffer] = {}

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        await self.inner.put(key, data, if_absent=if_absent)
        self.late[key] = data

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        if key in self.late:
            await self.inner.put(key, self.late.pop(key))
        return await self.inner.get(key, start=start, stop=stop)


class LargeTruncated(Sound, caught_by="S04"):
    """Stores only the first part of a large object."""

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        first = memoryview(data)[: 8 << 20]
        await self.inner.put(key, first, if_absent=if_absent)


class PutReturnsBeforeVisible(Sound, caught_by="S01 S07"):
    """Answers a put before the object can be read."""

    def __init__(self) -> None:
        super().__init__()
        self.late: dict[str, bytes] = {}

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        if if_absent and await self.has(key):
            raise KeyExistsError(key=key)
        self.late[check_key(key)] = bytes(data)

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        try:
            return await self.inner.get(key, start=start, stop=stop)
        finally:
            if key in self.late:
                await self.inner.put(key, self.late.pop(key))


class AnswersAboutAnother(Sound, caught_by="S24 S25"):
    """Gives a conditional put that lost the answer of the one that won."""

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        try:
            await self.inner.put(key, data, if_absent=if_absent)
        except KeyExistsError:
            return


class DeleteMissingRaises(Sound, caught_by="S08"):
    """Is not idempotent."""

    async def delete(self, keys: Iterable[str]) -> None:
        wanted = check_keys(keys)
        for key in wanted:
            await self.inner.head(key)
        await self.inner.delete(wanted)


class DeleteIsPrefixDelete(Sound, caught_by="S09"):
    """Takes a key for a folder."""

    async def delete(self, keys: Iterable[str]) -> None:
        wanted = check_keys(keys)
        below = [
            info.key for key in wanted async for info in self.inner.list(f"{key}/")
        ]
        await self.inner.delete([*wanted, *below])


class DeletesOnlyFirstThousand(Sound, caught_by="S43"):
    """Sends one batch and forgets the rest."""

    async def delete(self, keys: Iterable[str]) -> None:
        await self.inner.delete(check_keys(keys)[:1000])


class DeleteIteratesStr(Sound, caught_by="S42"):
    """Takes one key for a list of keys of one letter each."""

    async def delete(self, keys: Iterable[str]) -> None:
        await self.inner.delete([*keys])


class DeletesBeforeItChecks(Sound, caught_by="S21"):
    """Deletes up to the first bad key."""

    async def delete(self, keys: Iterable[str]) -> None:
        if isinstance(keys, str):
            raise TypeError(keys)
        for key in keys:
            await self.inner.delete([key])
