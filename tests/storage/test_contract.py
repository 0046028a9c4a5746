"""What `Storage` promises, checked for each store that needs no cloud."""

from __future__ import annotations

import gc
import json
import math
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from wren import grants
from wren.errors import KeyExistsError, KeyNotFoundError, StorageError
from wren.protocols import Grant, Storage
from wren.storage.local import FileStorage
from wren.storage.memory import MemoryStorage
from wren.transfer import delete_prefix

MIB = 1024 * 1024

HOSTILE = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../x",
    "a/../b",
    "a/./b",
    "a/..",
    "a\x00b",
    "a\nb",
    "a\x7f",
    "a\x85",
    "x" * 1025,
    "é" * 513,
    "\udc80",
    "a/\ud800",
]

STRANGE = [
    "A",
    "a",
    "e\u0301",
    "\u00e9",
    "sp ace",
    " ",
    "pct%2F",
    "pct%2f",
    "q?x=#1",
    "plus+",
    "equals=",
    "a=/b",
    "a+/b",
    ".hidden",
    ".wren-0",
    "...",
    "~",
    "back\\slash",
    "..\\up",
    "CON",
    "日本",
    "\U0001f426",
    "\uffee",
    "-rf",
    "*",
]


async def keys(store: Storage, prefix: str = "", **options: str) -> list[str]:
    """Return the listed keys in the order given."""
    return [info.key async for info in store.list(prefix, **options)]


async def missing(call: Callable[[], Awaitable[object]]) -> None:
    """Assert that a call finds no object."""
    with pytest.raises(KeyNotFoundError):
        await call()


async def fetch(grant: Grant) -> bytes:
    """Use a GET grant as its holder does, off the event loop."""
    return await anyio.to_thread.run_sync(grants.fetch, grants.to_json(grant))


async def store_by(grant: Grant, data: bytes) -> str:
    """Use a PUT grant as its holder does, off the event loop."""
    return await anyio.to_thread.run_sync(grants.store, grants.to_json(grant), [data])


