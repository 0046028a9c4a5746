"""Rows 6 and 7: large arrays."""

from __future__ import annotations

from importlib import import_module
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from tests.benchmarks import tasks
from tests.benchmarks.contender import Contender, MissingError, expect, running
from tests.benchmarks.row import Figures, Metric, Row

if TYPE_CHECKING:
    from tests.benchmarks.tasks import Floats

_MIB: Final = 1 << 20
_BROADCAST_TASKS: Final = 100


def arrays(count: int, mib: int) -> list[Floats]:
    """Make arrays that differ from each other.

    Raises:
        MissingError: numpy is not installed.
    """
    try:
        numpy: Any = import_module("numpy")
    except ImportError as exc:
        raise MissingError("pip install numpy") from exc
    length = mib * _MIB // 8
    made: list[Floats] = [
        numpy.arange(first, first + length, dtype=float) for first in range(count)
    ]
    return made


async def payload(contender: Contender, size: int) -> Figures:
    """Send an array with each task and get one back."""
    mib = 4
    different = arrays(16, mib)
    items = [different[n % len(different)] for n in range(size)]
    async with running(contender):
        await contender.map(tasks.add_one_to_all, items[:4])
        started = perf_counter()
        results = await contender.map(tasks.add_one_to_all, items)
        seconds = perf_counter() - started
        expect(len(results), size)
        for sent, received in zip(items, results, strict=True):
            expect(received.shape, sent.shape)
            expect(received[-1], sent[-1] + 1)
    return {"rate": size * mib * _MIB * 2 / seconds / 1e9}


async def broadcast_bound(contender: Contender, size: int) -> Figures:
    """Bind one array to the function, and map that over numbers."""
    (array,) = arrays(1, 256)
    right = [float(number) for number in array[:size]]
    async with running(contender):
        started = perf_counter()
        results = await contender.broadcast(tasks.pick, array, range(size))
        seconds = perf_counter() - started
        expect(results, right)
    return {"wall": seconds * _BROADCAST_TASKS / size}


async def broadcast_items(contender: Contender, size: int) -> Figures:
    """Put one array into every item."""
    (array,) = arrays(1, 256)
    right = [float(number) for number in array[:size]]
    async with running(contender):
        started = perf_counter()
        items = [(array, index) for index in range(size)]
        results = await contender.map(tasks.pick_from, items)
        seconds = perf_counter() - started
        expect(results, right)
    return {"wall": seconds * _BROADCAST_TASKS / size}


_BROADCAST_SIZES: Final = {
    "pool": 2,
    "pool-asyncio": 2,
    "loky": 2,
    "aiomultiprocess": 2,
    "lithops": 2,
    "anyio": 2,
}
_SCALED: Final = "scaled from n"
_BROADCAST_NOTES: Final = dict.fromkeys(_BROADCAST_SIZES, _SCALED)
_BROADCAST_EXCLUDED: Final = {
    "pool-tuned": "all tasks would be one chunk",
}

ROWS: Final = (
    Row(
        number=6,
        name="6",
        title="200 tasks x 4 MiB array in, 4 MiB out",
        goal="at least 2.5 GB/s",
        metrics=(Metric(key="rate", title="rate", unit="GB/s", better="higher"),),
        measure=payload,
        size=200,
        quick=50,
        sizes=dict.fromkeys(
            ("pool", "pool-asyncio", "multiprocessing", "loky", "anyio", "dask"), 30
        )
        | {"aiomultiprocess": 10, "lithops": 10},
        excluded={
            "pool-tuned": "all tasks would be one chunk",
        },
        limit=60,
    ),
    Row(
        number=7,
        name="7a",
        title="one 256 MiB array for 100 tasks, bound to the function",
        goal="under 0.3 s",
        metrics=(Metric(key="wall", title="for 100 tasks", unit="s"),),
        measure=broadcast_bound,
        size=_BROADCAST_TASKS,
        quick=_BROADCAST_TASKS,
        sizes=_BROADCAST_SIZES,
        excluded=_BROADCAST_EXCLUDED,
        notes={"dask": "by Client.scatter", **_BROADCAST_NOTES},
        limit=60,
    ),
    Row(
        number=7,
        name="7b",
        title="one 256 MiB array for 100 tasks, the same object in every item",
        goal="under 0.3 s",
        metrics=(Metric(key="wall", title="for 100 tasks", unit="s"),),
        measure=broadcast_items,
        size=_BROADCAST_TASKS,
        quick=_BROADCAST_TASKS,
        sizes=_BROADCAST_SIZES | {"dask": 2},
        excluded=_BROADCAST_EXCLUDED,
        notes=_BROADCAST_NOTES | {"dask": _SCALED},
        limit=60,
    ),
)
