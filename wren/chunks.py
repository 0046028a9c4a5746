"""How many tasks go into one invocation."""

from __future__ import annotations

import math
from typing import Final

MOST: Final = 32_768
"""Most tasks in one invocation: (un)pickling them takes about half a millisecond."""

_MOST_BYTES: Final = 1 << 20
_SHORTEST: Final = 0.002
_LONGEST: Final = 2.0
_OVERHEADS: Final = 20
_GROWTH: Final = 8
_SHARES: Final = 2


class Pace:
    """What is known of one function's tasks; outlives the job that learned it."""

    __slots__ = ("bytes", "seconds")

    def __init__(self) -> None:
        self.seconds: float | None = None
        """Of a worker, for each task."""

        self.bytes = 0.0
        """Of request and response, for each task."""

    def observe(self, tasks: int, seconds: float, size: int) -> None:
        """Learn from one invocation."""
        each = seconds / tasks
        self.seconds = each if self.seconds is None else (self.seconds + each) / 2
        self.bytes = (self.bytes + size / tasks) / 2


class ChunkSizer:
    """Chooses the size of the next chunk of one job.

    Tasks go alone until it is known how long they take. Then a chunk is as long as
    makes the cost of an invocation small beside it (20 times that cost, between 2 ms
    and 2 s), grows at most eightfold at a time, and is never more than half of what
    each worker would still get if the rest were shared out evenly, so that all stay
    busy to the end.
    """

    def __init__(self, fixed: int | None, workers: int, pace: Pace) -> None:
        """Begin a job.

        Args:
            fixed: The size that the caller asks for, or None.
            workers: How many invocations run at a time.
            pace: What earlier jobs learned about this function.
        """
        self._fixed = fixed
        self._workers = workers
        self._pace = pace
        self._last = 1 if pace.seconds is None else MOST
        self._overhead = math.inf

    def size(self, left: int | None, most: int) -> int:
        """Return how many tasks to take next, at least 1.

        Args:
            left: Tasks not yet taken, or None where that is unknown.
            most: A further limit.
        """
        if self._fixed is not None:
            return self._fixed
        each = self._pace.seconds
        if each is None:
            return 1
        long = self._long_enough() / max(each, 1e-9)
        size = min(long, self._last * _GROWTH, MOST, most)
        if self._pace.bytes:
            size = min(size, _MOST_BYTES / self._pace.bytes)
        if left is not None:
            share = left / (self._workers * _SHARES)
            size = min(size, max(share, long / 4))
        self._last = max(1, int(size))
        return self._last

    def observe(self, tasks: int, seconds: float, elapsed: float, size: int) -> None:
        """Learn from an invocation.

        Args:
            tasks: How many it ran.
            seconds: The worker's time.
            elapsed: The driver's time; the difference is what an invocation costs.
            size: Bytes of request and response.
        """
        self._pace.observe(tasks, seconds, size)
        # The least is meant: others waited in a queue or started a worker.
        self._overhead = min(self._overhead, max(0.0, elapsed - seconds))

    def expected(self, tasks: int) -> float:
        """Return how many seconds this many tasks should take."""
        return tasks * (self._pace.seconds or 0.0)

    def _long_enough(self) -> float:
        if self._overhead == math.inf:
            return _SHORTEST
        return min(max(_OVERHEADS * self._overhead, _SHORTEST), _LONGEST)
