"""Calls on a store that many checks make."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, TypeAlias

import anyio
import pytest

from wren import grants
from wren.conformance.spec import not_offered
from wren.errors import KeyNotFoundError, UnsupportedError
from wren.protocols import Buffer, Grant, Storage

MIB: Final = 1024 * 1024

PATIENCE: Final = 120.0
"""Seconds after which a call is taken to hang. Far more than any store needs."""

VALID: Final = 600.0
"""Seconds for which a grant is valid that shall not expire during a check."""

Call: TypeAlias = Callable[[], Coroutine[Any, Any, object]]


async def keys_of(
    store: Storage, prefix: str = "", *, start_after: str = ""
) -> list[str]:
    """Return the listed keys in the order given."""
    return [info.key async for info in store.list(prefix, start_after=start_after)]


async def put_all(store: Storage, keys: Iterable[str], data: Buffer = b"") -> None:
    """Write the same content to every key, all at once."""
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            for key in keys:
                group.start_soon(store.put, key, data)


async def is_missing(call: Call) -> None:
    """Assert that a call finds no object."""
    with pytest.raises(KeyNotFoundError):
        await call()


async def require_conditional_put(store: Storage) -> None:
    """End the check, unless the store has conditional writes.

    One that declares none must refuse, and write nothing.
    """
    if store.capabilities.conditional_put:
        return
    with pytest.raises(UnsupportedError):
        await store.put("refused", b"", if_absent=True)
    assert await keys_of(store) == []
    not_offered("conditional_put")


async def require_grants(store: Storage, *, conditional: bool = False) -> None:
    """End the check, unless the store makes such grants.

    One that declares none must refuse, and create nothing.

    Args:
        store: The store.
        conditional: The check needs grants that carry the condition.
    """
    offered = store.capabilities
    if not offered.grants:
        for method in ("GET", "PUT"):
            with pytest.raises(UnsupportedError):
                await store.grant("refused", method, expires_in=VALID)
    if not offered.conditional_grants:
        with pytest.raises(UnsupportedError):
            await store.grant("refused", "PUT", expires_in=VALID, if_absent=True)
    assert await keys_of(store) == []
    if not offered.grants:
        not_offered("grants")
    if conditional and not offered.conditional_grants:
        not_offered("conditional_grants")


async def fetch(grant: Grant) -> bytes:
    """Use a GET grant as its holder does, off the event loop."""
    return await anyio.to_thread.run_sync(grants.fetch, grants.to_json(grant))


async def store_by(grant: Grant, data: bytes) -> str:
    """Use a PUT grant as its holder does, off the event loop."""
    return await anyio.to_thread.run_sync(grants.store, grants.to_json(grant), [data])
