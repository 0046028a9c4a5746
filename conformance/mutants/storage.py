"""Broken stores."""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import ClassVar, Literal

import anyio
from anyio.lowlevel import checkpoint

from wren.errors import (
    KeyExistsError,
    KeyNotFoundError,
    TransientError,
    UnsupportedError,
)
from wren.protocols import Buffer, Grant, ObjectInfo, Storage, StorageCapabilities
from wren.storage.keys import check_key, check_keys
from wren.storage.memory import MemoryStorage

MUTANTS: list[type[Sound]] = []


class Sound(Storage):
    """Passes everything on, unchanged, to a store that passes the suite."""

    caught_by: ClassVar[tuple[str, ...]] = ()
    """Identities of the checks of which at least one must fail."""

    def __init_subclass__(cls, caught_by: str) -> None:
        cls.caught_by = tuple(caught_by.split())
        MUTANTS.append(cls)

    def __init__(self) -> None:
        self.inner = MemoryStorage()

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

    async def has(self, key: str) -> bool:
        """Say whether there is an object."""
        try:
            await self.inner.head(key)
        except KeyNotFoundError:
            return False
        return True


# --- puts -------------------------------------------------------------------------


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


# --- gets and heads ---------------------------------------------------------------


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


# --- deletes ----------------------------------------------------------------------


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


# --- listings ---------------------------------------------------------------------


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


# --- keys -------------------------------------------------------------------------


class KeyCaseFolded(Sound, caught_by="S20"):
    """Is a file system that does not tell upper case from lower."""

    def change(self, key: str) -> str:
        """Return the key under which an object is kept."""
        return key.lower()

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        return await self.inner.get(self.change(key), start=start, stop=stop)

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        await self.inner.put(self.change(key), data, if_absent=if_absent)


class KeyUnicodeNFC(KeyCaseFolded, caught_by="S20"):
    """Composes accents."""

    def change(self, key: str) -> str:
        return unicodedata.normalize("NFC", key)


class KeyUnquoted(KeyCaseFolded, caught_by="S20"):
    """Takes what looks like an escape in a URL for one."""

    def change(self, key: str) -> str:
        return key.replace("%2F", "/").replace("+", " ")


class DotDotAccepted(KeyCaseFolded, caught_by="S21"):
    """Lets a path decide what a key may be."""

    def change(self, key: str) -> str:
        return key.replace("../", "up/")


class LongKeyCut(KeyCaseFolded, caught_by="S22"):
    """Fits keys into a file name."""

    def change(self, key: str) -> str:
        return key[:255]


# --- concurrency ------------------------------------------------------------------


class ShieldsCancel(Sound, caught_by="S31"):
    """Is deaf to cancellation."""

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        data = b""
        with anyio.CancelScope(shield=True):
            data = await self.inner.get(key, start=start, stop=stop)
        return data  # noqa: RET504  # type checkers believe that the scope swallows

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        with anyio.CancelScope(shield=True):
            await self.inner.put(key, data, if_absent=if_absent)


class LeaksOnGetCancel(Sound, caught_by="S31"):
    """Has 32 connections and loses one with each get that is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.free = 32

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        if not self.free:
            raise TransientError("no connection is free", key=key)
        self.free -= 1
        for _ in range(20):  # as many turns as a network may take
            await checkpoint()
        data = await self.inner.get(key, start=start, stop=stop)
        self.free += 1
        return data


class CancelledPutIsTorn(Sound, caught_by="S32 S45"):
    """Writes in place, piece by piece."""

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        view = memoryview(data)
        if len(view) < 2 or if_absent:
            await self.inner.put(key, data, if_absent=if_absent)
            return
        await self.inner.put(key, view[: len(view) // 2])
        await checkpoint()
        await self.inner.put(key, data)


class BlocksEventLoop(Sound, caught_by="S33"):
    """Is a synchronous client behind an async name."""

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        time.sleep(len(data) * 1e-9)  # noqa: ASYNC251  # the fault
        put = self.inner.put(key, data, if_absent=if_absent)
        try:
            while True:  # to its end, without giving way
                put.send(None)
        except StopIteration:
            return


class NotConcurrent(Sound, caught_by="S33"):
    """Breaks when two tasks read at once."""

    def __init__(self) -> None:
        super().__init__()
        self.busy = False

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        if self.busy:
            raise RuntimeError("read() called while another coroutine is waiting")
        self.busy = True
        try:
            await checkpoint()
            return await self.inner.get(key, start=start, stop=stop)
        finally:
            self.busy = False


class WorksAfterClose(Sound, caught_by="S34"):
    """Opens a new connection for whoever asks."""

    async def aclose(self) -> None:
        """Keep everything."""


class LeaksDescriptors(Sound, caught_by="S34"):
    """Leaves something open behind each put."""

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        await self.inner.put(key, data, if_absent=if_absent)
        os.open(os.devnull, os.O_RDONLY)


# --- capabilities and grants ------------------------------------------------------


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
