"""A driver's private directory, and the removal of those that nobody holds any more."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from wren.backends.local import session
from wren.backends.local.session import Session, sweep


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Stand in for shared memory and for the directory of temporary files."""
    shared, temporary = tmp_path / "shm", tmp_path / "tmp"
    shared.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(session, "_SHARED_MEMORY", shared)
    monkeypatch.setattr(session, "_ROOM", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return shared, temporary


def abandon(name: str, parent: Path) -> Path:
    """Leave a directory behind, as a driver and a zygote do that are killed at once."""
    path = parent / f"wren-{name}"
    (path / "storage").mkdir(parents=True)
    (path / "storage" / "object").write_bytes(b"x" * 10)
    (path / "lock").touch()
    return path


def test_nobody_else_can_look_into_it(places: tuple[Path, Path]) -> None:
    """It holds what tasks are sent and what they import, whatever the umask."""
    umask = os.umask(0)
    try:
        one = Session()
    finally:
        os.umask(umask)

    assert one.path.parent == places[0]
    for path in (one.path, one.path / "modules"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((one.path / "lock").stat().st_mode) == 0o600
    one.close()


def test_its_name_cannot_be_foreseen() -> None:
    """Else another user could make it first, in a directory that all can write to."""
    one, other = Session(), Session()

    assert one.path != other.path
    one.close()
    other.close()


def test_closing_removes_it_and_may_be_repeated(
    own_descriptors: Callable[[], int],
) -> None:
    """With all that is in it, and without a descriptor left."""
    before = own_descriptors()
    one = Session()
    (one.path / "modules" / "file").write_text("x")

    one.close()
    one.close()

    assert not one.path.exists()
    assert own_descriptors() == before


@pytest.mark.parametrize("lack", ["room", "directory", "permission"])
def test_it_is_a_temporary_directory_where_shared_memory_is_no_good(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, lack: str
) -> None:
    """Containers often have 64 MB of it, and some systems none."""
    shared, temporary = places

    def refuse(path: Path, mode: int) -> bool:
        return not (path == shared and mode == os.W_OK)

    if lack == "room":
        monkeypatch.setattr(session, "_ROOM", 1 << 62)
    elif lack == "directory":
        shared.rmdir()
    else:
        monkeypatch.setattr(os, "access", refuse)

    one = Session()

    assert one.path.parent == temporary
    one.close()


def test_sweep_removes_what_nobody_holds(places: tuple[Path, Path]) -> None:
    """In both places, with everything that is inside."""
    left = [abandon("a", places[0]), abandon("b", places[1])]

    assert sorted(sweep()) == sorted(left)
    assert not any(path.exists() for path in left)
    assert sweep() == []


def test_sweep_leaves_a_living_drivers_directory_alone() -> None:
    """Its lock is held as long as it lives."""
    one = Session()

    assert sweep() == []
    assert one.path.is_dir()
    one.close()


def test_sweep_leaves_alone_what_is_just_being_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another program may sweep in the instant before the lock is taken."""
    lock = fcntl.flock
    swept: list[Path] = []

    def sweep_first(descriptor: int, operation: int) -> None:
        patch.undo()
        swept.extend(sweep())
        lock(descriptor, operation)

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", sweep_first)
        one = Session()

    assert swept == []
    assert sweep() == []
    one.close()


def test_a_dry_run_removes_nothing(places: tuple[Path, Path]) -> None:
    """It only says what it would remove."""
    left = abandon("a", places[0])

    assert sweep(dry_run=True) == [left]
    assert left.is_dir()


def test_sweep_does_not_follow_a_link(places: tuple[Path, Path]) -> None:
    """In a directory that all can write to, a lock may be somebody's trap."""
    victim = places[1] / "victim"
    victim.touch()
    trap = places[0] / "wren-trap"
    trap.mkdir()
    (trap / "lock").symlink_to(victim)

    assert sweep() == []
    assert trap.is_dir()


def test_sweep_takes_no_other_file_for_a_lock(places: tuple[Path, Path]) -> None:
    """Nor a directory of that name, and it does not wait for a pipe's writer."""
    (places[0] / "wren-a" / "lock").mkdir(parents=True)
    (places[0] / "wren-b").mkdir()
    os.mkfifo(places[0] / "wren-b" / "lock")
    (places[0] / "wren-c").mkdir()

    assert sweep() == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_sweep_touches_nobody_elses_directory(places: tuple[Path, Path]) -> None:
    """root may, but it is not root's business either."""
    left = abandon("a", places[0])
    os.chown(left / "lock", 12345, 12345)

    assert sweep() == []
    assert left.is_dir()


def test_the_lock_is_the_kernels() -> None:
    """It goes with the process that held it, in whatever way that ends."""
    one = Session()
    descriptor = os.open(one.path / "lock", os.O_RDWR)

    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    one.close()
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