@pytest.mark.anyio
class StorageContract:
    """Subclass with a ``store`` fixture that yields an empty store for each test."""

    # --- bytes ----------------------------------------------------------------------

    @pytest.mark.parametrize(
        "data",
        [b"", b"\x00", bytes(range(256)), b"a\r\nb\n\r"],
        ids=["empty", "nul", "all-256", "crlf"],
    )
    async def test_bytes_come_back_unchanged(self, store: Storage, data: bytes) -> None:
        """Whoever opens files as text, or takes empty for absent, fails here."""
        await store.put("k", data)

        assert await store.get("k") == data

    async def test_large_object_comes_back_whole(self, store: Storage) -> None:
        """64 MiB and one byte: more than any single step of any store."""
        data = bytes(range(256)) * (MIB // 4) + b"!"

        await store.put("k", memoryview(data))

        assert await store.get("k") == data
        assert await store.get("k", start=64 * MIB - 1) == b"\xff!"
        assert len(await store.get("k", start=3, stop=5 * MIB)) == 5 * MIB - 3

    async def test_overwrite_is_visible_at_once(self, store: Storage) -> None:
        """A get that starts after a put has returned sees that put."""
        await store.put("k", b"first")
        await store.put("k", b"2nd")

        assert await store.get("k") == b"2nd"
        assert (await store.head("k")).size == 3

    async def test_readers_see_the_old_or_the_new_object(self, store: Storage) -> None:
        """An overwrite is one step, as seen by others."""
        old, new = b"a" * MIB, b"b" * (MIB + 1)
        await store.put("k", old)
        seen: set[bytes] = set()
        writing = True

        async def read() -> None:
            while writing:
                seen.add(await store.get("k"))

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            group.start_soon(read)
            for number in range(20):
                await store.put("k", old if number % 2 else new)
            writing = False

        assert seen <= {old, new}

    @pytest.mark.parametrize("size", [3, 2 * MIB])
    async def test_callers_buffer_is_not_kept(self, store: Storage, size: int) -> None:
        """Buffers are reused by whoever owns them."""
        buffer = bytearray(size)

        await store.put("k", buffer)
        buffer[0] = 1
        buffer.clear()

        assert await store.get("k") == bytes(size)

    # --- absent keys, deletion ------------------------------------------------------

    async def test_absent_key_is_named_in_the_error(self, store: Storage) -> None:
        """The error is a KeyError too, and survives pickling."""
        with pytest.raises(KeyNotFoundError) as caught:
            await store.get("absent/key")

        copy: Any = pickle.loads(pickle.dumps(caught.value))
        assert isinstance(copy, KeyError)
        assert isinstance(copy, KeyNotFoundError)
        assert (copy.key, copy.store) == ("absent/key", store.name)

    async def test_absent_key_has_no_head_and_no_ranges(self, store: Storage) -> None:
        """Asking for nothing does not hide that there is nothing."""
        await store.put("a/b", b"")

        await missing(lambda: store.head("absent"))
        await missing(lambda: store.get("absent", start=3, stop=3))
        await missing(lambda: store.get("a"))
        await missing(lambda: store.head("a/b/c"))

    async def test_delete_is_idempotent(self, store: Storage) -> None:
        """The second time succeeds, and so does a key that never was."""
        await store.put("a/k", b"1")

        await store.delete(["a/k"])
        await store.delete(["a/k", "never", "never/was"])

        await missing(lambda: store.get("a/k"))
        await missing(lambda: store.head("a/k"))

    async def test_delete_is_exact(self, store: Storage) -> None:
        """Neither a longer key nor what looks like a folder goes with it."""
        for key in ("a", "a/b", "ab", "a/b/c"):
            await store.put(key, b"1")

        await store.delete(key for key in ("a", "a/b"))

        assert await keys(store) == ["a/b/c", "ab"]

    async def test_delete_refuses_a_string(self, store: Storage) -> None:
        """A string is an iterable of strings: "ab" must not delete "a" and "b"."""
        await store.put("a", b"1")

        with pytest.raises(TypeError):
            await store.delete("ab")

        assert await keys(store) == ["a"]

    async def test_delete_checks_all_keys_first(self, store: Storage) -> None:
        """Nothing is deleted when one of the keys is none."""
        await store.put("a", b"1")

        with pytest.raises(ValueError, match="segment"):
            await store.delete(["a", "../b"])

        assert await keys(store) == ["a"]

    async def test_a_deleted_key_can_be_written_again(self, store: Storage) -> None:
        """Deleting leaves nothing behind that stands in the way."""
        for data in (b"1", b"2", b"3"):
            await store.put("a/b/c", data, if_absent=True)
            assert await store.get("a/b/c") == data
            await store.delete(["a/b/c"])

    async def test_delete_prefix_spares_the_neighbour(self, store: Storage) -> None:
        """Cleaning one job must not touch another."""
        for key in ("jobs/1/a", "jobs/1/b/c", "jobs/10/a", "jobs/1"):
            await store.put(key, b"")

        assert await delete_prefix(store, "jobs/1/") == 2

        assert await keys(store) == ["jobs/1", "jobs/10/a"]

    # --- listing --------------------------------------------------------------------

    async def test_prefix_is_text_and_not_a_directory(self, store: Storage) -> None:
        """It is compared byte by byte, wherever it ends."""
        for key in ("p/a", "p/b/c", "pq", "P/a", "o/p"):
            await store.put(key, b"1")

        assert await keys(store, "p") == ["p/a", "p/b/c", "pq"]
        assert await keys(store, "p/") == ["p/a", "p/b/c"]
        assert await keys(store, "p/b") == ["p/b/c"]
        assert await keys(store, "p/b/c") == ["p/b/c"]
        assert await keys(store, "p/b/c/") == []
        for nothing in ("/", "//", "p//", "../", "\udc80", "p/\udc80", "q" * 2000):
            assert await keys(store, nothing) == []

    async def test_list_is_in_byte_order(self, store: Storage) -> None:
        """Of the keys' UTF-8: neither UTF-16 nor a directory's order."""
        wanted = ["b", "a", "é", "a/b", "a-b", "a0", "Z", "\uffee", "\U0001f426"]
        wanted += ["a/b/c", "a/b-c", "a/b0", "a.b", "a%b", "A"]
        for key in wanted:
            await store.put(key, b"")

        assert await keys(store) == sorted(wanted, key=str.encode)

    async def test_list_is_complete_beyond_a_page(self, store: Storage) -> None:
        """1005 keys arrive once each, in order."""
        wanted = [f"p/{number:05}" for number in range(1005)]

        async with anyio.create_task_group() as group:
            for key in wanted:
                group.start_soon(store.put, key, b"")

        assert await keys(store, "p/") == wanted

    async def test_start_after_is_exclusive(self, store: Storage) -> None:
        """A listing can go on where another ended, between any two keys."""
        wanted = sorted(["a", "a-b", "a/b", "a/c/d", "a/c/e", "a0", "b"])
        for key in wanted:
            await store.put(key, b"")

        for after in [*wanted, "a/", "a/c", "a/c/", "a/c/d/x", "A", "z", "\udc80"]:
            left = [key for key in wanted if key > after]
            assert await keys(store, start_after=after) == left
            inside = [key for key in left if key.startswith("a/")]
            assert await keys(store, "a/", start_after=after) == inside

    async def test_list_sees_what_happened_before(self, store: Storage) -> None:
        """Puts, overwrites and deletes that have returned."""
        await store.put("x", b"1")
        await store.put("x", b"22")
        assert [(i.key, i.size) async for i in store.list()] == [("x", 2)]

        await store.delete(["x"])
        assert await keys(store) == []

    async def test_list_misses_no_object_that_stays(self, store: Storage) -> None:
        """Whatever is written, overwritten and deleted around it."""
        stays = [f"d/{number:03}/stays" for number in range(50)]
        for key in stays:
            await store.put(key, b"")
        listed: list[list[str]] = []

        async def change() -> None:
            for number in range(50):
                await store.put(f"d/{number:03}/stays", b"again")
                await store.put(f"d/{number:03}/new", b"")
                await store.delete([f"d/{number:03}/new"])

        async with anyio.create_task_group() as group:
            group.start_soon(change)
            for _ in range(10):
                found = await keys(store, "d/")
                listed.append([key for key in found if key.endswith("stays")])

        assert listed == [stays] * 10

    async def test_a_listing_may_be_left_at_any_item(self, store: Storage) -> None:
        """Nobody has to close it; a warning about that would fail this test."""
        for key in ("a", "b", "c"):
            await store.put(key, b"")

        async for info in store.list():
            if info.key == "b":
                break
        gc.collect()

        assert await keys(store) == ["a", "b", "c"]

    async def test_info_describes_the_object(self, store: Storage) -> None:
        """The same from head and from a listing, with a full key and a UTC time."""
        before = time.time()
        await store.put("a/b", b"four")
        info = await store.head("a/b")

        assert [found async for found in store.list("a/")] == [info]
        assert (info.key, info.size) == ("a/b", 4)
        assert info.modified.utcoffset() is not None
        assert before - 1 <= info.modified.timestamp() <= time.time() + 1

    async def test_etag_changes_with_the_content(self, store: Storage) -> None:
        """Also when the size does not, and in the same tick of the clock."""
        etags: set[str] = set()

        for number in range(100):
            # The one between gives a file system the chance to use an inode again.
            await store.put("k", b"...")
            await store.put("k", b"%03d" % number)
            etags.add((await store.head("k")).etag)

        assert len(etags) == 100

    # --- ranges ---------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("start", "stop"),
        [(2, 5), (7, None), (8, 99), (4, 4), (0, 0), (10, None), (10, 12), (11, 99)],
    )
    async def test_range_is_a_slice(
        self, store: Storage, start: int, stop: int | None
    ) -> None:
        """``stop`` is excluded; what lies beyond the end is clipped."""
        data = b"0123456789"
        await store.put("k", data)

        assert await store.get("k", start=start, stop=stop) == data[start:stop]

    async def test_range_of_an_empty_object_is_empty(self, store: Storage) -> None:
        """HTTP stores answer 416 here."""
        await store.put("k", b"")

        assert await store.get("k", start=0, stop=5) == b""

    @pytest.mark.parametrize(("start", "stop"), [(-1, None), (5, 2), (-2, -1)])
    async def test_bad_range_is_refused(
        self, store: Storage, start: int, stop: int | None
    ) -> None:
        """Before anything is sent, so that it does not matter if the key exists."""
        with pytest.raises(ValueError, match="range"):
            await store.get("absent", start=start, stop=stop)

    # --- keys -----------------------------------------------------------------------

    async def test_keys_are_preserved(self, store: Storage) -> None:
        """Case, Unicode form, spaces and what means something to URLs or files."""
        for number, key in enumerate(STRANGE):
            await store.put(key, bytes([number]))

        assert await keys(store) == sorted(STRANGE)
        for number, key in enumerate(STRANGE):
            assert await store.get(key) == bytes([number])
        await store.delete(STRANGE)
        assert await keys(store) == []

    @pytest.mark.parametrize("key", HOSTILE, ids=lambda key: ascii(key[:9]))
    async def test_hostile_key_is_refused(self, store: Storage, key: str) -> None:
        """By every method, before anything is sent."""
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.get(key),
            lambda: store.put(key, b""),
            lambda: store.put(key, b"", if_absent=True),
            lambda: store.head(key),
            lambda: store.delete([key]),
            lambda: store.grant(key, "GET", expires_in=60),
            lambda: store.grant(key, "PUT", expires_in=60),
        ]

        for call in calls:
            with pytest.raises(ValueError, match="the key"):
                await call()

        assert await keys(store) == []

    @pytest.mark.parametrize(
        "key",
        ["é" * 512, "x" * 1024, "A/" * 511 + "Aa", "é" * 255 + "/" + "Y" * 255],
        ids=["accents", "plain", "deep", "two"],
    )
    async def test_longest_keys_are_held(self, store: Storage, key: str) -> None:
        """1024 bytes of UTF-8, in segments of any length."""
        await store.put(key, b"v", if_absent=True)

        assert await store.get(key) == b"v"
        assert await keys(store) == [key]
        assert await keys(store, key) == [key]
        await store.delete([key])
        assert await keys(store) == []

    async def test_long_keys_are_listed_in_order(self, store: Storage) -> None:
        """Around the length at which a name no longer fits into a file name."""
        stems = ["n" * 239, "n" * 240, "n" * 241, "n" * 481, "é" * 40, "é" * 41]
        wanted = [stem + end for stem in stems for end in ("", "-", "/z", "0", "/z/y")]
        for key in wanted:
            await store.put(key, b"")

        assert await keys(store) == sorted(wanted)
        for key in wanted:
            assert await keys(store, key) == sorted(
                other for other in wanted if other.startswith(key)
            )

    # --- conditional writes ---------------------------------------------------------

    async def test_second_conditional_put_changes_nothing(self, store: Storage) -> None:
        """The error names key and store."""
        await store.put("k", b"1", if_absent=True)

        with pytest.raises(KeyExistsError) as caught:
            await store.put("k", b"2", if_absent=True)

        assert (caught.value.key, caught.value.store) == ("k", store.name)
        assert await store.get("k") == b"1"

    async def test_exactly_one_conditional_put_wins(self, store: Storage) -> None:
        """8 writers, 20 rounds: one winner each, and its bytes are the ones stored."""
        for number in range(20):
            assert await _race(store, f"r/{number}", grants_too=False)

    async def test_conditional_put_and_delete_have_an_order(
        self, store: Storage
    ) -> None:
        """Every successful put needs a delete, or the beginning, before it."""
        written = deleted = 0

        async def write() -> None:
            nonlocal written
            for _ in range(50):
                try:
                    await store.put("k", b"", if_absent=True)
                except KeyExistsError:
                    continue
                written += 1

        async def delete() -> None:
            nonlocal deleted
            for _ in range(50):
                await store.delete(["k"])
                deleted += 1

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(write)
            group.start_soon(delete)

        left = len(await keys(store))
        assert left <= written <= deleted + left

    # --- cancellation and the event loop --------------------------------------------

    async def test_cancellation_is_delivered(self, store: Storage) -> None:
        """A call inside a cancelled scope does not run to its end."""
        await store.put("k", b"v")
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.get("k"),
            lambda: store.head("k"),
            lambda: store.put("k", b"new"),
            lambda: store.delete(["k"]),
            lambda: keys(store),
        ]

        for call in calls:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await call()
            assert scope.cancelled_caught

        assert await store.get("k") == b"v"

    async def test_usable_after_cancelled_gets(self, store: Storage) -> None:
        """128 of them leak nothing that a later get needs."""
        await store.put("k", b"v")

        for _ in range(128):
            async with anyio.create_task_group() as group:
                group.start_soon(store.get, "k")
                await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()

        with anyio.fail_after(5):
            assert await store.get("k") == b"v"

    async def test_cancelled_put_is_whole_or_absent(self, store: Storage) -> None:
        """At whatever step it is cancelled, and nothing comes later."""
        data = b"x" * (2 * MIB)

        for number in range(24):
            async with anyio.create_task_group() as group:
                group.start_soon(store.put, f"k{number}", data)
                for _ in range(number):
                    await anyio.lowlevel.checkpoint()
                group.cancel_scope.cancel()
            key = f"k{number}"
            at_once = await keys(store, key)
            await store.put(f"other{number}", b"")
            assert await keys(store, key) == at_once

        assert {info.size async for info in store.list("k")} <= {len(data)}

    async def test_the_event_loop_runs_on(self, store: Storage) -> None:
        """Other tasks get their turn all the while a large object moves."""
        data = memoryview(bytearray(48 * MIB))
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while True:
                await anyio.lowlevel.checkpoint()
                turns += 1

        async def most_turns(call: Callable[[], Awaitable[object]]) -> int:
            """Return how often others ran, at best: this machine may be busy."""
            most = 0
            for _ in range(10):
                before = turns
                await call()
                most = max(most, turns - before)
                if most > 100:
                    break
            return most

        # A call that held up the loop would leave it the few turns of its own steps.
        async with anyio.create_task_group() as group:
            group.start_soon(take_turns)
            assert await most_turns(lambda: store.put("k", data)) > 30
            assert await most_turns(lambda: store.get("k", start=1)) > 30
            group.cancel_scope.cancel()

    async def test_many_calls_at_once(self, store: Storage) -> None:
        """One store serves 64 tasks."""
        await store.put("k", b"v")

        async def use(number: int) -> None:
            await store.put(f"d/{number}", b"%d" % number)
            assert await store.get("k") == b"v"
            assert await store.get(f"d/{number}") == b"%d" % number

        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                for number in range(64):
                    group.start_soon(use, number)

        assert len(await keys(store, "d/")) == 64

    # --- closing --------------------------------------------------------------------

    async def test_use_after_close_is_an_error(self, store: Storage) -> None:
        """Of wren's, for each method; closing again is none."""
        await store.put("k", b"")
        await store.grant("g", "PUT", expires_in=60)
        await store.aclose()
        await store.aclose()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.get("k"),
            lambda: store.put("k", b""),
            lambda: store.head("k"),
            lambda: store.delete(["k"]),
            lambda: keys(store),
            lambda: store.grant("g", "GET", expires_in=60),
            lambda: store.grant("other", "GET", expires_in=60),
        ]

        for call in calls:
            with pytest.raises(StorageError, match="closed"):
                await call()

    async def test_no_descriptor_or_thread_is_left(self, store: Storage) -> None:
        """However a call ended."""
        await store.put("warm", b"")
        await store.get("warm")
        descriptors, threads = _descriptors(), threading.active_count()

        for number in range(20):
            await store.put(f"a/{number}", b"")
            await store.get(f"a/{number}")
            await store.head(f"a/{number}")
            await missing(lambda: store.get("absent/x"))
            with pytest.raises(KeyExistsError):
                await store.put("warm", b"", if_absent=True)
            await keys(store)
            await store.delete([f"a/{number}"])
        await store.aclose()

        assert _descriptors() == descriptors
        assert threading.active_count() <= threads

    # --- grants ---------------------------------------------------------------------

    async def test_grants_are_honest_about_capabilities(self, store: Storage) -> None:
        """Both stores can do everything that the contract names."""
        capabilities = store.capabilities

        assert capabilities.conditional_put
        assert capabilities.grants
        assert capabilities.conditional_grants

    async def test_get_grant_reads_the_object_as_it_is_then(
        self, store: Storage
    ) -> None:
        """What counts is when the grant is used, not when it was made."""
        await store.put("a/é", b"old")
        grant = await store.grant("a/é", "GET", expires_in=60)

        assert await fetch(grant) == b"old"
        await store.put("a/é", b"new")
        assert await fetch(grant) == b"new"
        await store.delete(["a/é"])
        with pytest.raises(KeyNotFoundError):
            await fetch(grant)

    async def test_grant_on_an_object_leaves_it_in_place(self, store: Storage) -> None:
        """It is found, listed and protected as before."""
        for key in ("a", "b", "c"):
            await store.put(key, key.encode())
        await store.grant("b", "GET", expires_in=60)

        assert await keys(store) == ["a", "b", "c"]
        assert await keys(store, "b") == ["b"]
        assert await keys(store, start_after="a") == ["b", "c"]
        assert await store.get("b", start=0, stop=1) == b"b"
        with pytest.raises(KeyExistsError):
            await store.put("b", b"", if_absent=True)

    async def test_put_grant_writes_the_object(self, store: Storage) -> None:
        """More than once, if it carries no condition; each is seen at once."""
        grant = await store.grant("x/y/z", "PUT", expires_in=60)
        assert await keys(store) == []

        for data in (b"1", b"", b"three"):
            assert await store_by(grant, data) == "written"
            assert await store.get("x/y/z") == data
            assert (await store.head("x/y/z")).size == len(data)
        assert await keys(store, "x/") == ["x/y/z"]
        await store.delete(["x/y/z"])
        assert await keys(store) == []

    async def test_conditional_grant_writes_once(self, store: Storage) -> None:
        """Until the object is deleted, whoever wrote it."""
        grant = await store.grant("k", "PUT", expires_in=60, if_absent=True)

        assert await store_by(grant, b"1") == "written"
        assert await store_by(grant, b"2") == "exists"
        with pytest.raises(KeyExistsError):
            await store.put("k", b"3", if_absent=True)
        assert await store.get("k") == b"1"
        await store.delete(["k"])
        await store.put("k", b"4")
        assert await store_by(grant, b"5") == "exists"
        assert await store.get("k") == b"4"
        await store.delete(["k"])
        assert await store_by(grant, b"6") == "written"

    async def test_conditional_grant_respects_an_older_object(
        self, store: Storage
    ) -> None:
        """The condition is on the store, not on what other grants wrote."""
        await store.put("k", b"old")

        grant = await store.grant("k", "PUT", expires_in=60, if_absent=True)

        assert await store_by(grant, b"new") == "exists"
        assert await store.get("k") == b"old"

    async def test_one_winner_among_puts_and_grants(self, store: Storage) -> None:
        """4 writers here and 4 holders of grants, 20 rounds, one winner each."""
        for number in range(20):
            assert await _race(store, f"r/{number}", grants_too=True)

    async def test_expired_grant_is_refused(self, store: Storage) -> None:
        """A path does not expire by itself; its holder looks at the clock."""
        await store.put("k", b"")
        reading = await store.grant("k", "GET", expires_in=-1)
        writing = await store.grant("k", "PUT", expires_in=-1)

        with pytest.raises(StorageError, match="expired"):
            await fetch(reading)
        with pytest.raises(StorageError, match="expired"):
            await store_by(writing, b"new")

        assert await store.get("k") == b""

    async def test_grant_works_in_another_process(self, store: Storage) -> None:
        """One that has nothing but wren and the grants, as JSON."""
        await store.put("in", b"question")
        reading = await store.grant("in", "GET", expires_in=60)
        writing = await store.grant("out/1", "PUT", expires_in=math.inf, if_absent=True)

        said = await _use_elsewhere(reading, writing)

        assert said == "written exists"
        assert await store.get("out/1") == b"question answered"
        assert await keys(store) == ["in", "out/1"]


