"""What `Storage` promises, checked for each store that needs no cloud."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from wren import grants
from wren.conformance.storage import StorageSuite
from wren.errors import StorageError
from wren.protocols import Storage
from wren.storage.local import FileStorage
from wren.storage.memory import MemoryStorage

MIB = 1024 * 1024


class OnThisMachine(StorageSuite):
    """The suite, and what only a store without a network can promise besides."""

    async def test_everything_is_offered(self, store: Storage) -> None:
        """No check of the suite passes because the store declares little."""
        capabilities = store.capabilities

        assert capabilities.conditional_put
        assert capabilities.grants
        assert capabilities.conditional_grants

    async def test_nothing_comes_after_a_cancelled_put(self, store: Storage) -> None:
        """No request is under way that could still be carried out."""
        data = b"x" * (2 * MIB)

        for number in range(24):
            key = f"k{number}"
            async with anyio.create_task_group() as group:
                group.start_soon(store.put, key, data)
                for _ in range(number):
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            at_once = [info async for info in store.list(key)]
            await store.put(f"other{number}", b"")
            assert [info async for info in store.list(key)] == at_once

    async def test_etag_changes_in_the_same_tick(self, store: Storage) -> None:
        """Often enough for a file system to use an inode and a time again."""
        etags: set[str] = set()

        for number in range(100):
            await store.put("k", b"...")
            await store.put("k", b"%03d" % number)
            etags.add((await store.head("k")).etag)

        assert len(etags) == 100

    async def test_grants_may_last_for_ever(self, store: Storage) -> None:
        """Or for no time at all: then the holder's own clock refuses."""
        await store.put("k", b"old")
        lasting = await store.grant("k", "GET", expires_in=math.inf)
        expired = await store.grant("k", "PUT", expires_in=-1)

        fetched = await anyio.to_thread.run_sync(grants.fetch, grants.to_json(lasting))
        assert fetched == b"old"
        with pytest.raises(StorageError, match="expired"):
            await anyio.to_thread.run_sync(
                grants.store, grants.to_json(expired), [b"new"]
            )


class TestMemory(OnThisMachine):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Storage]:
        store = MemoryStorage()
        yield store
        await store.aclose()


class TestFiles(OnThisMachine):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Storage]:
        store = FileStorage(tmp_path / "root")
        yield store
        await store.aclose()


class TestMemoryGranted(OnThisMachine):
    """The same keys once more, after a grant has moved each to a file."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[Storage]:
        store = GrantingStorage()
        yield store
        await store.aclose()


class GrantingStorage(MemoryStorage):
    """A memory store in which each key is granted just before it is written."""

    async def put(self, key: str, data: Any, *, if_absent: bool = False) -> None:
        await self.grant(key, "PUT", expires_in=60)
        await super().put(key, data, if_absent=if_absent)
