"""Checks of grants, each used as a worker does: by the standard library's client."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Final

import anyio
import pytest

from wren import grants
from wren.config import worker_environment
from wren.conformance.spec import Level, check, not_offered
from wren.conformance.storage_calls import (
    PATIENCE,
    VALID,
    Call,
    fetch,
    keys_of,
    put_all,
    require_grants,
    store_by,
)
from wren.errors import (
    KeyExistsError,
    KeyNotFoundError,
    StorageError,
    TransientError,
)
from wren.protocols import Grant, Storage
from wren.storage.parts import PART

# Longer than any clocks that a store would accept to differ.
_EXPIRY: Final = 60.0

_HOLDER: Final = """
import json, sys
from wren import grants
reading, writing = json.load(sys.stdin)
parts = [grants.fetch(reading), b"", memoryview(b" answered")]
print(grants.store(writing, parts))
unwanted = {"anyio", "asyncio", "cloudpickle"} & set(sys.modules)
assert not unwanted, unwanted
"""


class GrantChecks:
    """A grant is good for one request on one object, and for nothing else."""

    @check("S39", Level.EXTENDED)
    async def test_get_grant_reads_the_object_as_it_is_then(
        self, store: Storage
    ) -> None:
        """What counts is when the grant is used, not when it was made."""
        await require_grants(store)
        await store.put("a/é +%", b"old")
        grant = await store.grant("a/é +%", "GET", expires_in=VALID)

        assert await fetch(grant) == b"old"
        await store.put("a/é +%", b"new")
        assert await fetch(grant) == b"new"
        await store.delete(["a/é +%"])
        with pytest.raises(KeyNotFoundError):
            await fetch(grant)

    @check("S39", Level.EXTENDED)
    async def test_granting_leaves_the_object_in_place(self, store: Storage) -> None:
        """It is found, listed and protected as before."""
        await require_grants(store)
        await put_all(store, ("a", "b", "c"), b"body")
        await store.grant("b", "GET", expires_in=VALID)

        assert await keys_of(store) == ["a", "b", "c"]
        assert await keys_of(store, "b") == ["b"]
        assert await keys_of(store, start_after="a") == ["b", "c"]
        assert await store.get("b", start=0, stop=1) == b"b"
        if store.capabilities.conditional_put:
            with pytest.raises(KeyExistsError):
                await store.put("b", b"", if_absent=True)

    @check("S39", Level.EXTENDED)
    async def test_put_grant_writes_the_object(self, store: Storage) -> None:
        """More than once, if it carries no condition; each is seen at once."""
        await require_grants(store)
        grant = await store.grant("x/y/é +%", "PUT", expires_in=VALID)
        assert await keys_of(store) == []

        for data in (b"1", b"", b"three"):
            assert await store_by(grant, data) == "written"
            assert await store.get("x/y/é +%") == data
            assert (await store.head("x/y/é +%")).size == len(data)
        assert await keys_of(store, "x/") == ["x/y/é +%"]
        await store.delete(["x/y/é +%"])
        assert await keys_of(store) == []

    @check("S39", Level.EXTENDED)
    async def test_grants_carry_large_objects(self, store: Storage) -> None:
        """More than a part, in one request each way."""
        await require_grants(store)
        data = (bytes(range(251)) * (PART // 251 + 1))[: PART + 1]
        writing = await store.grant("k", "PUT", expires_in=VALID)
        reading = await store.grant("k", "GET", expires_in=VALID)

        assert await store_by(writing, data) == "written"

        same = await fetch(reading) == data
        assert same
        same = await store.get("k") == data
        assert same

    @check("S39", Level.EXTENDED)
    async def test_grant_is_for_one_object(self, store: Storage) -> None:
        """Its holder cannot put another key in its place."""
        await require_grants(store)
        await put_all(store, ("d/mine", "d/other"), b"old")
        reading = await store.grant("d/mine", "GET", expires_in=VALID)
        writing = await store.grant("d/mine", "PUT", expires_in=VALID)
        _require_signature(reading)

        await _is_refused(lambda: fetch(_for_another_key(reading)))
        await _is_refused(lambda: store_by(_for_another_key(writing), b"new"))

        assert await store.get("d/other") == b"old"

    @check("S39", Level.EXTENDED)
    async def test_grant_is_for_one_method(self, store: Storage) -> None:
        """Who may read cannot write, and the reverse."""
        await require_grants(store)
        await store.put("k", b"old")
        reading = await store.grant("k", "GET", expires_in=VALID)
        writing = await store.grant("k", "PUT", expires_in=VALID)
        _require_signature(reading)

        await _is_refused(lambda: store_by(replace(reading, method="PUT"), b"new"))
        await _is_refused(lambda: fetch(replace(writing, method="GET")))

        assert await store.get("k") == b"old"

    @check("S39", Level.EXTENDED)
    async def test_grant_works_in_another_process(self, store: Storage) -> None:
        """One that has nothing but wren and the grants, as JSON."""
        await require_grants(store)
        await store.put("in", b"question")
        reading = await store.grant("in", "GET", expires_in=VALID)
        writing = await store.grant("out/1", "PUT", expires_in=VALID)

        assert await _use_elsewhere(reading, writing) == "written"

        assert await store.get("out/1") == b"question answered"
        assert await keys_of(store) == ["in", "out/1"]

    @check("S40", Level.COMMIT)
    async def test_conditional_grant_writes_once(self, store: Storage) -> None:
        """Until the object is deleted, whoever wrote it."""
        await require_grants(store, conditional=True)
        grant = await store.grant("k", "PUT", expires_in=VALID, if_absent=True)

        assert await store_by(grant, b"1") == "written"
        assert await store_by(grant, b"2") == "exists"
        assert await store.get("k") == b"1"
        await store.delete(["k"])
        await store.put("k", b"3")
        assert await store_by(grant, b"4") == "exists"
        assert await store.get("k") == b"3"
        await store.delete(["k"])
        assert await store_by(grant, b"5") == "written"

    @check("S40", Level.COMMIT)
    async def test_conditional_grant_respects_an_older_object(
        self, store: Storage
    ) -> None:
        """The condition is on the store, not on what other grants wrote."""
        await require_grants(store, conditional=True)
        await store.put("k", b"old")

        grant = await store.grant("k", "PUT", expires_in=VALID, if_absent=True)

        assert await store_by(grant, b"new") == "exists"
        assert await store.get("k") == b"old"

    @check("S40", Level.COMMIT)
    async def test_one_winner_among_puts_and_grants(self, store: Storage) -> None:
        """4 writers here and 4 holders of grants, 10 rounds, one winner each."""
        await require_grants(store, conditional=True)

        for number in range(10):
            key = f"r/{number}"
            won = await _race(store, key)
            assert [await store.get(key)] == won

    @check("S40", Level.COMMIT)
    async def test_holder_cannot_leave_the_condition_out(self, store: Storage) -> None:
        """A PUT without one of the grant's headers, or without all, writes nothing."""
        await require_grants(store, conditional=True)
        await store.put("k", b"old")
        grant = await store.grant("k", "PUT", expires_in=VALID, if_absent=True)
        _require_signature(grant)
        fewer = [
            {name: value for name, value in grant.headers.items() if name != left_out}
            for left_out in grant.headers
        ]

        for headers in ({}, *fewer):
            try:
                outcome = await store_by(replace(grant, headers=headers), b"new")
            except StorageError as exc:
                assert not isinstance(exc, TransientError)  # noqa: PT017
            else:
                assert outcome == "exists"
            assert await store.get("k") == b"old"

    @check("S41", Level.EXTENDED)
    async def test_expired_grant_is_refused(self, store: Storage) -> None:
        """After its time, which a store may round up and measure by its own clock."""
        await require_grants(store)
        await store.put("k", b"old")
        reading = await store.grant("k", "GET", expires_in=0.1)
        writing = await store.grant("k", "PUT", expires_in=0.1)

        with anyio.fail_after(_EXPIRY):
            error = await _until_refused(reading)
        assert not isinstance(error, KeyNotFoundError | TransientError)
        with pytest.raises(StorageError):
            await store_by(writing, b"new")

        assert await store.get("k") == b"old"


