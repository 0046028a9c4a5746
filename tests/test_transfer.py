"""Helpers that work with every store, on top of what `Storage` promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import anyio
import anyio.lowlevel
import pytest

from wren.errors import KeyNotFoundError, StorageError, TransientError
from wren.protocols import Buffer, ObjectInfo
from wren.storage.memory import MemoryStorage
from wren.storage.pages import Pages
from wren.transfer import copy, copy_prefix, delete_prefix, read_stream

pytestmark = pytest.mark.anyio


class Recorder(MemoryStorage):
    """A store that remembers what was asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.deleted: list[int] = []
        self.ranges: list[tuple[int, int | None]] = []
        self.reading = 0
        self.most_reading = 0

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        self.ranges.append((start, stop))
        self.reading += 1
        self.most_reading = max(self.most_reading, self.reading)
        try:
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            return await super().get(key, start=start, stop=stop)
        finally:
            self.reading -= 1

    async def delete(self, keys: Iterable[str]) -> None:
        keys = list(keys)
        self.deleted.append(len(keys))
        await super().delete(keys)


class Full(MemoryStorage):
    """A store that takes some objects, and no more once it has three."""

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        if len([info async for info in self.list()]) >= 3:
            raise StorageError("full", store=self.name, key=key)
        await super().put(key, data, if_absent=if_absent)


class Unlistable(MemoryStorage):
    """A store whose listing breaks off."""

    def list(self, prefix: str = "", *, start_after: str = "") -> Pages:
        pages = [super().list(prefix, start_after=start_after)]

        async def read() -> tuple[ObjectInfo, ...]:
            if not pages:
                raise TransientError("enough", store=self.name)
            return (await anext(pages.pop()),)

        return Pages(read)


@pytest.fixture
async def store() -> AsyncIterator[Recorder]:
    store = Recorder()
    yield store
    await store.aclose()


async def contents(store: MemoryStorage) -> dict[str, bytes]:
    """Return all that is in a store."""
    return {info.key: await store.get(info.key) async for info in store.list()}


# --- delete_prefix ------------------------------------------------------------------


async def test_delete_prefix_deletes_what_matches_and_counts(store: Recorder) -> None:
    """A prefix without a slash at its end takes the neighbours too."""
    for key in ("a/1", "a/2", "ab", "b"):
        await store.put(key, b"")

    assert await delete_prefix(store, "a/") == 2
    assert await delete_prefix(store, "a/") == 0
    assert await delete_prefix(store, "a") == 1
    assert await contents(store) == {"b": b""}
    assert await delete_prefix(store, "") == 1


async def test_delete_prefix_goes_in_pages(store: Recorder) -> None:
    """A prefix with a million objects must not become one list of them."""
    for number in range(2001):
        await store.put(f"p/{number}", b"")

    assert await delete_prefix(store, "p/") == 2001

    assert store.deleted == [1000, 1000, 1]
    assert await contents(store) == {}


# --- copy ---------------------------------------------------------------------------


async def test_copy_takes_an_object_to_another_store(store: Recorder) -> None:
    """Under the same key or another, replacing what is there."""
    other = MemoryStorage()
    await store.put("k", b"data")
    await other.put("k", b"old")

    await copy(store, other, "k")
    await copy(store, other, "k", to="there/too")
    await copy(store, store, "k", to="twin")

    assert await contents(other) == {"k": b"data", "there/too": b"data"}
    assert await contents(store) == {"k": b"data", "twin": b"data"}
    with pytest.raises(KeyNotFoundError):
        await copy(store, other, "absent")


async def test_copy_prefix_copies_all_of_it(store: Recorder) -> None:
    """Several at a time, and not too many."""
    other = MemoryStorage()
    for number in range(100):
        await store.put(f"a/{number}", b"%d" % number)
    await store.put("b", b"not this")

    assert await copy_prefix(store, other, "a/") == 100

    assert 1 < store.most_reading <= 16
    assert await contents(other) == {f"a/{n}": b"%d" % n for n in range(100)}


async def test_copy_prefix_raises_the_first_failure(store: Recorder) -> None:
    """As itself, not inside a group, from whichever store it comes."""
    for number in range(50):
        await store.put(f"a/{number}", b"")
    unlistable = Unlistable()
    await unlistable.put("k", b"")

    with pytest.raises(StorageError, match="full"):
        await copy_prefix(store, Full(), "a/")
    with pytest.raises(TransientError, match="enough"):
        await copy_prefix(unlistable, MemoryStorage(), "")


# --- read_stream --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "sizes"),
    [(0, []), (1, [1]), (4, [4]), (10, [4, 4, 2]), (12, [4, 4, 4])],
)
async def test_read_stream_yields_parts_in_order(
    store: Recorder, size: int, sizes: list[int]
) -> None:
    """Whatever the length is, also a multiple of a part's."""
    data = bytes(range(size))
    await store.put("k", data)

    parts = [part async for part in read_stream(store, "k", 4)]

    assert [len(part) for part in parts] == sizes
    assert b"".join(parts) == data


async def test_read_stream_reads_when_it_is_asked(store: Recorder) -> None:
    """A slow consumer holds one part, not the object."""
    await store.put("k", bytes(12))
    stream = read_stream(store, "k", 4)
    assert store.ranges == []

    await anext(aiter(stream))

    assert store.ranges == [(0, 4)]
    assert [part async for part in stream] == [bytes(4)] * 2


async def test_read_stream_refuses_what_cannot_be_read(store: Recorder) -> None:
    """An absent object, and parts of no size."""
    with pytest.raises(KeyNotFoundError):
        await anext(aiter(read_stream(store, "absent")))
    with pytest.raises(ValueError, match="part_size"):
        await anext(aiter(read_stream(store, "k", 0)))
