"""How many invocations may be in flight: as many as the platform takes."""

from __future__ import annotations

import random
import time
from typing import Final

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 20.0

PATIENCE: Final = 600.0
"""Seconds of nothing but throttling after which a task fails."""


class Window:
    """Additive increase, multiplicative decrease, as TCP does it."""

    def __init__(self, most: int) -> None:
        """Start wide open.

        Args:
            most: What the platform promises.
        """
        self._most = most
        self._size = float(most)
        self._in_a_row = 0
        self._shrunk = 0.0
        self.progress = time.monotonic()
        """When something last succeeded, on the clock `time.monotonic`."""

    @property
    def size(self) -> int:
        """Most invocations in flight now; at least 1."""
        return int(self._size)

    def succeeded(self) -> None:
        """Widen by one for every window of successes."""
        self._in_a_row = 0
        self.progress = time.monotonic()
        if self._size < self._most:
            self._size = min(self._most, self._size + 1 / self._size)

    def throttled(self, sent: float, retry_after: float | None) -> float:
        """Halve, and return how many seconds to wait before trying again.

        Args:
            sent: When the request was sent, on the clock `time.monotonic`. Requests
                that were on their way when the window was last halved do not halve it
                again.
            retry_after: Seconds the platform asked for.
        """
        now = time.monotonic()
        if sent >= self._shrunk:
            self._shrunk = now
            self._size = max(1.0, self._size / 2)
            self._in_a_row += 1
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._in_a_row, 16))
        # Full jitter:
        # https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
        pause = random.uniform(0, longest)  # noqa: S311  # not a secret
        return pause + (retry_after or 0.0)
