"""Checks of cancellation, of many calls at once, and of closing."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import anyio
import anyio.lowlevel
import pytest

from wren.conformance.spec import Level, check
from wren.conformance.storage_calls import (
    MIB,
    PATIENCE,
    VALID,
    Call,
    is_missing,
    keys_of,
)
from wren.errors import StorageError
from wren.protocols import Storage
from wren.storage.parts import PART

_SOON: Final = 30.0  # seconds; a call that takes longer waits for what never comes

# How the event loops name the threads that all calls share, and that they keep.
_POOLS: Final = ("AnyIO worker thread", "asyncio_", "Trio thread", "trio.")


class ConcurrencyChecks:
    """A call can be cancelled, disturbs no other, and leaves nothing behind."""

    @pytest.fixture
    def uploads_left(self) -> Callable[[], Awaitable[int]] | None:
        """Counts the uploads that were begun and not ended, where a store has such."""
        return None

    @check("S31")
    async def test_cancelled_beforehand_does_nothing(self, store: Storage) -> None:
        """A call inside a cancelled scope ends at once, and nothing is sent."""
        await store.put("k", b"v")
        calls: list[Call] = [
            lambda: store.get("k"),
            lambda: store.head("k"),
            lambda: store.put("k", b"new"),
            lambda: store.delete(["k"]),
            lambda: keys_of(store),
        ]

        for call in calls:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await call()
            assert scope.cancelled_caught

        assert await store.get("k") == b"v"

    @check("S31")
    async def test_usable_after_cancelled_gets(self, store: Storage) -> None:
        """128 of them, at whatever step, leak nothing that a later get needs."""
        await store.put("k", b"v" * MIB)
        began = time.monotonic()
        await store.get("k")
        usual = time.monotonic() - began

        with anyio.fail_after(PATIENCE):
            for number in range(64):
                await _cancel_after_steps(lambda: store.get("k"), number % 16)
                await _cancel_after(lambda: store.get("k"), usual * number / 64)

        with anyio.fail_after(_SOON):
            assert len(await store.get("k")) == MIB

    @check("S32")
    async def test_cancelled_put_is_whole_or_absent(self, store: Storage) -> None:
        """At whatever step it is cancelled."""
        data = b"x" * (2 * MIB)
        began = time.monotonic()
        await store.put("k", data)
        usual = time.monotonic() - began

        with anyio.fail_after(PATIENCE):
            for number in range(12):
                steps, waits = f"k{number}/steps", f"k{number}/waits"
                await _cancel_after_steps(partial(store.put, steps, data), number)
                await _cancel_after(
                    partial(store.put, waits, data), usual * number / 12
                )
            found = [info async for info in store.list("k")]

        assert {info.size for info in found} == {len(data)}
        for info in found:
            same = await store.get(info.key) == data
            assert same

    @check("S33")
    async def test_the_event_loop_runs_on(self, store: Storage) -> None:
        """Other tasks get their turn all the while a large object moves."""
        data = memoryview(bytearray(48 * MIB))
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while True:
                await anyio.lowlevel.checkpoint()
                turns += 1

        async def most_turns(call: Call) -> int:
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

    @check("S33")
    async def test_many_calls_at_once(self, store: Storage) -> None:
        """One store serves 64 tasks, and gives each its own answer."""
        await store.put("k", b"v")

        async def use(number: int) -> None:
            await store.put(f"d/{number}", b"%d" % number)
            assert await store.get("k") == b"v"
            assert await store.get(f"d/{number}") == b"%d" % number
            assert (await store.head(f"d/{number}")).key == f"d/{number}"

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                for number in range(64):
                    group.start_soon(use, number)

        assert len(await keys_of(store, "d/")) == 64

    @check("S34")
    async def test_use_after_close_is_an_error(self, store: Storage) -> None:
        """Of wren's, for each method; closing again is none."""
        await store.put("k", b"")
        await store.aclose()
        await store.aclose()
        calls: list[Call] = [
            lambda: store.get("k"),
            lambda: store.put("k", b""),
            lambda: store.head("k"),
            lambda: store.delete(["k"]),
            lambda: keys_of(store),
        ]
        if store.capabilities.grants:
            calls.append(lambda: store.grant("k", "GET", expires_in=VALID))
            calls.append(lambda: store.grant("other", "PUT", expires_in=VALID))

        for call in calls:
            with pytest.raises(StorageError, match="closed"):
                await call()

    @check("S34")
    async def test_closing_an_unused_store_is_no_error(self, store: Storage) -> None:
        """Nothing was opened, so there is nothing to close."""
        await store.aclose()

    @check("S34")
    async def test_nothing_is_left_after_closing(self, store: Storage) -> None:
        """No descriptor, thread or task, however calls ended."""
        await _use_once(store)  # imports, authorities, the threads that calls share
        before = await _held()

        for _ in range(10):
            await _use_once(store)
        await store.aclose()

        # A connection that was closed is taken down in a later turn of the loop, and
        # nothing tells when.
        with anyio.move_on_after(_SOON):
            while (await _held()).exceeds(before):  # noqa: ASYNC110  # as said
                await anyio.sleep(0.01)
        now = await _held()
        assert not now.exceeds(before), (before, now)

    @check("S45", Level.EXTENDED)
    async def test_interrupted_upload_leaves_nothing(
        self, store: Storage, uploads_left: Callable[[], Awaitable[int]] | None
    ) -> None:
        """An object that goes up in parts is whole or absent, and so are its parts."""
        data = bytes(3 * PART)
        began = time.monotonic()
        await store.put("k", data)
        usual = time.monotonic() - began

        with anyio.fail_after(PATIENCE):
            for number in range(1, 8):
                await _cancel_after(
                    partial(store.put, f"k{number}", data), usual * number / 8
                )

        assert {info.size async for info in store.list("k")} == {len(data)}
        if uploads_left is not None:
            assert await uploads_left() == 0


class _Held(NamedTuple):
    """What this process holds at one moment."""

    descriptors: int
    threads: int
    tasks: int

    def exceeds(self, other: _Held) -> bool:
        return any(mine > its for mine, its in zip(self, other, strict=True))


async def _held() -> _Held:
    return _Held(
        await anyio.to_thread.run_sync(_descriptors),
        sum(not each.name.startswith(_POOLS) for each in threading.enumerate()),
        len(anyio.get_running_tasks()),
    )


def _descriptors() -> int:
    folder = Path("/dev/fd")  # on Windows there is none: threads and tasks still count
    return len(list(folder.iterdir())) if folder.exists() else 0


async def _use_once(store: Storage) -> None:
    """Make each call, one that fails included."""
    await store.put("a/k", b"")
    await store.get("a/k")
    await store.head("a/k")
    await is_missing(lambda: store.get("absent/x"))
    await keys_of(store)
    if store.capabilities.grants:
        await store.grant("a/k", "GET", expires_in=VALID)
    await store.delete(["a/k"])


async def _cancel_after_steps(call: Call, steps: int) -> None:
    """Begin a call and cancel it after so many turns of the event loop."""
    async with anyio.create_task_group() as group:
        group.start_soon(call)
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()


async def _cancel_after(call: Call, seconds: float) -> None:
    """Begin a call and cancel it after a time, unless it has ended."""
    with anyio.move_on_after(seconds):
        await call()