def _require_signature(grant: Grant) -> None:
    """End the check where a grant is a path, which no store can guard."""
    if grant.url.startswith("file:"):
        not_offered("signed grants")


def _for_another_key(grant: Grant) -> Grant:
    return replace(grant, url=grant.url.replace("mine", "other"))


async def _is_refused(call: Call) -> None:
    """Assert that a grant is not accepted, for good."""
    with pytest.raises(StorageError) as caught:
        await call()
    assert not isinstance(caught.value, TransientError)


async def _until_refused(grant: Grant) -> StorageError:
    """Use a GET grant again and again until it is refused."""
    while True:
        try:
            await fetch(grant)
        except StorageError as exc:
            return exc
        await anyio.sleep(0.1)


async def _race(store: Storage, key: str) -> list[bytes]:
    """Let 8 writers compete, and return what the winners wrote."""
    won: list[bytes] = []

    async def put(data: bytes) -> None:
        try:
            await store.put(key, data, if_absent=True)
        except KeyExistsError:
            return
        won.append(data)

    async def use_grant(data: bytes) -> None:
        grant = await store.grant(key, "PUT", expires_in=VALID, if_absent=True)
        if await store_by(grant, data) == "written":
            won.append(data)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            for writer in range(8):
                both = store.capabilities.conditional_put
                step = use_grant if writer % 2 or not both else put
                group.start_soon(step, b"%d" % writer)
    return won


async def _use_elsewhere(reading: Grant, writing: Grant) -> str:
    """Use two grants in a process that inherits no credentials."""
    text = json.dumps([grants.to_json(reading), grants.to_json(writing)])

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603  # our own code
            [sys.executable, "-c", _HOLDER],
            input=text,
            capture_output=True,
            text=True,
            env=worker_environment(),
            timeout=PATIENCE,
            check=False,
        )

    done = await anyio.to_thread.run_sync(run)
    assert done.stderr == ""
    return done.stdout.strip()
