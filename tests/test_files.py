"""How files are written and read, one step below the stores and the grants."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path

import pytest

from wren import files
from wren.errors import (
    KeyNotFoundError,
    StorageError,
    TransientError,
    UnsupportedError,
)


def write(folder: Path, name: str, *parts: bytes, if_absent: bool = False) -> bool:
    """Write a file in a directory, which is made if it is missing."""
    open_parent = partial(files.open_directory, str(folder), create=True)
    return files.write(open_parent, name, parts, if_absent=if_absent)


def descriptors() -> list[str]:
    """Return what this process has open."""
    return sorted(path.name for path in Path("/dev/fd").iterdir())


def test_each_write_has_a_time_of_its_own(tmp_path: Path) -> None:
    """The kernel's clock may stand still for milliseconds, and inodes come back."""
    for number in range(100):
        write(tmp_path, f"f{number}", b"")

    times = {path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(times) == 100


def test_an_etag_tells_content_apart(tmp_path: Path) -> None:
    """It stays while the file does, and reading does not change it."""
    path = tmp_path / "f"
    write(tmp_path, "f", b"1")
    first = files.etag(path.stat())
    path.read_bytes()

    assert files.etag(path.stat()) == first
    write(tmp_path, "f", b"2")
    assert files.etag(path.stat()) != first


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    """At each of the moments at which it can be stopped from outside."""

    def stop(moments: list[int]) -> None:
        if not moments:
            raise InterruptedError
        moments.pop()

    open_parent = partial(files.open_directory, str(tmp_path))
    for moment in range(3):
        between = partial(stop, [0] * moment)
        with pytest.raises(InterruptedError):
            files.write(
                open_parent, "f", [b"1", b"2"], if_absent=False, between=between
            )

    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_always_vanishes_is_an_error(tmp_path: Path) -> None:
    """Not a loop without end."""
    tries: list[int] = []

    def open_vanished() -> int:
        tries.append(1)
        raise FileNotFoundError(errno.ENOENT, "gone")

    with pytest.raises(StorageError, match="removed each time"):
        files.write(open_vanished, "f", [b""], if_absent=False)

    assert len(tries) == 100
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_reads_of_any_size_are_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """The kernel returns less than 2 GiB at once."""
    monkeypatch.setattr(files, "_LARGEST_READ", limit)
    data = b"0123456789"
    write(tmp_path, "f", data)
    descriptor = files.open_object(str(tmp_path / "f"))

    try:
        for start in range(12):
            for stop in (None, *range(start, 13)):
                assert files.read(descriptor, start, stop) == data[start:stop]
    finally:
        os.close(descriptor)


def test_a_file_that_shrinks_ends_the_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody should shorten it, but whoever does must not make us wait for the rest."""
    monkeypatch.setattr(files, "_LARGEST_READ", 4)
    write(tmp_path, "f", b"0123456789")
    descriptor = files.open_object(str(tmp_path / "f"))
    read = os.pread

    def shrink(descriptor: int, length: int, start: int) -> bytes:
        piece = read(descriptor, length, start)
        os.truncate(tmp_path / "f", 4)
        return piece

    monkeypatch.setattr(os, "pread", shrink)
    try:
        assert files.read(descriptor) == b"0123"
    finally:
        os.close(descriptor)


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    """Whatever is wrong with the file or the directory."""
    write(tmp_path, "f", b"")
    os.mkfifo(tmp_path / "pipe")
    before = descriptors()

    for name in ("pipe", "absent", "."):
        with pytest.raises(OSError):  # noqa: PT011  # three different ones
            files.open_object(str(tmp_path / name))
    for name in ("f", "absent", "pipe"):
        with pytest.raises(OSError):  # noqa: PT011  # three different ones
            files.open_directory(str(tmp_path / name))
    assert not write(tmp_path, "f", b"", if_absent=True)

    assert descriptors() == before


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, KeyNotFoundError),
        (errno.EMFILE, TransientError),
        (errno.EOPNOTSUPP, UnsupportedError),
        (errno.ENOSPC, StorageError),
        (errno.EACCES, StorageError),
        (errno.EIO, StorageError),
    ],
    ids=lambda value: errno.errorcode[value] if isinstance(value, int) else None,
)
def test_an_error_is_classed_by_what_can_be_done(
    number: int, kind: type[StorageError]
) -> None:
    """Look elsewhere, try again, give up, or make room."""
    assert files.classify(OSError(number, os.strerror(number))) is kind
