"""What one job has cost so far."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from wren.batch import Batch
from wren.stats import History, JobStats, TaskStats


class Tally:
    """Counts requests and outcomes, and remembers which worker answered what."""

    __slots__ = ("_history", "_latest", "stats")

    def __init__(self, total: int | None) -> None:
        """Begin.

        Args:
            total: Number of tasks, where the input has a length.
        """
        self.stats = JobStats(total=total, started=time.time())
        self._history: History | None = None
        # Evaluated when the next one comes or somebody asks: most jobs of one task
        # are never asked about.
        self._latest: tuple[Any, ...] | None = None

    def sent(self, size: int) -> None:
        """Count a request of so many bytes."""
        self.stats.invocations += 1
        self.stats.bytes_in += size

    def received(self, size: int) -> None:
        """Count a response of so many bytes."""
        self.stats.bytes_out += size

    def answered(
        self, batch: Batch, count: int, header: dict[str, Any], sizes: tuple[int, int]
    ) -> None:
        """Remember an answer that brought outcomes.

        Args:
            batch: The tasks.
            count: How many of them.
            header: The response's header.
            sizes: Bytes of request and response.
        """
        if self._latest is not None:
            self._evaluate()
        self._latest = batch, count, header, sizes, time.time()

    def _evaluate(self) -> None:
        if self._latest is None:
            return
        batch, count, header, sizes, finished = self._latest
        self._latest = None
        stats = self.stats
        seconds = header.get("seconds", 0.0)
        peak = header.get("peak", 0)
        cold = bool(header.get("cold"))
        if self._history is None:
            self._history = History()
        new = self._history.add(
            header.get("worker", ""),
            batch.start,
            count,
            batch.attempt,
            batch.queued,
            header.get("started", 0.0),
            finished,
            seconds,
            cold,
            *sizes,
            peak,
        )
        if stats.total is None:
            self._history.forget_old()
        stats.workers += new
        stats.cold_starts += cold
        stats.busy_seconds += seconds
        stats.peak_memory = max(stats.peak_memory, peak)

    def snapshot(self, storage_requests: int) -> JobStats:
        """Return a copy of the counters.

        Args:
            storage_requests: Requests that the driver has sent to storage.
        """
        self._evaluate()
        return replace(self.stats, storage_requests=storage_requests)

    def of_task(self, index: int) -> TaskStats | None:
        """Return what is known of one task."""
        self._evaluate()
        return None if self._history is None else self._history.find(index)
