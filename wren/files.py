"""Files that appear whole or not at all, and are open to nobody but this user.

Used by the stores that keep objects in files, and by the worker, which writes such a
file itself when its grant is a path. Needs the standard library only.

A file is written under a temporary name in the directory where it will stay, and then
linked or renamed to its own name, each of which the file system does in one step. When
the writer dies before that step, the object does not exist; the temporary file that it
leaves has a name that is no object's, and is removed by age. Nothing is flushed to the
device: the guarantee covers the death of processes, not of the machine.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

from wren.errors import (
    KeyNotFoundError,
    StorageError,
    TransientError,
    UnsupportedError,
)

Buffer: TypeAlias = bytes | bytearray | memoryview

TEMPORARY: Final = ".wren-"
"""How the names of temporary files begin."""

STALE_AFTER: Final = 3600.0
"""Seconds without a write after which a temporary file counts as left behind."""

_PIECE: Final = 16 * 1024 * 1024
_LARGEST_READ: Final = 1024 * 1024 * 1024  # the kernel returns less than 2 GiB a call
_TRIES: Final = 100

_TEMPORARY_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# Without O_NONBLOCK, opening a FIFO that somebody put there would never return.
_OBJECT_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK

_KINDS: Final[dict[int | None, type[StorageError]]] = {
    errno.ENOENT: KeyNotFoundError,
    errno.EAGAIN: TransientError,
    errno.EMFILE: TransientError,
    errno.ENFILE: TransientError,
    errno.ENOMEM: TransientError,
    errno.ENOSYS: UnsupportedError,
    errno.EOPNOTSUPP: UnsupportedError,
}


def classify(exc: Exception) -> type[StorageError]:
    """Choose wren's class for an `OSError`; see `wren.errors.translate`."""
    return _KINDS.get(getattr(exc, "errno", None), StorageError)


def open_directory(
    name: str, parent: int | None = None, *, create: bool = False
) -> int:
    """Return a descriptor of a directory; a symbolic link is refused, not followed.

    Args:
        name: A path, or with ``parent`` a name in that directory.
        parent: Descriptor of the directory above.
        create: Make it if it is missing, mode 0700, and likewise those above it.
    """
    try:
        return os.open(name, _DIRECTORY_FLAGS, dir_fd=parent)
    except FileNotFoundError:
        if not create:
            raise
    _make_directory(name, parent)
    return os.open(name, _DIRECTORY_FLAGS, dir_fd=parent)


def _make_directory(name: str, parent: int | None) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:  # another writer made it
        return
    except FileNotFoundError:
        if parent is not None:
            raise
        _make_directory(name.rpartition("/")[0] or "/", None)
        _make_directory(name, None)
        return
    os.chmod(name, 0o700, dir_fd=parent)  # the umask may have taken something away


def write(
    open_parent: Callable[[], int],
    name: str,
    parts: Sequence[Buffer],
    *,
    if_absent: bool,
    between: Callable[[], object] = lambda: None,
) -> bool:
    """Write a file, mode 0600, in one step as seen by others.

    Args:
        open_parent: Returns a new descriptor of the directory, which it makes if need
            be. It is called again when somebody removed the directory meanwhile.
        name: The file's name in that directory.
        parts: The content, one after the other. They are not copied.
        if_absent: Write only when there is no file of this name. The file system
            decides, so exactly one of any number of processes succeeds.
        between: Called before each piece of at most 16 MiB is written, and before the
            last step. If it raises, nothing was written.

    Returns:
        False if there already was a file and ``if_absent``.
    """
    for _ in range(_TRIES):
        try:
            directory = open_parent()
            try:
                return _write(directory, name, parts, if_absent, between)
            finally:
                os.close(directory)
        except FileNotFoundError:
            # Whoever deletes the last object of a directory removes the directory too.
            # Once the temporary file is in it, it stays.
            continue
    raise StorageError(f"the directory of {name} is removed each time it is made")


def _write(
    directory: int,
    name: str,
    parts: Sequence[Buffer],
    if_absent: bool,
    between: Callable[[], object],
) -> bool:
    temporary = f"{TEMPORARY}{os.urandom(8).hex()}"
    descriptor = os.open(temporary, _TEMPORARY_FLAGS, 0o600, dir_fd=directory)
    try:
        try:
            _fill(descriptor, parts, between)
        finally:
            os.close(descriptor)
        between()
        if not if_absent:
            os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            return True
        try:
            os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        except FileExistsError:
            return False
        return True
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)


def _fill(
    descriptor: int, parts: Sequence[Buffer], between: Callable[[], object]
) -> None:
    os.fchmod(descriptor, 0o600)
    for part in parts:
        with memoryview(part) as view:  # the caller may resize its buffer afterwards
            done = 0
            while done < len(view):
                between()
                done += os.write(descriptor, view[done : done + _PIECE])
    # The kernel's own stamp has the resolution of its clock tick. Within a tick the
    # inode's number can come back, and `etag` would be the same for other content.
    now = time.time_ns()
    os.utime(descriptor, ns=(now, now))


def etag(status: os.stat_result) -> str:
    """Return what differs whenever the content of a file made by `write` differs."""
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def open_object(name: str, directory: int | None = None) -> int:
    """Return a descriptor to read a regular file; a symbolic link is not followed."""
    descriptor = os.open(name, _OBJECT_FLAGS, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", name)
    return descriptor


def read(descriptor: int, start: int = 0, stop: int | None = None) -> bytes:
    """Return the bytes in ``[start, stop)``, as far as the file has them."""
    size = os.fstat(descriptor).st_size
    stop = size if stop is None else min(stop, size)
    pieces: list[bytes] = []
    while start < stop:
        piece = os.pread(descriptor, min(stop - start, _LARGEST_READ), start)
        if not piece:
            break
        pieces.append(piece)
        start += len(piece)
    return b"".join(pieces)  # does not copy if there is only one


def map_private(descriptor: int) -> memoryview:
    """Return a file's content as writable memory whose changes nobody else sees.

    Pages are read when they are first touched and copied when they are first changed.
    """
    import mmap

    size = os.fstat(descriptor).st_size
    if size == 0:  # which mmap refuses
        return memoryview(bytearray())
    return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY))
