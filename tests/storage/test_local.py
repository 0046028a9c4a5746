"""The file store beyond the contract: other processes, crashes, other users."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from wren import files, grants
from wren.config import Settings
from wren.errors import (
    ConfigurationError,
    KeyExistsError,
    KeyNotFoundError,
    StorageError,
    UnsupportedError,
)
from wren.protocols import Storage
from wren.storage.local import FileStorage, open_storage

HOURS = 3600.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the store is; does not exist yet."""
    return tmp_path / "above" / "root"


@pytest.fixture
async def store(root: Path) -> AsyncIterator[FileStorage]:
    store = FileStorage(root)
    yield store
    await store.aclose()


async def keys(store: Storage, prefix: str = "", **options: str) -> list[str]:
    """Return the listed keys in the order given."""
    return [info.key async for info in store.list(prefix, **options)]


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start another process."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def inside(folder: Path) -> list[str]:
    """Return the names in a directory."""
    return sorted(path.name for path in folder.iterdir())


def modes(folder: Path) -> dict[str, int]:
    """Return the mode of a directory and of everything below it."""
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
        for path in (folder, *folder.rglob("*"))
    }


def make(folder: Path, mode: int) -> None:
    """Create a directory with exactly this mode."""
    folder.mkdir(parents=True)
    folder.chmod(mode)


def temporaries(root: Path) -> list[Path]:
    """Return the temporary files below a directory."""
    return [path for path in root.rglob(f"{files.TEMPORARY}*") if path.is_file()]


# --- opening ------------------------------------------------------------------------


def test_a_url_names_an_absolute_directory(tmp_path: Path) -> None:
    """Opening creates nothing; what a URL escapes is unescaped."""
    store = open_storage(f"file://{tmp_path}/sp%20ace", Settings())

    assert isinstance(store, FileStorage)
    assert not store.capabilities.private
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        *("file:", "file://", "file:///", "file:relative", "file://host/dir"),
        *("file:///d?x=1", "file:///d#x", "file:///d%00", "s3://bucket", "/dir"),
    ],
)
def test_any_other_url_is_refused(url: str) -> None:
    """With what was expected, and what was given."""
    with pytest.raises(ConfigurationError, match="expected file:///") as caught:
        open_storage(url, Settings())

    assert repr(url) in str(caught.value)


@pytest.mark.anyio
async def test_a_url_s_directory_is_used(tmp_path: Path) -> None:
    """And is where another store with the same URL finds the objects."""
    url = f"{(tmp_path / 'é %41').as_uri()}"

    await open_storage(url, Settings()).put("k", b"v")

    assert await open_storage(url, Settings()).get("k") == b"v"
    assert inside(tmp_path) == ["é %41"]


def test_a_relative_root_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that changes its directory does not lose its store."""
    monkeypatch.chdir(tmp_path)
    store = FileStorage(Path("here"), private=True)
    monkeypatch.chdir("/")

    anyio.run(store.put, "k", b"v")

    assert (tmp_path / "here").is_dir()
    assert store.capabilities.private


# --- who may look in ----------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
@pytest.mark.anyio
async def test_modes_do_not_depend_on_the_umask(
    store: FileStorage, root: Path, umask: int
) -> None:
    """Directories 0700 and files 0600, made here or by the holder of a grant."""
    before = os.umask(umask)
    try:
        await store.put("a/b/c", b"")
        grant = await store.grant("x/y/z", "PUT", expires_in=60)
        await anyio.to_thread.run_sync(grants.store, grants.to_json(grant), [b""])
    finally:
        os.umask(before)

    found = modes(root.parent)
    assert len(found) == 8
    for name, mode in found.items():
        assert mode == (0o600 if name.endswith("=") else 0o700), name


@pytest.mark.parametrize("mode", [0o777, 0o755, 0o750, 0o701, 0o720])
@pytest.mark.anyio
async def test_a_root_open_to_others_is_refused(root: Path, mode: int) -> None:
    """By each method, with the command that mends it."""
    make(root, mode)
    store = FileStorage(root)

    for call in (
        lambda: store.get("k"),
        lambda: store.put("k", b""),
        lambda: store.head("k"),
        lambda: store.delete(["k"]),
        lambda: store.grant("k", "PUT", expires_in=60),
        lambda: keys(store),
    ):
        with pytest.raises(ConfigurationError, match=f"chmod 700 {root}"):
            await call()
    assert inside(root) == []


@pytest.mark.anyio
async def test_another_users_root_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner could replace anything in it, whatever its mode."""
    make(root, 0o700)
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)

    with pytest.raises(ConfigurationError, match="another user"):
        await FileStorage(root).put("k", b"")

    assert inside(root) == []


