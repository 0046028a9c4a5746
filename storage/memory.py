"""Objects in this process's memory: the reference implementation of the contract."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import merge
from itertools import count, islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from anyio import Lock, to_thread
from anyio.lowlevel import checkpoint

from wren.errors import (
    ConfigurationError,
    KeyExistsError,
    KeyNotFoundError,
    StorageError,
)
from wren.protocols import Buffer, Grant, ObjectInfo, Storage, StorageCapabilities
from wren.storage.keys import check_key, check_keys, check_range
from wren.storage.local import FileStorage
from wren.storage.pages import Pages

if TYPE_CHECKING:
    from wren.config import Settings

_NAME: Final = "memory"
_PAGE: Final = 1000
_PIECE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Object:
    data: bytes
    modified: datetime
    version: int


class MemoryStorage(Storage):
    """A `Storage` that forgets everything when it is closed or the process ends.

    A grant is for another process, and between processes only the file system can
    decide who was first. So the first grant for a key moves that key to a private
    directory, for good: from then on this class is a front to `FileStorage` for it. The
    directory goes when the store does.
    """

    def __init__(self) -> None:
        self._objects: dict[str, _Object] = {}
        self._keys: list[str] = []  # of _objects, in order
        self._versions = count()
        self._files: FileStorage | None = None
        self._granted: set[str] = set()  # keys that are in _files and not in _objects
        self._granting = Lock()
        self._remove: Callable[[], object] | None = None  # the directory of _files
        self._closed = False

    @property
    def name(self) -> str:
        """See `Storage.name`."""
        return _NAME

    @property
    def capabilities(self) -> StorageCapabilities:
        """See `Storage.capabilities`."""
        return StorageCapabilities(private=True)

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """See `Storage.get`."""
        check_range(start, stop)
        files = await self._begin(check_key(key))
        if files is not None:
            return await files.get(key, start=start, stop=stop)
        return await _copy(self._find(key).data, start, stop)

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Storage.put`."""
        check_key(key)
        copy = await _copy(data)
        files = await self._begin(key)
        if files is not None:
            await files.put(key, copy, if_absent=if_absent)
            return
        # No await between the test and the write: that is what makes it atomic.
        if key not in self._objects:
            insort(self._keys, key)
        elif if_absent:
            raise KeyExistsError(store=_NAME, key=key)
        now = datetime.now(UTC)
        self._objects[key] = _Object(copy, now, next(self._versions))

    async def head(self, key: str) -> ObjectInfo:
        """See `Storage.head`."""
        files = await self._begin(check_key(key))
        if files is not None:
            return await files.head(key)
        return _info(key, self._find(key))

    async def delete(self, keys: Iterable[str]) -> None:
        """See `Storage.delete`."""
        checked = check_keys(keys)
        await self._begin()
        for key in checked:
            self._forget(key)
        if self._files is not None:
            await self._files.delete(key for key in checked if key in self._granted)

    def list(self, prefix: str = "", *, start_after: str = "") -> Pages:
        """See `Storage.list`. Shows the objects that there were when it began."""
        found: Iterator[ObjectInfo] | None = None

        async def read() -> tuple[ObjectInfo, ...]:
            nonlocal found
            await self._begin()
            if found is None:
                found = await self._search(prefix, start_after)
            return tuple(islice(found, _PAGE))

        return Pages(read)

    async def grant(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        *,
        expires_in: float,
        if_absent: bool = False,
    ) -> Grant:
        """See `Storage.grant`. Moves the object to a file."""
        files = await self._begin(check_key(key))
        if files is None:
            files = await self._move(key)
        return await files.grant(
            key, method, expires_in=expires_in, if_absent=if_absent
        )

    async def aclose(self) -> None:
        """See `Storage.aclose`. The objects are gone."""
        self._closed = True
        self._objects.clear()
        self._keys.clear()
        if self._remove is not None:
            await to_thread.run_sync(self._remove)

    async def _begin(self, key: str = "") -> FileStorage | None:
        """Let other tasks run, then return where ``key`` is, if it is not in memory."""
        await checkpoint()
        if self._closed:
            raise StorageError("the store is closed", store=_NAME)
        return self._files if key in self._granted else None

    def _find(self, key: str) -> _Object:
        try:
            return self._objects[key]
        except KeyError:
            raise KeyNotFoundError(store=_NAME, key=key) from None

    async def _search(self, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
        """Return what is stored now, in the order of the keys."""
        # Python orders text by code points, which is the order of UTF-8's bytes.
        first = bisect_left(self._keys, max(prefix, start_after))
        later = islice(self._keys, first, None)
        matching = takewhile(lambda key: key.startswith(prefix), later)
        here = {key: self._objects[key] for key in matching if key != start_after}
        there: dict[str, ObjectInfo] = {}
        if self._files is not None:
            # Second, because a key may move to the files meanwhile, but never back.
            async for info in self._files.list(prefix, start_after=start_after):
                if info.key in self._granted:
                    there[info.key] = info
        only_here = (key for key in here if key not in there)
        return (
            there[key] if key in there else _info(key, here[key])
            for key in merge(only_here, there)
        )

    def _forget(self, key: str) -> None:
        if self._objects.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]

    async def _move(self, key: str) -> FileStorage:
        """Make a file of the object, if there is one; leave the key to the files."""
        async with self._granting:
            if self._files is None:
                self._files = await to_thread.run_sync(self._make_files)
            while key not in self._granted:
                found = self._objects.get(key)
                if found is not None:
                    await self._files.put(key, found.data)
                else:  # a grant that was cancelled may have left one
                    await self._files.delete([key])
                # Otherwise it was written or deleted meanwhile: once more.
                if self._objects.get(key) is found:
                    self._forget(key)
                    self._granted.add(key)
        return self._files

    def _make_files(self) -> FileStorage:
        path = tempfile.mkdtemp(prefix="wren-")
        self._remove = weakref.finalize(self, _remove, path, os.getpid())
        return FileStorage(Path(path), private=True, name=_NAME)


def _remove(path: str, owner: int) -> None:
    # A forked child inherits the finalizer, but not the directory.
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)


def _info(key: str, found: _Object) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        size=len(found.data),
        modified=found.modified,
        etag=str(found.version),
    )


async def _copy(data: Buffer, start: int = 0, stop: int | None = None) -> bytes:
    """Return a range of ``data`` as bytes that nobody can change."""
    view = memoryview(data)[start:stop]
    if isinstance(data, bytes) and len(view) == len(data):
        return data
    if len(view) <= _PIECE:
        return bytes(view)
    return await to_thread.run_sync(_join, view)


def _join(view: memoryview) -> bytes:
    # Copying a piece holds the interpreter's lock for a moment; joining large pieces
    # releases it. One bytes(view) would hold up the event loop for all of its length.
    with view:  # the caller may resize its buffer afterwards
        starts = range(0, len(view), _PIECE)
        return b"".join([bytes(view[start : start + _PIECE]) for start in starts])


def open_storage(url: str, settings: Settings) -> MemoryStorage:
    """Open ``memory:``.

    Raises:
        ConfigurationError: The URL names a bucket or a prefix.
    """
    del settings  # there is nothing to set
    if url != "memory:":
        raise ConfigurationError(f"memory: takes no bucket and no prefix, got {url!r}")
    return MemoryStorage()
