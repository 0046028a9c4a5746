"""Checks of single objects: bytes, ranges, absence, deletion, description."""

from __future__ import annotations

import pickle
import time
from typing import Any

import anyio
import pytest

from wren.conformance.spec import Level, check
from wren.conformance.storage_calls import MIB, PATIENCE, is_missing, keys_of, put_all
from wren.errors import KeyNotFoundError
from wren.protocols import Storage
from wren.storage.parts import PART


class ObjectChecks:
    """What goes in comes out, whole and at once."""

    @check("S01")
    async def test_all_byte_values_come_back(self, store: Storage) -> None:
        """Bytes of every value come back as they were."""
        await store.put("k", bytes(range(256)))

        assert await store.get("k") == bytes(range(256))

    @check("S02")
    async def test_an_empty_object_is_an_object(self, store: Storage) -> None:
        """An empty object exists, and is empty."""
        await store.put("k", b"")

        assert await store.get("k") == b""
        assert (await store.head("k")).size == 0
        assert await keys_of(store) == ["k"]

    @check("S03")
    async def test_line_ends_come_back(self, store: Storage) -> None:
        """Nobody opens objects as text: CR, LF and NUL stay."""
        await store.put("k", b"a\r\nb\n\r\x00\n")

        assert await store.get("k") == b"a\r\nb\n\r\x00\n"

    @check("S04", Level.SCALE)
    @pytest.mark.parametrize("size", [PART + 1, 64 * MIB + 1])
    async def test_large_object_comes_back_whole(
        self, store: Storage, size: int
    ) -> None:
        """One byte more than a part, and than any single step of a store, is whole."""
        # 251 is a prime: two parts that change places do not look the same.
        data = (bytes(range(251)) * (size // 251 + 1))[:size]

        await store.put("k", memoryview(data))

        whole = await store.get("k")
        same = whole == data  # kept apart: pytest would compare them line by line
        assert len(whole) == size
        assert same
        assert (await store.head("k")).size == size
        assert await store.get("k", start=size - 2) == data[-2:]
        inner = await store.get("k", start=3, stop=PART - 1)
        same = inner == data[3 : PART - 1]
        assert same

    @check("S05")
    async def test_get_of_an_absent_key_names_it(self, store: Storage) -> None:
        """The error names key and store, is a `KeyError`, and survives pickling."""
        with pytest.raises(KeyNotFoundError) as caught:
            await store.get("absent/key")

        copy: Any = pickle.loads(pickle.dumps(caught.value))  # noqa: S301  # our own
        assert isinstance(copy, KeyError)
        assert isinstance(copy, KeyNotFoundError)
        assert (copy.key, copy.store) == ("absent/key", store.name)

    @check("S05")
    async def test_what_looks_like_a_folder_is_absent(self, store: Storage) -> None:
        """Neither the beginning of a key nor its continuation is an object."""
        await store.put("a/b", b"")

        await is_missing(lambda: store.get("a"))
        await is_missing(lambda: store.get("a/b/c"))

    @check("S06")
    async def test_head_of_an_absent_key_says_so(self, store: Storage) -> None:
        """Asking without reading tells absence just as well."""
        await store.put("a/b", b"")

        for key in ("absent", "a", "a/b/c"):
            with pytest.raises(KeyNotFoundError) as caught:
                await store.head(key)
            assert (caught.value.key, caught.value.store) == (key, store.name)

    @check("S07")
    async def test_overwrite_is_visible_at_once(self, store: Storage) -> None:
        """A get that starts after a put has returned sees that put."""
        for data in (b"first", b"2nd", b"", b"third"):
            await store.put("k", data)

            assert await store.get("k") == data
            assert (await store.head("k")).size == len(data)

    @check("S08")
    async def test_delete_is_idempotent(self, store: Storage) -> None:
        """Deleting succeeds a second time, and where there never was an object."""
        await store.put("a/k", b"1")

        await store.delete(["a/k"])
        await store.delete(["a/k", "never", "never/was"])
        await store.delete([])

        assert await keys_of(store) == []

    @check("S09")
    async def test_delete_is_exact(self, store: Storage) -> None:
        """Neither a longer key nor what looks like a folder goes with a key."""
        await put_all(store, ("a", "a/b", "ab", "a/b/c"))

        await store.delete(key for key in ("a", "a/b"))

        assert await keys_of(store) == ["a/b/c", "ab"]

    @check("S10")
    async def test_a_deleted_object_is_gone_at_once(self, store: Storage) -> None:
        """A get or head that starts after a delete has returned finds nothing."""
        await store.put("a/k", b"1")
        await store.delete(["a/k"])

        await is_missing(lambda: store.get("a/k"))
        await is_missing(lambda: store.head("a/k"))

    @check("S10")
    async def test_a_deleted_key_can_be_written_again(self, store: Storage) -> None:
        """Deleting leaves nothing behind that stands in the way."""
        for data in (b"1", b"2"):
            await store.put("a/b/c", data)
            assert await store.get("a/b/c") == data
            await store.delete(["a/b/c"])
        await store.put("a/b", b"3")
        assert await store.get("a/b") == b"3"

    @check("S17", Level.EXTENDED)
    @pytest.mark.parametrize(("start", "stop"), [(2, 5), (7, None), (4, 4), (0, 0)])
    async def test_range_is_half_open(
        self, store: Storage, start: int, stop: int | None
    ) -> None:
        """A range is a slice: ``stop`` is excluded."""
        data = b"0123456789"
        await store.put("k", data)

        assert await store.get("k", start=start, stop=stop) == data[start:stop]

    @check("S17", Level.EXTENDED)
    @pytest.mark.parametrize(("start", "stop"), [(-1, None), (5, 2), (-2, -1)])
    async def test_bad_range_is_refused(
        self, store: Storage, start: int, stop: int | None
    ) -> None:
        """Before anything is sent, so that it does not matter if the key exists."""
        with pytest.raises(ValueError, match="range"):
            await store.get("absent", start=start, stop=stop)

    @check("S18", Level.EXTENDED)
    @pytest.mark.parametrize(
        ("start", "stop"), [(8, 99), (0, 99), (10, None), (10, 12), (11, 99)]
    )
    async def test_range_is_clipped_at_the_end(
        self, store: Storage, start: int, stop: int | None
    ) -> None:
        """What lies beyond the end is left out; HTTP stores answer 416 here."""
        data = b"0123456789"
        await store.put("k", data)

        assert await store.get("k", start=start, stop=stop) == data[start:stop]

    @check("S19", Level.EXTENDED)
    async def test_range_of_an_empty_object_is_empty(self, store: Storage) -> None:
        """Whatever the range."""
        await store.put("k", b"")

        assert await store.get("k", start=0, stop=5) == b""
        assert await store.get("k", start=3) == b""

    @check("S23")
    async def test_head_describes_the_object(self, store: Storage) -> None:
        """Exact size, full key, a time with its zone; the same from a listing."""
        before = time.time()
        await store.put("a/b", b"four")
        info = await store.head("a/b")
        listed = [found async for found in store.list("a/")]

        assert (info.key, info.size) == ("a/b", 4)
        assert [(each.key, each.size, each.etag) for each in listed] == [
            ("a/b", 4, info.etag)
        ]
        # Stores round to a second, and not always the same way in both answers.
        assert abs(listed[0].modified.timestamp() - info.modified.timestamp()) <= 1
        assert info.modified.utcoffset() is not None
        # Clocks differ, but not as much as the narrowest time zone.
        assert before - 900 <= info.modified.timestamp() <= time.time() + 900

    @check("S23")
    async def test_etag_changes_with_the_content(self, store: Storage) -> None:
        """Also when the size does not, and in the same tick of the clock."""
        etags: set[str] = set()

        for number in range(20):
            # The one between gives a file system the chance to use an inode again.
            await store.put("k", b"...")
            await store.put("k", b"%03d" % number)
            etags.add((await store.head("k")).etag)

        assert len(etags) == 20

    @check("S29")
    async def test_readers_see_the_old_or_the_new_object(self, store: Storage) -> None:
        """An overwrite is one step, as seen by others."""
        old, new = b"a" * MIB, b"b" * (MIB + 1)
        await store.put("k", old)
        torn: list[int] = []
        writing = True

        async def read() -> None:
            while writing:
                data = await store.get("k")
                if data not in {old, new}:
                    torn.append(len(data))

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                group.start_soon(read)
                group.start_soon(read)
                for number in range(20):
                    await store.put("k", old if number % 2 else new)
                writing = False

        assert torn == []

    @check("S35")
    @pytest.mark.parametrize("size", [3, 2 * MIB, PART + 1])
    async def test_callers_buffer_is_not_kept(self, store: Storage, size: int) -> None:
        """Buffers are reused by whoever owns them."""
        buffer = bytearray(size)

        await store.put("k", buffer)
        buffer[0] = 1
        buffer.clear()  # raises while anybody holds a view

        same = await store.get("k") == bytes(size)
        assert same

    @check("S42")
    async def test_delete_refuses_a_string(self, store: Storage) -> None:
        """A string is an iterable of strings: "ab" must not delete "a" and "b"."""
        await store.put("a", b"1")

        with pytest.raises(TypeError):
            await store.delete("ab")

        assert await keys_of(store) == ["a"]

    @check("S46", Level.EXTENDED)
    async def test_empty_range_does_not_hide_absence(self, store: Storage) -> None:
        """Asking for nothing does not hide that there is nothing."""
        await is_missing(lambda: store.get("absent", start=3, stop=3))
        await is_missing(lambda: store.get("absent", start=0, stop=0))