HOLDER = """
import json, sys
from wren import grants
reading, writing = json.load(sys.stdin)
parts = [grants.fetch(reading), b"", memoryview(b" answered")]
print(grants.store(writing, parts), grants.store(writing, [b"again"]))
unwanted = {"anyio", "asyncio", "ssl", "http.client", "dataclasses"} & set(sys.modules)
assert not unwanted, unwanted
"""


async def _use_elsewhere(reading: Grant, writing: Grant) -> str:
    text = json.dumps([grants.to_json(reading), grants.to_json(writing)])

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", HOLDER],
            input=text,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    done = await anyio.to_thread.run_sync(run)
    assert done.stderr == ""
    return done.stdout.strip()


async def _race(store: Storage, key: str, *, grants_too: bool) -> bool:
    """Let 8 writers compete and tell if one won and its bytes are the ones stored."""
    won: list[bytes] = []

    async def put(data: bytes) -> None:
        try:
            await store.put(key, data, if_absent=True)
        except KeyExistsError:
            return
        won.append(data)

    async def use_grant(data: bytes) -> None:
        grant = await store.grant(key, "PUT", expires_in=60, if_absent=True)
        if await store_by(grant, data) == "written":
            won.append(data)

    async with anyio.create_task_group() as group:
        for writer in range(8):
            step = use_grant if grants_too and writer % 2 else put
            group.start_soon(step, b"%d" % writer)
    return [await store.get(key)] == won


def _descriptors() -> int:
    folder = Path("/dev/fd")
    return len(list(folder.iterdir()))


class TestMemory(StorageContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Storage]:
        store = MemoryStorage()
        yield store
        await store.aclose()


class TestLocal(StorageContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Storage]:
        store = FileStorage(tmp_path / "root")
        yield store
        await store.aclose()


class TestMemoryGranted(StorageContract):
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
