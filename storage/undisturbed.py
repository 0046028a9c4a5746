"""Calls of several requests on one object, which other writers may come between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from wren.errors import StorageError, TransientError

T = TypeVar("T")

_BEGINNINGS: Final = 6


class DisturbedError(StorageError):
    """Another writer has replaced what the call had begun to work on."""


async def undisturbed(call: Callable[[], Awaitable[T]]) -> T:
    """Return what a call returns, begun anew each time that it was disturbed.

    Args:
        call: Raises `DisturbedError` where another writer came between.

    Raises:
        TransientError: One did, six times.
    """
    for left in reversed(range(_BEGINNINGS)):
        try:
            return await call()
        except DisturbedError as exc:
            if not left:
                told = f"other writers came between, {_BEGINNINGS} times"
                raise TransientError(told, store=exc.store, key=exc.key) from exc
    raise AssertionError("the last call returns or raises")
