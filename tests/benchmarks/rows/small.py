"""Rows 1 to 4: tasks that do next to nothing."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from time import perf_counter
from typing import Final

from tests.benchmarks import tasks
from tests.benchmarks.contender import Contender, expect, running
from tests.benchmarks.contenders.catalogue import CONTENDERS
from tests.benchmarks.row import Figures, Metric, Row

_RATE: Final = (Metric(key="rate", title="rate", unit="tasks/s", better="higher"),)
_SLOW: Final[Mapping[str, int]] = {
    "pool": 5_000,
    "pool-asyncio": 5_000,
    "loky": 5_000,
    "aiomultiprocess": 10_000,
    "anyio": 5_000,
    "dask": 1_000,
    "lithops": 100,
}
_TOO_SLOW: Final = "would take minutes; its rate is that of row 1"


async def throughput(contender: Contender, size: int) -> Figures:
    """Map over a list once the pool is warm."""
    items = list(range(size))
    right = list(range(1, size + 1))
    async with running(contender):
        started = perf_counter()
        results = await contender.map(tasks.addone, items)
        seconds = perf_counter() - started
        expect(results, right)
    return {"rate": size / seconds}


async def latency(contender: Contender, size: int) -> Figures:
    """Wait for one call after the other."""
    async with running(contender):
        for number in range(size // 10):
            await contender.call(tasks.addone, number)
        seconds: list[float] = []
        for number in range(size):
            started = perf_counter()
            result = await contender.call(tasks.addone, number)
            seconds.append(perf_counter() - started)
            expect(result, number + 1)
    hundredths = statistics.quantiles(seconds, n=100)
    return {"p50": statistics.median(seconds), "p99": hundredths[98]}


def _call_row(name: str, title: str, *, asynchronous: bool) -> Row:
    return Row(
        number=4,
        name=name,
        title=title,
        goal="p50 under 60 µs",
        metrics=(
            Metric(key="p50", title="p50", unit="s"),
            Metric(key="p99", title="p99", unit="s"),
        ),
        measure=latency,
        size=2_000,
        quick=1_000,
        sizes={"joblib": 50, "aiomultiprocess": 50, "dask": 50, "lithops": 3},
        excluded={
            **{
                contender.name: f"see row 4{'b' if asynchronous else 'a'}"
                for contender in CONTENDERS.values()
                if contender.asynchronous != asynchronous and contender.name != "wren"
            },
            "pool-tuned": "a single call has no chunks",
        },
    )


ROWS: Final = (
    Row(
        number=1,
        name="1",
        title="100,000 x addone, default settings",
        goal="at least multiprocessing.Pool",
        metrics=_RATE,
        measure=throughput,
        size=100_000,
        quick=20_000,
        sizes=_SLOW,
    ),
    Row(
        number=2,
        name="2",
        title="1,000,000 x addone",
        goal="at least multiprocessing.Pool",
        metrics=_RATE,
        measure=throughput,
        size=1_000_000,
        quick=200_000,
        sizes={"joblib": 200_000},
        excluded=dict.fromkeys(_SLOW, _TOO_SLOW),
    ),
    Row(
        number=3,
        name="3",
        title="1,000 x addone, warm pool",
        goal="at least 0.5 M tasks/s",
        metrics=_RATE,
        measure=throughput,
        size=1_000,
        quick=1_000,
        excluded=dict.fromkeys(("dask", "lithops"), "see row 1, of the same size"),
    ),
    _call_row("4a", "one warm call, asynchronous contenders", asynchronous=True),
    _call_row("4b", "one warm call, synchronous peers", asynchronous=False),
)