@pytest.mark.anyio
async def test_a_root_that_is_a_link_or_a_file_is_refused(tmp_path: Path) -> None:
    """Somebody else may have planted it, in a directory that all can write to."""
    target = tmp_path / "target"
    make(target, 0o700)
    link = tmp_path / "link"
    link.symlink_to(target)
    file = tmp_path / "file"
    file.touch(0o600)

    for path in (link, file):
        with pytest.raises(ConfigurationError, match="chmod 700"):
            await FileStorage(path).put("k", b"")

    assert inside(target) == []


@pytest.mark.anyio
async def test_a_planted_link_to_a_directory_is_not_followed(
    store: FileStorage, root: Path, tmp_path: Path
) -> None:
    """Not to read, to write, to delete or to list."""
    outside = tmp_path / "outside"
    await FileStorage(outside).put("secret", b"x")
    await store.put("real", b"")
    (root / "sub").symlink_to(outside)

    for call in (
        lambda: store.get("sub/secret"),
        lambda: store.head("sub/secret"),
        lambda: store.put("sub/secret", b"y"),
        lambda: store.put("sub/new", b"y", if_absent=True),
        lambda: store.delete(["sub/secret"]),
        lambda: keys(store, "sub/"),
    ):
        with pytest.raises(StorageError, match="Not a directory"):
            await call()
    reading = await store.grant("sub/secret", "GET", expires_in=60)
    writing = await store.grant("sub/new", "PUT", expires_in=60)
    with pytest.raises(StorageError):
        await anyio.to_thread.run_sync(grants.store, grants.to_json(writing), [b""])

    assert reading.url.endswith("/sub/secret=")
    assert await keys(store) == ["real"]
    assert inside(outside) == ["secret="]
    assert (outside / "secret=").read_bytes() == b"x"


@pytest.mark.anyio
async def test_a_planted_link_to_a_file_is_not_followed(
    store: FileStorage, root: Path, tmp_path: Path
) -> None:
    """Writing replaces the link, not what it points at."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"secret")
    await store.put("real", b"")
    (root / "k=").symlink_to(outside)
    reading = grants.to_json(await store.grant("k", "GET", expires_in=60))

    with pytest.raises(StorageError, match="symbolic links"):
        await store.get("k")
    with pytest.raises(StorageError, match="symbolic links"):
        await store.head("k")
    with pytest.raises(StorageError, match="symbolic links"):
        await anyio.to_thread.run_sync(grants.fetch, reading)
    with pytest.raises(KeyExistsError):
        await store.put("k", b"", if_absent=True)
    assert await keys(store) == ["real"]

    await store.put("k", b"mine")
    assert await store.get("k") == b"mine"
    assert outside.read_bytes() == b"secret"


@pytest.mark.anyio
async def test_a_planted_pipe_does_not_hang(store: FileStorage, root: Path) -> None:
    """Opening one to read waits for a writer, unless one takes care."""
    await store.put("real", b"")
    os.mkfifo(root / "k=")

    with anyio.fail_after(5):
        with pytest.raises(StorageError, match="not a regular file"):
            await store.get("k")
        with pytest.raises(StorageError, match="not a regular file"):
            await store.head("k")
        assert await keys(store) == ["real"]


@pytest.mark.anyio
async def test_foreign_files_are_no_objects(store: FileStorage, root: Path) -> None:
    """Whatever else is in the directory is neither listed nor in the way."""
    await store.put("dir/k", b"")
    for name in ("README", "notes.txt", "UPPER=", "%2e=", "a%2fb=", "%zz=", "=", "+"):
        (root / name).touch()
        (root / "dir" / name).touch()
    for name in ("Folder", "%2e%2e", "looks-like-one=", "b+"):
        (root / f"{name}").mkdir()

    assert await keys(store) == ["dir/k"]
    await store.delete(["dir/k"])
    assert (root / "dir" / "README").exists()


@pytest.mark.anyio
async def test_nothing_is_written_beside_the_root(
    store: FileStorage, root: Path
) -> None:
    """Keys that would be paths, if they were taken for such."""
    for key in ("..%2f..%2fx", "..\\x", "%2e%2e/x", "~/x", "-", "\\\\host\\x"):
        await store.put(key, b"v")
        assert await store.get(key) == b"v"

    assert inside(root.parent) == [root.name]
    assert inside(root.parent.parent) == [root.parent.name]


# --- several processes --------------------------------------------------------------

COMPETE = """
import sys, anyio
from pathlib import Path
from wren.errors import KeyExistsError
from wren.storage.local import FileStorage

