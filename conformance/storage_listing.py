"""Checks of listings, and of deleting what they find."""

from __future__ import annotations

import gc
import warnings

import anyio

from wren.conformance.spec import Level, check
from wren.conformance.storage_calls import PATIENCE, keys_of, put_all
from wren.protocols import Storage
from wren.transfer import delete_prefix


class ListingChecks:
    """A listing is complete, exact, in order, and up to date."""

    @check("S11")
    async def test_prefix_is_text_and_not_a_directory(self, store: Storage) -> None:
        """A prefix is compared byte by byte, wherever it ends."""
        await put_all(store, ("p/a", "p/b/c", "pq", "P/a", "o/p"), b"1")

        assert await keys_of(store, "p") == ["p/a", "p/b/c", "pq"]
        assert await keys_of(store, "p/") == ["p/a", "p/b/c"]
        assert await keys_of(store, "p/b") == ["p/b/c"]
        assert await keys_of(store, "p/b/c") == ["p/b/c"]
        assert await keys_of(store, "p/b/c/") == []

    @check("S11")
    async def test_prefix_of_no_key_finds_nothing(self, store: Storage) -> None:
        """Also one that no key can begin with, and that a server may refuse."""
        await put_all(store, ("p/a", "q"))

        for prefix in ("/", "//", "p//", "../", "\udc80", "p/\udc80", "q" * 2000):
            assert await keys_of(store, prefix) == []

    @check("S12")
    async def test_list_is_in_byte_order(self, store: Storage) -> None:
        """The order is that of the keys' UTF-8, not UTF-16's or a directory's."""
        wanted = ["b", "a", "é", "a/b", "a-b", "a0", "Z", "\uffee", "\U0001f426"]
        wanted += ["a/b/c", "a/b-c", "a/b0", "a.b", "a%b", "A"]
        await put_all(store, wanted)

        assert await keys_of(store) == sorted(wanted, key=str.encode)

    @check("S13")
    async def test_list_is_complete_beyond_a_page(self, store: Storage) -> None:
        """1005 keys arrive once each, in order."""
        wanted = [f"p/{number:05}" for number in range(1005)]
        await put_all(store, ["o", *wanted, "q"])

        with anyio.fail_after(PATIENCE):
            assert await keys_of(store, "p/") == wanted

    @check("S14", Level.EXTENDED)
    async def test_start_after_is_exclusive(self, store: Storage) -> None:
        """A listing can go on where another ended, between any two keys."""
        wanted = sorted(["a", "a-b", "a/b", "a/c/d", "a/c/e", "a0", "b"])
        await put_all(store, wanted)

        for after in [*wanted, "a/", "a/c", "a/c/", "a/c/d/x", "A", "z", "\udc80"]:
            left = [key for key in wanted if key > after]
            assert await keys_of(store, start_after=after) == left
            inside = [key for key in left if key.startswith("a/")]
            assert await keys_of(store, "a/", start_after=after) == inside

    @check("S15")
    async def test_list_sees_what_happened_before(self, store: Storage) -> None:
        """Puts, overwrites and deletes that have returned show in a listing."""
        assert await keys_of(store) == []

        await store.put("x", b"1")
        await store.put("x", b"22")
        assert [(i.key, i.size) async for i in store.list()] == [("x", 2)]

        await store.put("y", b"")
        await store.delete(["x"])
        assert await keys_of(store) == ["y"]

    @check("S16")
    async def test_list_misses_no_object_that_stays(self, store: Storage) -> None:
        """Whatever is written, overwritten and deleted around it."""
        folders = [f"d/{number:03}" for number in range(30)]
        stays = [f"{folder}/stays" for folder in folders]
        await put_all(store, stays)
        listed: list[list[str]] = []

        async def change() -> None:
            for folder in folders:
                await store.put(f"{folder}/stays", b"again")
                await store.put(f"{folder}/new", b"")
                await store.delete([f"{folder}/new"])

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                group.start_soon(change)
                for _ in range(8):
                    found = await keys_of(store, "d/")
                    listed.append([key for key in found if key.endswith("stays")])

        assert listed == [stays] * 8

    @check("S16")
    async def test_a_listing_may_be_left_at_any_item(self, store: Storage) -> None:
        """Whoever leaves an ``async for`` closes nothing, and gets no warning."""
        await put_all(store, ("a", "b", "c"))

        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            async for info in store.list():
                if info.key == "b":
                    break
            gc.collect()
            assert await keys_of(store) == ["a", "b", "c"]

        assert [each.message for each in warned] == []

    @check("S43", Level.SCALE)
    async def test_delete_takes_more_than_a_batch(self, store: Storage) -> None:
        """1001 keys go in one call; S3 takes 1000 in a request, Azure 256."""
        doomed = [f"p/{number:05}" for number in range(1001)]
        await put_all(store, ["o", *doomed, "p/00007/stays"])

        with anyio.fail_after(PATIENCE):
            await store.delete(doomed)

        assert await keys_of(store) == ["o", "p/00007/stays"]

    @check("S44")
    async def test_delete_prefix_spares_the_neighbour(self, store: Storage) -> None:
        """Cleaning one job must not touch another."""
        await put_all(store, ("jobs/1/a", "jobs/1/b/c", "jobs/10/a", "jobs/1"))

        assert await delete_prefix(store, "jobs/1/") == 2

        assert await keys_of(store) == ["jobs/1", "jobs/10/a"]
