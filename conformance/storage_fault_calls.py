"""What checks of faults do with a proxy and with errors."""

from __future__ import annotations

import traceback
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import anyio
import pytest

from wren.conformance.fault_plan import Fault, FaultPlan
from wren.conformance.proxy import FaultProxy
from wren.conformance.storage_calls import PATIENCE, Call
from wren.errors import StorageError
from wren.protocols import Storage

ALWAYS: Final = 1000
"""Times that a fault happens: more than anybody tries."""

BODY: Final = bytes(range(256)) * 64


async def warm_up(store: Storage) -> None:
    """Have connections, tokens and what else a first call needs; leave no object."""
    await store.put("warm", b"")
    await store.get("warm")
    await store.delete(["warm"])


@contextmanager
def failing(proxy: FaultProxy, fault: Fault) -> Generator[None]:
    """Have something go wrong, and demand that it did."""
    with FaultPlan(fault) as plan:
        proxy.plan = plan
        try:
            yield
        finally:
            proxy.plan = FaultPlan()


async def fails_with(expected: type[StorageError], call: Call) -> None:
    """Assert that a call ends with one of wren's errors, and in time."""
    with anyio.fail_after(PATIENCE), pytest.raises(expected):
        await call()


async def tell(call: Call, told: list[str]) -> None:
    """Make a call, and note all that may be printed of its error."""
    try:
        await call()
    except StorageError as exc:
        told += [str(exc), repr(exc), *traceback.format_exception(exc)]
