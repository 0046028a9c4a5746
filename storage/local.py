"""Objects as files below one directory that belongs to this user alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from anyio import create_task_group, from_thread, to_thread

from wren import files
from wren.errors import (
    ConfigurationError,
    KeyExistsError,
    StorageError,
    WrenError,
    translate,
)
from wren.protocols import Buffer, Grant, ObjectInfo, Storage, StorageCapabilities
from wren.storage.keys import check_key, check_keys, check_range
from wren.storage.names import object_path
from wren.storage.pages import Pages
from wren.storage.tree import Tree

if TYPE_CHECKING:
    from wren.config import Settings

T = TypeVar("T")

_PAGE: Final = 1000


class FileStorage(Storage):
    """A `Storage` in a directory, shared by all processes of this user.

    The directory is created when it is first needed. One that exists must belong to
    this user and be closed to all others (mode 0700); each use checks that.

    Every call runs in a thread. Reading is left to its thread when it is cancelled,
    since nothing comes of it. A put or delete is not: the call ends when the thread has
    ended, which it does at the next piece of 16 MiB or at the next key. So a cancelled
    put is absent or whole, nothing happens after a call has returned, and the caller's
    buffer is free.

    A put survives the death of any process, but is not flushed to the device.
    """

    def __init__(
        self, root: Path, *, private: bool = False, name: str = "local"
    ) -> None:
        """Describe a store; nothing is read or created yet.

        Args:
            root: The directory.
            private: See `StorageCapabilities.private`.
            name: See `Storage.name`.
        """
        path = root.absolute()
        self._tree = Tree(str(path))
        self._url = path.as_uri()
        self._name = name
        self._capabilities = StorageCapabilities(private=private)
        self._checked = False
        self._closed = False

    @property
    def name(self) -> str:
        """See `Storage.name`."""
        return self._name

    @property
    def capabilities(self) -> StorageCapabilities:
        """See `Storage.capabilities`."""
        return self._capabilities

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """See `Storage.get`."""
        check_range(start, stop)
        check_key(key)
        return await self._look(partial(self._tree.read, key, start, stop), key)

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Storage.put`.

        Raises:
            StorageError: The disk is full, among other things; the message says so.
        """
        check_key(key)
        cancelled = from_thread.check_cancelled
        write = partial(self._tree.write, key, data, if_absent, cancelled)
        if not await self._change(write, key):
            raise KeyExistsError(store=self.name, key=key)

    async def head(self, key: str) -> ObjectInfo:
        """See `Storage.head`."""
        check_key(key)
        return await self._look(partial(self._tree.describe, key), key)

    async def delete(self, keys: Iterable[str]) -> None:
        """See `Storage.delete`. Directories left empty are removed."""
        checked = check_keys(keys)
        cancelled = from_thread.check_cancelled
        await self._change(partial(self._tree.delete, checked, cancelled))

    def list(self, prefix: str = "", *, start_after: str = "") -> Pages:
        """See `Storage.list`. Reads one directory at a time, when its turn comes."""
        found = self._tree.walk(prefix, start_after)
        return Pages(lambda: self._look(lambda: tuple(islice(found, _PAGE))))

    async def grant(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        *,
        expires_in: float,
        if_absent: bool = False,
    ) -> Grant:
        """See `Storage.grant`. The URL is a path; the holder keeps the condition."""
        path = "/".join(object_path(check_key(key)))
        if self._closed or not self._checked:
            await self._look(self._tree.check)
            self._checked = True
        return Grant(
            method=method,
            url=f"{self._url}/{path.replace('%', '%25')}",
            headers={"if-none-match": "*"} if if_absent else {},
            expires=time.time() + expires_in,
        )

    async def aclose(self) -> None:
        """See `Storage.aclose`. The objects stay."""
        self._closed = True

    async def _look(self, call: Callable[[], T], key: str = "") -> T:
        """Make a call that changes nothing."""
        self._check_open()
        with translate(files.classify, (OSError,), self.name, key):
            return await to_thread.run_sync(call, abandon_on_cancel=True)

    async def _change(self, call: Callable[[], T], key: str = "") -> T:
        """Make a call that must not go on after this one has ended."""
        self._check_open()
        outcomes: list[T | OSError | WrenError] = []

        def attempt() -> T | OSError | WrenError:
            try:
                return call()
            except (OSError, WrenError) as exc:
                return exc

        async def run() -> None:
            outcomes.append(await to_thread.run_sync(attempt))

        # A cancel scope waits for the thread; asyncio's own Task.cancel() does not,
        # unless it hits a task group, which turns it into the cancellation of a scope.
        async with create_task_group() as group:
            group.start_soon(run)
        (outcome,) = outcomes
        with translate(files.classify, (OSError,), self.name, key):
            if isinstance(outcome, (OSError, WrenError)):
                raise outcome
        return outcome

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError("the store is closed", store=self.name)


def open_storage(url: str, settings: Settings) -> FileStorage:
    """Open ``file:///directory``; no I/O happens yet.

    Raises:
        ConfigurationError: The URL names a host or a query, or no absolute directory.
    """
    del settings  # a directory needs nothing but its name
    parts = urlsplit(url)
    path = unquote(parts.path)
    if (
        parts.scheme != "file"
        or parts.netloc not in {"", "localhost"}
        or parts.query
        or parts.fragment
        or not path.startswith("/")
        or not path.strip("/")
        or "\0" in path
    ):
        raise ConfigurationError(f"expected file:///absolute/directory, got {url!r}")
    return FileStorage(Path(path))
