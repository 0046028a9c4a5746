"""The memory store beyond the contract: nothing stays, nothing is in the way."""

from __future__ import annotations

import gc
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from wren import grants
from wren.config import Settings
from wren.errors import ConfigurationError
from wren.protocols import ObjectInfo
from wren.storage.local import FileStorage
from wren.storage.memory import MemoryStorage, open_storage
from wren.storage.pages import Pages


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty system directory for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def inside(folder: Path) -> list[Path]:
    """Return what is in a directory."""
    return list(folder.iterdir())


def mode(path: Path) -> int:
    """Return who may do what."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
async def store() -> AsyncIterator[MemoryStorage]:
    store = MemoryStorage()
    yield store
    await store.aclose()


def test_only_memory_without_a_name_is_opened() -> None:
    """There are no buckets and no prefixes in memory."""
    assert isinstance(open_storage("memory:", Settings()), MemoryStorage)
    for url in ("memory:x", "memory://bucket", "memory:///x", "memory:?a=b"):
        with pytest.raises(ConfigurationError, match="no bucket and no prefix"):
            open_storage(url, Settings())


@pytest.mark.anyio
async def test_it_is_private(store: MemoryStorage) -> None:
    """Nobody else can reach this process's memory, or a directory of mode 0700."""
    assert store.capabilities.private
    assert store.name == "memory"


@pytest.mark.anyio
async def test_bytes_are_not_copied(store: MemoryStorage) -> None:
    """They cannot change, so one object serves the caller and the store."""
    data = bytes(1000)

    await store.put("k", data)

    assert await store.get("k") is data


@pytest.mark.anyio
async def test_nothing_touches_the_disk_before_a_grant(
    store: MemoryStorage, temporary: Path
) -> None:
    """A program that makes no grants can run where nothing is writable."""
    await store.put("k", b"1")
    await store.get("k")
    await store.delete(["k"])

    assert inside(temporary) == []


@pytest.mark.anyio
async def test_grants_live_in_a_private_directory_until_closing(
    store: MemoryStorage, temporary: Path
) -> None:
    """Other users of this machine cannot look into it, and nothing is left of it."""
    await store.put("k", b"1")
    await store.grant("k", "GET", expires_in=60)
    (directory,) = inside(temporary)
    assert mode(directory) == 0o700

    await store.aclose()

    assert inside(temporary) == []


def test_a_forgotten_store_leaves_nothing(temporary: Path) -> None:
    """Not everybody closes what they opened."""
    store = MemoryStorage()
    anyio.run(_grant, store, "k")
    assert len(inside(temporary)) == 1

    del store
    gc.collect()

    assert inside(temporary) == []


FORKING = """
import os, sys, threading, anyio
from wren.storage.memory import MemoryStorage

async def main():
    store = MemoryStorage()
    await store.put("k", b"still there")
    await store.grant("k", "GET", expires_in=60)
    return store

store = anyio.run(main)
for thread in set(threading.enumerate()) - {threading.main_thread()}:
    thread.join()  # Python 3.12 warns of forking beside them
if os.fork() == 0:
    sys.exit(0)
assert os.wait()[1] == 0
print(anyio.run(store.get, "k").decode())
"""


def test_a_forked_child_leaves_the_parents_directory(temporary: Path) -> None:
    """It inherits the object and its finalizer, but must not clean up."""
    done = subprocess.run(
        [sys.executable, "-c", FORKING],
        env={"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.stdout, done.stderr) == ("still there\n", "")
    assert inside(temporary) == []


@pytest.mark.anyio
async def test_a_write_that_meets_the_move_to_a_file_is_kept(
    store: MemoryStorage,
) -> None:
    """Making a grant takes a while, in which the object may change or go."""
    for number in range(40):
        replaced, deleted = f"r{number}", f"d{number}"
        await store.put(replaced, b"old")
        await store.put(deleted, b"old")

        async with anyio.create_task_group() as group:
            for key in (replaced, deleted):
                group.start_soon(_grant, store, key)
            for _ in range(number):
                await anyio.lowlevel.checkpoint()
            await store.put(replaced, b"new")
            await store.delete([deleted])

        assert await store.get(replaced) == b"new"
        assert [info.key async for info in store.list(deleted)] == []
        reading = await store.grant(replaced, "GET", expires_in=60)
        held = await anyio.to_thread.run_sync(grants.fetch, grants.to_json(reading))
        assert held == b"new"


@pytest.mark.anyio
async def test_a_key_that_moves_during_a_listing_is_listed_once(
    store: MemoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is seen in memory, and then again among the files."""
    await store.put("k", b"v")
    await _grant(store, "other")
    listing = FileStorage.list

    def move_first(files: FileStorage, *args: str, **options: str) -> Pages:
        found = listing(files, *args, **options)

        async def read() -> tuple[ObjectInfo, ...]:
            await _grant(store, "k")
            return tuple([info async for info in found])

        return Pages(read)

    monkeypatch.setattr(FileStorage, "list", move_first)

    assert [info.key async for info in store.list()] == ["k"]


@pytest.mark.anyio
async def test_a_cancelled_grant_changes_nothing(store: MemoryStorage) -> None:
    """Wherever in the move it is cancelled, and also if the object goes afterwards."""
    for number in range(40):
        key = f"k{number}"
        await store.put(key, b"old")

        async with anyio.create_task_group() as group:
            group.start_soon(_grant, store, key)
            for _ in range(number):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()

        assert await store.get(key) == b"old"
        await store.put(key, b"newer")
        assert [(i.key, i.size) async for i in store.list(key)] == [(key, 5)]
        await store.delete([key])
        await _grant(store, key)
        assert [info.key async for info in store.list(key)] == []


async def _grant(store: MemoryStorage, key: str) -> None:
    await store.grant(key, "PUT", expires_in=60, if_absent=True)
