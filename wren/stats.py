"""Counts and timings of a job and of its tasks."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, Final

_RECENT: Final = 10_000
"""Invocations remembered of a job over an input without a length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStats:
    """What is known of one task. Tasks that shared an invocation share its numbers."""

    index: int
    """Position in the input, from 0."""

    attempts: int
    """Executions that counted, the last one included."""

    shared_with: int
    """Other tasks in the same invocation."""

    queued: float
    """When its arguments were ready: seconds since the epoch, on the driver's clock."""

    started: float
    """When its worker began: seconds since the epoch, on the worker's clock."""

    finished: float
    """When its outcome was known: seconds since the epoch, on the driver's clock."""

    seconds: float
    """How long the worker was busy with the invocation."""

    cold: bool
    """The worker handled its first request."""

    worker: str
    """Name of the worker."""

    bytes_in: int
    """Size of the request."""

    bytes_out: int
    """Size of the response."""

    peak_memory: int
    """Largest resident size of the worker process so far, in bytes."""


@dataclass(slots=True, kw_only=True)
class JobStats:
    """Counters of one job so far."""

    total: int | None = None
    """Tasks, where the input has a length or has ended."""

    dispatched: int = 0
    """Tasks taken from the input."""

    finished: int = 0
    """Tasks with a result."""

    failed: int = 0
    """Tasks that ended with an exception."""

    cancelled: int = 0
    """Tasks cancelled after they were taken from the input."""

    invocations: int = 0
    """Requests sent to the platform, repeated ones included."""

    retried: int = 0
    """Attempts beyond the first, summed over tasks."""

    throttled: int = 0
    """Requests that the platform turned away."""

    storage_requests: int = 0
    """Requests that the driver sent to storage."""

    cold_starts: int = 0
    """Invocations that were their worker's first."""

    workers: int = 0
    """Different workers that answered."""

    bytes_in: int = 0
    """Bytes of all requests."""

    bytes_out: int = 0
    """Bytes of all responses."""

    busy_seconds: float = 0.0
    """Time that workers were busy, summed."""

    peak_memory: int = 0
    """Largest resident size of any worker, in bytes."""

    started: float = 0.0
    """When the job was made, in seconds since the epoch."""

    ended: float | None = None
    """When its last task ended."""


class History:
    """One row for each invocation that brought outcomes, in columns of machine numbers.

    A million rows take 90 MB; as objects they would take five times as much.
    """

    __slots__ = ("_columns", "_names", "_numbers", "_order", "_workers")

    # start, count, attempts, queued, started, finished, seconds, cold, worker, in, out,
    # peak
    _TYPES: Final = "QLLddddBLQQQ"

    def __init__(self) -> None:
        self._columns: list[array[Any]] = [array(code) for code in self._TYPES]
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._order: list[int] = []

    def add(self, worker: str, *row: Any) -> bool:
        """Add a row; returns whether the worker is new.

        Args:
            worker: Its name.
            row: The other columns, in order.
        """
        number = self._numbers.get(worker)
        new = number is None
        if number is None:
            number = self._numbers[worker] = len(self._names)
            self._names.append(worker)
        for column, value in zip(
            self._columns, (*row[:8], number, *row[8:]), strict=True
        ):
            column.append(value)
        return new

    def forget_old(self) -> None:
        """Keep the recent rows only."""
        if len(self._columns[0]) > 2 * _RECENT:
            for column in self._columns:
                del column[:-_RECENT]
            self._order.clear()

    def find(self, index: int) -> TaskStats | None:
        """Return the stats of the task at ``index``, if they are (still) known."""
        starts = self._columns[0]
        if len(self._order) != len(starts):
            self._order = sorted(range(len(starts)), key=starts.__getitem__)
        at = bisect_right(self._order, index, key=starts.__getitem__) - 1
        if at < 0:
            return None
        row: list[Any] = [column[self._order[at]] for column in self._columns]
        start, count, attempts, queued, started, finished, seconds, cold = row[:8]
        if index >= start + count:
            return None
        worker: int = row[8]
        return TaskStats(
            index=index,
            attempts=attempts,
            shared_with=count - 1,
            queued=queued,
            started=started,
            finished=finished,
            seconds=seconds,
            cold=bool(cold),
            worker=self._names[worker],
            bytes_in=row[9],
            bytes_out=row[10],
            peak_memory=row[11],
        )
