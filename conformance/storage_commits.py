"""Checks of conditional writes, on which commits rest, and of refusing honestly."""

from __future__ import annotations

from random import Random
from typing import Final

import anyio
import pytest

from wren.conformance.histories import History, is_linearizable
from wren.conformance.spec import Level, check
from wren.conformance.storage_calls import (
    PATIENCE,
    VALID,
    keys_of,
    require_conditional_put,
)
from wren.errors import KeyExistsError, KeyNotFoundError, UnsupportedError
from wren.protocols import Storage

_KEYS: Final = 8
_CLIENTS: Final = 4
_STEPS: Final = 6


class CommitChecks:
    """One of any number of writers wins, and what it wrote stays."""

    @check("S24", Level.COMMIT)
    async def test_second_conditional_put_changes_nothing(self, store: Storage) -> None:
        """The error names key and store, and the first content stays."""
        await require_conditional_put(store)
        await store.put("k", b"1", if_absent=True)

        with pytest.raises(KeyExistsError) as caught:
            await store.put("k", b"2", if_absent=True)

        assert (caught.value.key, caught.value.store) == ("k", store.name)
        assert await store.get("k") == b"1"

    @check("S24", Level.COMMIT)
    async def test_conditional_put_respects_any_object(self, store: Storage) -> None:
        """Also one that is empty, or was written without a condition."""
        await require_conditional_put(store)
        await store.put("a", b"old")
        await store.put("b", b"")

        for key in ("a", "b"):
            with pytest.raises(KeyExistsError):
                await store.put(key, b"new", if_absent=True)

        assert await store.get("a") == b"old"
        assert await store.get("b") == b""

    @check("S24", Level.COMMIT)
    async def test_conditional_put_sees_only_its_own_key(self, store: Storage) -> None:
        """A longer key, or what looks like a folder, does not take its place."""
        await require_conditional_put(store)
        await store.put("a/b", b"")
        await store.put("ab", b"")

        await store.put("a", b"1", if_absent=True)

        assert await store.get("a") == b"1"

    @check("S25", Level.COMMIT)
    async def test_exactly_one_conditional_put_wins(self, store: Storage) -> None:
        """8 writers, 20 rounds: one winner each, and its bytes are the ones stored."""
        await require_conditional_put(store)

        for number in range(20):
            key = f"r/{number}"
            won = await _race(store, key)
            assert [await store.get(key)] == won

    @check("S26", Level.COMMIT)
    async def test_conditional_put_and_delete_have_an_order(
        self, store: Storage
    ) -> None:
        """4 clients create, delete and read: one order explains all they saw."""
        await require_conditional_put(store)
        histories = [History() for _ in range(_KEYS)]

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                for number, history in enumerate(histories):
                    for client in range(_CLIENTS):
                        group.start_soon(
                            _use,
                            store,
                            f"k{number}",
                            history,
                            _CLIENTS * number + client,
                        )

        for history in histories:
            assert len(history.operations) == _CLIENTS * _STEPS
            assert is_linearizable(history.operations), history.operations

    @check("S48")
    async def test_undeclared_capability_is_refused(self, store: Storage) -> None:
        """What is not declared raises `UnsupportedError` and changes nothing."""
        offered = store.capabilities
        await store.put("k", b"old")

        for key in ("k", "new"):
            if not offered.conditional_put:
                with pytest.raises(UnsupportedError):
                    await store.put(key, b"", if_absent=True)
            if not offered.grants:
                with pytest.raises(UnsupportedError):
                    await store.grant(key, "GET", expires_in=VALID)
                with pytest.raises(UnsupportedError):
                    await store.grant(key, "PUT", expires_in=VALID)
            if not offered.conditional_grants:
                with pytest.raises(UnsupportedError):
                    await store.grant(key, "PUT", expires_in=VALID, if_absent=True)

        assert await keys_of(store) == ["k"]
        assert await store.get("k") == b"old"
        assert offered.grants or not offered.conditional_grants


async def _race(store: Storage, key: str) -> list[bytes]:
    """Let 8 writers compete, and return what the winners wrote."""
    won: list[bytes] = []

    async def write(data: bytes) -> None:
        try:
            await store.put(key, data, if_absent=True)
        except KeyExistsError:
            return
        won.append(data)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            for writer in range(8):
                group.start_soon(write, b"%d" % writer)
    return won


async def _use(store: Storage, key: str, history: History, seed: int) -> None:
    """Take a client's steps, the same ones each time."""
    draw = Random(seed)  # noqa: S311  # not a secret
    for step in range(_STEPS):
        kind = draw.choice(("create", "create", "delete", "get"))
        began = history.now()
        if kind == "create":
            mine = b"%d %d" % (seed, step)
            try:
                await store.put(key, mine, if_absent=True)
            except KeyExistsError:
                history.add("create", mine, began, succeeded=False)
            else:
                history.add("create", mine, began)
        elif kind == "delete":
            await store.delete([key])
            history.add("delete", None, began)
        else:
            try:
                found = await store.get(key)
            except KeyNotFoundError:
                history.add("get", None, began)
            else:
                history.add("get", found, began)
