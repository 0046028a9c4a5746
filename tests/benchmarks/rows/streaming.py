"""Row 9: an endless input."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from time import perf_counter
from typing import Final

from tests.benchmarks import tasks
from tests.benchmarks.contender import Contender, expect, warm_up
from tests.benchmarks.contenders.catalogue import CONTENDERS
from tests.benchmarks.machine import PeakMemory
from tests.benchmarks.row import Figures, Metric, Row


class Source(Iterator[int]):
    """Counts upwards, and notes how far it was read ahead of what was taken.

    Attributes:
        taken: How many results the consumer has had; set by the consumer.
        ahead: Most items pulled beyond ``taken`` at any time.
    """

    def __init__(self, stop: int | None) -> None:
        """Make a source.

        Args:
            stop: Where it ends, for contenders that read it to the end; None: nowhere.
        """
        self.taken = 0
        self.ahead = 0
        self._stop = stop
        self._next = 0

    def __next__(self) -> int:
        number = self._next
        if number == self._stop:
            raise StopIteration
        self._next = number + 1
        self.ahead = max(self.ahead, self._next - self.taken)
        return number


async def endless(contender: Contender, size: int) -> Figures:
    """Take results from a stream until there are enough."""
    source = Source(size if contender.eager else None)
    await warm_up(contender)
    gc.collect()
    with PeakMemory() as memory:
        started = perf_counter()
        first = 0.0
        async for result in contender.stream(tasks.addone, source):
            source.taken += 1
            if source.taken == 1:
                first = perf_counter() - started
            if result != source.taken:
                expect(result, source.taken)
            if source.taken == size:
                break
        seconds = perf_counter() - started
    expect(source.taken, size)
    return {
        "growth": memory.growth / (1 << 20),
        "first": first,
        "ahead": source.ahead,
        "rate": size / seconds,
    }


ROWS: Final = (
    Row(
        number=9,
        name="9",
        title="an endless generator, 50,000 results taken",
        goal="under 5 MiB, first result in under 5 ms, a bounded read-ahead",
        metrics=(
            Metric(key="growth", title="memory", unit="MiB"),
            Metric(key="first", title="first result", unit="s"),
            Metric(key="ahead", title="read ahead", unit="items"),
            Metric(key="rate", title="rate", unit="tasks/s", better="higher"),
        ),
        measure=endless,
        size=50_000,
        quick=10_000,
        sizes={"pool": 10_000, "loky": 10_000, "multiprocessing": 20_000},
        excluded={
            contender.name: "takes a list, not a stream"
            for contender in CONTENDERS.values()
            if not contender.streams
        },
        notes={
            contender.name: "reads its input to the end: it was cut at n"
            for contender in CONTENDERS.values()
            if contender.eager
        },
        leaves_ruins=True,
    ),
)
