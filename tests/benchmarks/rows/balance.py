"""Row 8: real work, and how well it is spread."""

from __future__ import annotations

from time import perf_counter
from typing import Final

from tests.benchmarks import tasks
from tests.benchmarks.contender import WORKERS, Contender, running
from tests.benchmarks.contenders.catalogue import CONTENDERS, OURS
from tests.benchmarks.row import Figures, Metric, Row


async def _efficiency(contender: Contender, items: list[float]) -> Figures:
    async with running(contender):
        started = perf_counter()
        busy = await contender.map(tasks.spin, items)
        seconds = perf_counter() - started
    return {"efficiency": sum(busy) / WORKERS / seconds}


async def even(contender: Contender, size: int) -> Figures:
    """Tasks of 20 ms."""
    return await _efficiency(contender, [0.02] * size)


async def uneven(contender: Contender, size: int) -> Figures:
    """Tasks of 10 ms; three in a row, past the middle, are 30 times as long."""
    items = [0.01] * size
    where = size * 3 // 5
    items[where : where + 3] = [0.3] * 3
    return await _efficiency(contender, items)


_EFFICIENCY: Final = (
    Metric(key="efficiency", title="of the ideal", unit="", better="higher"),
)
_EXCLUDED: Final = {
    "pool-tuned": "all tasks would be one chunk",
    "lithops": "takes half a second for each job, which is row 4b",
}

ROWS: Final = (
    Row(
        number=8,
        name="8a",
        title="200 x 20 ms of CPU",
        goal="at least 0.98 of the ideal",
        metrics=_EFFICIENCY,
        measure=even,
        size=200,
        quick=60,
        sizes=dict.fromkeys(set(CONTENDERS) - {OURS}, 80),
        excluded=_EXCLUDED,
    ),
    Row(
        number=8,
        name="8b",
        title="100 x 10 ms of CPU, three of them 30 x longer",
        goal="at least 0.95 of the ideal",
        metrics=_EFFICIENCY,
        measure=uneven,
        size=100,
        quick=100,
        excluded=_EXCLUDED,
    ),
)