async def main(root, name):
    store = FileStorage(Path(root))
    won = []
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(50):
        try:
            await store.put(f"round/{number}", name.encode() * 1000, if_absent=True)
        except KeyExistsError:
            continue
        won.append(number)
    print(*won)

anyio.run(main, *sys.argv[1:])
"""


@pytest.mark.anyio
async def test_one_winner_among_processes(store: FileStorage, root: Path) -> None:
    """4 processes, 50 rounds; the winner's bytes are the ones stored."""
    names = "abcd"
    processes = [python(COMPETE, str(root), name) for name in names]

    def compete() -> list[str]:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [process.communicate(timeout=30)[0] for process in processes]

    said = await anyio.to_thread.run_sync(compete)

    winners = {
        int(number): name
        for name, text in zip(names, said, strict=True)
        for number in text.split()
    }
    assert sum(len(text.split()) for text in said) == 50
    assert sorted(winners) == list(range(50))
    for number, name in winners.items():
        assert await store.get(f"round/{number}") == name.encode() * 1000
    assert temporaries(root) == []


@pytest.mark.anyio
async def test_writers_and_pruning_get_along(store: FileStorage, root: Path) -> None:
    """Deleting removes empty directories, in which somebody may be about to write."""

    async def come_and_go(number: int) -> None:
        for _ in range(40):
            await store.put(f"a/b/c/{number}", b"", if_absent=True)
            await store.delete([f"a/b/c/{number}"])

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(come_and_go, number)

    assert inside(root) == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
