"""The private directory of one driver, and the removal of those that were left behind.

It holds the modules that workers received and what did not fit into a message. The
zygote removes it when the driver ends in whatever way; only if both are killed at once
does it stay, and then nobody holds its lock any more, by which `sweep` knows it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path
from typing import Final

_PREFIX: Final = "wren-"
_LOCK: Final = "lock"
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108  # a file system in memory
_ROOM: Final = 1 << 30
"""Bytes that must be free in shared memory to use it; containers often have 64 MB."""


class Session:
    """A directory of mode 0700, locked as long as this object is open."""

    def __init__(self) -> None:
        self.path = _parent() / f"{_PREFIX}{os.urandom(8).hex()}"
        self.path.mkdir(0o700)
        unlocked = self.path / f"{_LOCK}.new"  # by which `sweep` does not go
        self._lock = os.open(unlocked, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unlocked.rename(self.path / _LOCK)
        (self.path / "modules").mkdir(0o700)

    def close(self) -> None:
        """Remove the directory. Idempotent."""
        if self._lock >= 0:
            if self.path.exists():  # the zygote was killed
                _remove(self.path)
            os.close(self._lock)
            self._lock = -1


def sweep(*, dry_run: bool = False) -> list[Path]:
    """Remove this user's session directories that no living driver holds.

    Args:
        dry_run: Only say which.

    Returns:
        The directories that were, or would be, removed.
    """
    found: list[Path] = []
    for parent in {_SHARED_MEMORY, _temporary()}:
        for path in sorted(parent.glob(f"{_PREFIX}*/{_LOCK}")):
            if _abandoned(path):
                found.append(path.parent)
                if not dry_run:
                    _remove(path.parent)
    return found


def _parent() -> Path:
    with contextlib.suppress(OSError):
        state = os.statvfs(_SHARED_MEMORY)
        if state.f_bavail * state.f_frsize >= _ROOM and os.access(
            _SHARED_MEMORY, os.W_OK
        ):
            return _SHARED_MEMORY
    return _temporary()


# shutil and tempfile are loaded when they are needed, which is seldom.


def _temporary() -> Path:
    import tempfile

    return Path(tempfile.gettempdir())


def _remove(path: Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)


def _abandoned(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        about = os.fstat(descriptor)
        if about.st_uid != os.getuid() or not stat.S_ISREG(about.st_mode):
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # its driver lives
        return False
    finally:
        os.close(descriptor)
    return True
