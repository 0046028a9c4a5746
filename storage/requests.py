"""How requests to a remote store are limited and tried again, in one place.

Clients' own retries are switched off: they do not know which answer is final, and two
layers of them multiply.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

import anyio

from wren.backoff import jitter
from wren.errors import TransientError

if TYPE_CHECKING:
    from wren.config import Settings

T = TypeVar("T")

CONNECT_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 20.0
"""Longest silence on a connection that is open: waiting to send or to receive."""

_TRIES: Final = 6
_PATIENCE: Final = 60.0
_LEAST_SLOTS: Final = 64
_MOST_SLOTS: Final = 256


def pool_size(settings: Settings) -> int:
    """Return how many connections a store opens: as many as there are invocations.

    Never fewer than 64, since a job reads many objects ahead of its invocations, and
    never more than 256, since each costs a descriptor and the store's own limit per
    prefix is reached before.
    """
    return min(max(settings.concurrency or 0, _LEAST_SLOTS), _MOST_SLOTS)


class Requests:
    """A bounded number of requests at a time, each tried until it is answered.

    A request waits for its slot before it is made, and gives it back while it pauses.
    So it is signed when it is about to be sent: a signature that waits in a queue for
    longer than the store tolerates is refused.
    """

    def __init__(self, slots: int, *, patience: float = _PATIENCE) -> None:
        """Describe the limits.

        Args:
            slots: Most requests in flight.
            patience: Seconds after which nothing is tried again.
        """
        self.slots = slots
        self._patience = patience
        self._limiter: anyio.Semaphore | None = None

    async def run(self, send: Callable[[], Awaitable[T]]) -> T:
        """Return what ``send`` returns.

        Args:
            send: Makes one request. Raises `TransientError` if it may be made again,
                and any other error if that cannot help.

        Raises:
            TransientError: After the last of six tries, or when no time is left.
        """
        if self._limiter is None:  # made here, where an event loop runs
            self._limiter = anyio.Semaphore(self.slots, fast_acquire=True)
        give_up = time.monotonic() + self._patience
        for attempt in range(1, _TRIES + 1):
            try:
                async with self._limiter:
                    return await send()
            except TransientError:
                pause = jitter(attempt)
                if attempt == _TRIES or time.monotonic() + pause > give_up:
                    raise
            await anyio.sleep(pause)
        raise AssertionError("the last try returns or raises")
