"""Objects as files in a directory tree: what `wren.storage.local` does in threads.

`wren.storage.names` says where an object lies and `wren.files` how it gets there. Every
path is walked from the root one directory at a time, relative to the descriptor of the
one above and without following symbolic links, so a link planted below the root leads
nowhere. That costs a system call for each segment of a key, a few microseconds in all.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from operator import itemgetter
from typing import Final

from wren import files
from wren.errors import ConfigurationError
from wren.protocols import Buffer, ObjectInfo
from wren.storage import names
from wren.storage.keys import check_key

_OPEN_TO_OTHERS: Final = 0o077


@dataclass(frozen=True, slots=True)
class _Folder:
    """A directory of the tree: the way there, and what the keys in it begin with."""

    path: tuple[str, ...]
    prefix: str


class Tree:
    """Blocking operations on the objects below one directory.

    Keys are taken to be checked. Everything raises `OSError`, and `ConfigurationError`
    if the root is not safe.
    """

    def __init__(self, root: str) -> None:
        """Describe a tree; ``root`` is absolute and need not exist."""
        self._root = root

    def check(self) -> None:
        """Create the root if it is missing, and refuse one that is not safe.

        Raises:
            ConfigurationError: It is a symbolic link, belongs to somebody else, or is
                not closed to others.
        """
        os.close(self._open((), create=True))

    def read(self, key: str, start: int, stop: int | None) -> bytes:
        """Return the bytes in ``[start, stop)``."""
        *path, name = names.object_path(key)
        folder = self._open(path)
        try:
            descriptor = files.open_object(name, folder)
        finally:
            os.close(folder)
        try:
            return files.read(descriptor, start, stop)
        finally:
            os.close(descriptor)

    def write(
        self, key: str, data: Buffer, if_absent: bool, between: Callable[[], object]
    ) -> bool:
        """Write one object; see `wren.files.write`."""
        *path, name = names.object_path(key)
        return files.write(
            partial(self._open, path, create=True),
            name,
            (data,),
            if_absent=if_absent,
            between=between,
        )

    def describe(self, key: str) -> ObjectInfo:
        """Describe one object."""
        *path, name = names.object_path(key)
        folder = self._open(path)
        try:
            descriptor = files.open_object(name, folder)
        finally:
            os.close(folder)
        try:
            return _info(key, os.fstat(descriptor))
        finally:
            os.close(descriptor)

    def delete(self, keys: Iterable[str], between: Callable[[], object]) -> None:
        """Remove objects, and the directories that are empty without them.

        Args:
            keys: The objects. One that is not there is no error.
            between: Called before each is removed; it may raise to stop.
        """
        folders: set[tuple[str, ...]] = set()
        for key in keys:
            between()
            *path, name = names.object_path(key)
            with suppress(FileNotFoundError):
                self._unlink(path, name)
                folders.add(tuple(path))
        for folder in sorted(folders, key=len, reverse=True):
            with suppress(FileNotFoundError):  # pruned along with another
                self._prune(folder)

    def walk(self, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
        """Yield objects in the order of their keys; a directory is read when it is due.

        Temporary files that a dead writer left behind are removed when they are seen.
        Python orders text by code points, which is the order of UTF-8's bytes.
        """
        above = prefix.rpartition("/")[0]
        try:
            path = names.directory_path(check_key(above)) if above else []
        except ValueError:  # no key begins like this
            return
        pending: list[ObjectInfo | _Folder]
        pending = [_Folder(tuple(path), above and f"{above}/")]
        while pending:
            entry = pending.pop()
            if isinstance(entry, ObjectInfo):
                yield entry
                continue
            found = sorted(self._scan(entry, prefix, start_after), key=itemgetter(0))
            pending += map(itemgetter(1), reversed(found))

    def _scan(
        self, folder: _Folder, prefix: str, start_after: str
    ) -> Iterator[tuple[str, ObjectInfo | _Folder]]:
        """Yield what is asked for in one directory, each with its place in the order.

        That is an object's key, or what all keys in a directory begin with.
        """
        for name, path, entry in self._entries(folder.path):
            segment = names.decode(name.removesuffix(names.OBJECT))
            if segment is None:
                continue
            key = folder.prefix + segment
            if not name.endswith(names.OBJECT):
                key += "/"
                related = key.startswith(prefix) or prefix.startswith(key)
                later = key > start_after or start_after.startswith(key)
                if related and later and entry.is_dir(follow_symlinks=False):
                    yield key, _Folder(path, key)
            elif key.startswith(prefix) and key > start_after:
                with suppress(FileNotFoundError):  # deleted since
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        yield key, _info(key, status)

    def _entries(
        self, path: tuple[str, ...], stem: str = ""
    ) -> Iterator[tuple[str, tuple[str, ...], os.DirEntry[str]]]:
        """Yield the names in a directory, the paths to them and their entries.

        A directory in which long names go on counts as part of this one: its names are
        joined to their beginning, ``stem``.
        """
        try:
            descriptor = self._open(path)
        except FileNotFoundError:
            return
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    below = (*path, entry.name)
                    name = stem + entry.name
                    if entry.name.startswith(files.TEMPORARY):
                        _sweep(entry, descriptor)
                    elif not entry.name.endswith(names.CONTINUED):
                        yield name, below, entry
                    elif entry.is_dir(follow_symlinks=False):
                        stem_below = name.removesuffix(names.CONTINUED)
                        yield from self._entries(below, stem_below)
        finally:
            os.close(descriptor)

    def _open(self, path: Sequence[str], *, create: bool = False) -> int:
        """Return a descriptor of a directory; ``path`` leads there from the root."""
        descriptor = self._open_root(create=create)
        for name in path:
            parent = descriptor
            try:
                descriptor = files.open_directory(name, parent, create=create)
            finally:
                os.close(parent)
        return descriptor

    def _open_root(self, *, create: bool) -> int:
        try:
            descriptor = files.open_directory(self._root, create=create)
        except (NotADirectoryError, PermissionError) as exc:
            raise ConfigurationError(
                f"{self._root} must be a directory (no symbolic link) of your own that"
                f" is closed to others (chmod 700): {exc.strerror}"
            ) from exc
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            fault = "belongs to another user; use one of your own, closed to others"
        elif status.st_mode & _OPEN_TO_OTHERS:
            fault = "is open to other users"
        else:
            return descriptor
        os.close(descriptor)
        raise ConfigurationError(f"{self._root} {fault}: chmod 700 {self._root}")

    def _unlink(self, path: Sequence[str], name: str) -> None:
        folder = self._open(path)
        try:
            os.unlink(name, dir_fd=folder)
        finally:
            os.close(folder)

    def _prune(self, path: Sequence[str]) -> None:
        """Remove a directory if it is empty, then the one above, and so on.

        A writer that needs one of them meanwhile makes it again.
        """
        folder = self._open(path[:-1])
        try:
            with suppress(OSError):  # not empty, or somebody else was quicker
                for depth in reversed(range(len(path))):
                    os.rmdir(path[depth], dir_fd=folder)
                    if depth:
                        below, folder = folder, files.open_directory("..", folder)
                        os.close(below)
        finally:
            os.close(folder)


def _sweep(entry: os.DirEntry[str], folder: int) -> None:
    """Remove a temporary file if its writer is gone, as far as its age can tell.

    A writer that only slept finds its file missing and begins again.
    """
    with suppress(FileNotFoundError):
        if entry.stat(follow_symlinks=False).st_mtime < time.time() - files.STALE_AFTER:
            os.unlink(entry.name, dir_fd=folder)


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        size=status.st_size,
        modified=datetime.fromtimestamp(status.st_mtime, UTC),
        etag=files.etag(status),
    )
