"""Row 10: how long the event loop stands still while a map runs."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final, Self

from tests.benchmarks import tasks
from tests.benchmarks.contender import Contender, expect, running
from tests.benchmarks.contenders.catalogue import CONTENDERS
from tests.benchmarks.row import Figures, Metric, Row
from tests.benchmarks.rows.arrays import arrays

_TICK: Final = 0.001


class StallProbe:
    """Asks the running event loop to call back every millisecond and notes delays.

    Attributes:
        longest: Seconds by which the latest call was late.
    """

    def __init__(self) -> None:
        self.longest = 0.0

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._schedule()
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.cancel()
        self._note()

    def _schedule(self) -> None:
        self._due = perf_counter() + _TICK
        self._handle = self._loop.call_later(_TICK, self._tick)

    def _note(self) -> None:
        self.longest = max(self.longest, perf_counter() - self._due)

    def _tick(self) -> None:
        self._note()
        self._schedule()


async def stall_tasks(contender: Contender, size: int) -> Figures:
    """Map over many small items."""
    right = list(range(1, size + 1))
    async with running(contender):
        with StallProbe() as probe:
            results = await contender.map(tasks.addone, range(size))
        expect(results, right)
    return {"stall": probe.longest}


async def stall_arrays(contender: Contender, size: int) -> Figures:
    """Map over large items."""
    items = arrays(size, 8)
    async with running(contender):
        with StallProbe() as probe:
            results = await contender.map(tasks.add_one_to_all, items)
        expect([result[0] for result in results], [item[0] + 1 for item in items])
    return {"stall": probe.longest}


_SLOW: Final = {
    "pool-asyncio": 10_000,
    "aiomultiprocess": 10_000,
    "anyio": 10_000,
    "dask": 2_000,
}
_STALL: Final = (Metric(key="stall", title="longest stall", unit="s"),)
_SYNCHRONOUS: Final = {
    contender.name: "blocks its caller until it has all results"
    for contender in CONTENDERS.values()
    if not contender.asynchronous
}

ROWS: Final = (
    Row(
        number=10,
        name="10a",
        title="longest stall of the event loop during row 1",
        goal="under 10 ms",
        metrics=_STALL,
        measure=stall_tasks,
        size=100_000,
        quick=20_000,
        sizes=_SLOW,
        excluded=_SYNCHRONOUS,
        notes=dict.fromkeys(_SLOW, "its stall grows with n"),
    ),
    Row(
        number=10,
        name="10b",
        title="longest stall of the event loop during 40 x 8 MiB arguments",
        goal="under 10 ms",
        metrics=_STALL,
        measure=stall_arrays,
        size=40,
        quick=40,
        sizes={"aiomultiprocess": 10},
        excluded=_SYNCHRONOUS,
    ),
)
