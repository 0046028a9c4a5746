"""How long to wait before something is tried again."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

from wren.errors import TransientError

T = TypeVar("T")

_TRIES: Final = 3
_FIRST: Final = 0.1
_LONGEST: Final = 5.0

_log = logging.getLogger("wren")


def jitter(attempt: int) -> float:
    """Return the seconds to wait after a failure, drawn from zero to a bound.

    Args:
        attempt: How many have failed, from 1. The bound is 0.1 s at first, and doubles
            with each, up to 5 s.
    """
    return random.uniform(0, min(_LONGEST, _FIRST * 2 ** (attempt - 1)))  # noqa: S311


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Return what a request to storage returns, tried at most three times.

    Stores that are reached over a network try again themselves and for longer. This is
    for those that do not, and it is no attempt of any task.

    Args:
        call: Makes the request; doing so twice must do no harm.

    Raises:
        TransientError: Of the last try.
    """
    for attempt in range(1, _TRIES):
        try:
            return await call()
        except TransientError as exc:
            _log.info("storage: %s; trying again", exc)
        await anyio.sleep(jitter(attempt))
    return await call()