@pytest.mark.anyio
async def test_a_writer_makes_its_directory_again(
    store: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst moment: between opening the directory and the file in it."""
    opened = os.open
    pruned: list[str] = []

    def prune_first(name: str, flags: int, *rest: Any, **options: Any) -> int:
        if flags & os.O_CREAT and len(pruned) < 3:
            pruned.append(name)
            Path(f"/proc/self/fd/{options['dir_fd']}").readlink().rmdir()
        return opened(name, flags, *rest, **options)

    monkeypatch.setattr(os, "open", prune_first)

    await store.put("a/b/k", b"v")

    assert len(pruned) == 3
    assert await store.get("a/b/k") == b"v"


# --- crashes ------------------------------------------------------------------------

DIE = """
import os, signal, sys
from wren.storage.tree import Tree

root, moment, if_absent = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "True"
calls = 0

def die() -> None:
    global calls
    calls += 1
    if calls == moment:
        os.kill(os.getpid(), signal.SIGKILL)

Tree(root).write("dir/k", bytes(40 * 2**20), if_absent, die)
"""


@pytest.mark.parametrize("if_absent", [False, True])
@pytest.mark.parametrize("moment", [1, 3, 4], ids=["empty", "partly", "complete"])
@pytest.mark.anyio
async def test_a_killed_writer_leaves_no_object(
    store: FileStorage, root: Path, moment: int, if_absent: bool
) -> None:
    """SIGKILL before the first piece, after the second, and before the last step."""
    if not if_absent:
        await store.put("dir/k", b"old")
    process = python(DIE, str(root), str(moment), str(if_absent))

    code = await anyio.to_thread.run_sync(process.wait, 30)
    process.communicate()

    assert code == -signal.SIGKILL
    (left,) = temporaries(root)
    if if_absent:
        assert await keys(store) == []
        with pytest.raises(KeyNotFoundError):
            await store.get("dir/k")
    else:
        assert [info.size async for info in store.list()] == [3]
        assert await store.get("dir/k") == b"old"
    await store.put("dir/k", b"new")
    await store.delete(["dir/k"])
    assert left.exists()


@pytest.mark.anyio
async def test_what_a_crash_left_is_swept_by_age(
    store: FileStorage, root: Path
) -> None:
    """A temporary file that nobody has written to for an hour has no writer."""
    await store.put("dir/k", b"")
    old = root / "dir" / f"{files.TEMPORARY}old"
    new = root / "dir" / f"{files.TEMPORARY}new"
    for path in (old, new):
        path.write_bytes(b"half")
    past = time.time() - 2 * HOURS
    os.utime(old, (past, past))

    assert await keys(store) == ["dir/k"]

    assert not old.exists()
    assert new.exists()


@pytest.mark.anyio
async def test_a_full_disk_is_told(
    store: FileStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In words, with nothing left of the attempt and the old object in place."""
    await store.put("k", b"old")

    def full(_descriptor: int, _data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(StorageError, match="No space left on device") as caught:
            await store.put("k", b"new")

    assert (caught.value.store, caught.value.key) == ("local", "k")
    assert isinstance(caught.value.__cause__, OSError)
    assert temporaries(root) == []
    assert await store.get("k") == b"old"


@pytest.mark.anyio
async def test_a_file_system_without_links_is_told(
    store: FileStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Conditional writes need them; looking first and writing then would be a race."""

    def no_links(*_names: str, **_options: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "link", no_links)

    with pytest.raises(UnsupportedError):
        await store.put("k", b"", if_absent=True)
    await store.put("k", b"")

    assert temporaries(root) == []


# --- cancellation -------------------------------------------------------------------


class Begun:
    """Tells the event loop that a thread has begun to write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._thread = threading.Event()
        write = os.write

        def tell(descriptor: int, data: Any) -> int:
            self._thread.set()
            return write(descriptor, data)

        monkeypatch.setattr(files, "_PIECE", 4096)
        monkeypatch.setattr(os, "write", tell)

    async def wait(self) -> None:
        await anyio.to_thread.run_sync(self._thread.wait)


@pytest.mark.anyio
async def test_a_cancelled_put_stops_writing(
    store: FileStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not write on to the end, and leaves nothing."""
    begun = Begun(monkeypatch)
    buffer = bytearray(64 * 2**20)

    async with anyio.create_task_group() as group:
        group.start_soon(store.put, "k", buffer)
        await begun.wait()
        group.cancel_scope.cancel()

    buffer.clear()  # raises if a thread still has it
    assert temporaries(root) == []
    assert await keys(store) == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_asyncio_s_own_cancellation_waits_too(
    store: FileStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`asyncio.timeout` and `Task.cancel` know nothing of anyio's shields."""
    import asyncio

    begun = Begun(monkeypatch)
    buffer = bytearray(64 * 2**20)
    put = asyncio.create_task(store.put("k", buffer))
    await begun.wait()

    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put

    buffer.clear()  # raises if a thread still has it
    assert temporaries(root) == []
    assert await keys(store) == []


# --- reading little -----------------------------------------------------------------


@pytest.mark.anyio
async def test_a_listing_reads_only_the_directories_it_needs(
    store: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One job's poll must not walk through all other jobs."""
    for job in range(5):
        for part in ("in", "out"):
            await store.put(f"jobs/{job}/{part}/0", b"")
    scanned: list[int] = []
    scan = os.scandir

    def count(folder: int) -> Any:
        scanned.append(folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", count)

    assert await keys(store, "jobs/3/out/") == ["jobs/3/out/0"]
    assert len(scanned) == 1
    scanned.clear()
    assert await keys(store, "jobs/3/o") == ["jobs/3/out/0"]
    assert len(scanned) == 1 + 1
    scanned.clear()
    assert len(await keys(store, "jobs/", start_after="jobs/3/out")) == 3
    assert len(scanned) == 1 + (1 + 1) + (1 + 2)


@pytest.mark.anyio
async def test_a_listing_reads_a_directory_when_it_is_due(
    store: FileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wants the first objects only does not pay for the rest."""
    monkeypatch.setattr("wren.storage.local._PAGE", 1)
    for job in range(5):
        await store.put(f"{job}/k", b"")
    scan = os.scandir
    scanned: list[int] = []

    def count(folder: int) -> Any:
        scanned.append(folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", count)
    found = aiter(store.list())

    assert (await anext(found)).key == "0/k"
    assert len(scanned) == 2
    assert [info.key async for info in found] == ["1/k", "2/k", "3/k", "4/k"]


def test_the_parts_of_an_envelope_are_not_joined(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder writes each from where it lies."""
    written: list[object] = []
    write = os.write

    def note(descriptor: int, data: Any) -> int:
        written.append(data.obj)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", note)
    parts: Sequence[bytes | bytearray] = [b"head", bytearray(b"body"), b"", b"tail"]
    grant: dict[str, Any] = {
        "method": "PUT",
        "url": (root / "k=").as_uri(),
        "headers": {},
        "expires": None,
    }

    assert grants.store(grant, parts) == "written"

    assert [id(data) for data in written] == [id(part) for part in parts if part]
    assert (root / "k=").read_bytes() == b"headbodytail"
