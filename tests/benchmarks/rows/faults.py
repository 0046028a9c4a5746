"""Rows 11 and 12: one task of a hundred kills its worker, or never ends."""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections.abc import Awaitable
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

from tests.benchmarks import tasks
from tests.benchmarks.contender import Contender, warm_up
from tests.benchmarks.contenders.catalogue import CONTENDERS
from tests.benchmarks.row import Figures, Metric, Row

_PATIENCE: Final = 6.0
"""Seconds after which a fate that is not known counts as never known."""

_TIMEOUT: Final = 2.0
_POLL: Final = 0.002


class Fates:
    """What became of each task of a job, and when that was known."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._known: dict[int, tuple[float, object]] = {}
        self._all = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def report(self, position: int, fate: object) -> None:
        """Note a task's fate. May be called in any thread."""
        self._known.setdefault(position, (monotonic(), fate))
        if len(self._known) == self._count:
            self._loop.call_soon_threadsafe(self._all.set)

    async def wait(self, settling: Awaitable[None], patience: float) -> None:
        """Wait until every fate is known, or for ``patience`` seconds.

        Raises:
            Exception: Whatever ``settling`` raises, when it cannot even begin.
        """
        begun = asyncio.ensure_future(settling)
        everything = asyncio.ensure_future(self._all.wait())
        ends = monotonic() + patience
        while not everything.done() and (left := ends - monotonic()) > 0:
            waiting = {everything} if begun.done() else {begun, everything}
            await asyncio.wait(
                waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
            if begun.done():
                begun.result()

    def fate(self, position: int) -> object:
        """Return a task's result or exception; None while that is not known."""
        return self._known[position][1] if position in self._known else None

    def known_at(self, position: int) -> float:
        """Return when a fate was known, on the monotonic clock; ``inf`` for never."""
        return self._known[position][0] if position in self._known else math.inf

    def unknown(self) -> int:
        """Return how many tasks have no fate."""
        return self._count - len(self._known)


async def _usable(contender: Contender) -> bool:
    """Tell whether a contender still runs tasks."""
    fates = Fates(20)
    with suppress(Exception):  # it may well be broken; that is the answer
        await fates.wait(
            contender.settle(tasks.addone, range(20), fates.report), _PATIENCE
        )
    return [fates.fate(number) for number in range(20)] == list(range(1, 21))


class _Trap:
    """A hundred items, one of which is the victim's, and the victim's last words."""

    def __init__(self, size: int, fate: str, directory: str) -> None:
        self.victim = size // 2
        self._words = Path(directory, "words")
        self.items = [
            (n, fate if n == self.victim else "", str(self._words)) for n in range(size)
        ]

    def began(self) -> float:
        """Return when the victim first ran; before everything if it never did."""
        return min((when for when, _ in self.words()), default=-math.inf)

    def words(self) -> list[tuple[float, int]]:
        """Return for each attempt when it began, and its process."""
        lines = self._words.read_text().splitlines() if self._words.exists() else []
        pairs = (line.split() for line in lines)
        return [(float(when), int(process)) for when, process in pairs]


def _lost(fates: Fates, size: int) -> int:
    """Count the tasks that did not end with their own result, the victim included."""
    return sum(fates.fate(number) != number for number in range(size))


async def killed(contender: Contender, size: int, fate: str) -> Figures:
    """Let one task end its worker process."""
    await warm_up(contender)
    with tempfile.TemporaryDirectory() as directory:
        trap = _Trap(size, fate, directory)
        fates = Fates(size)
        settling = contender.settle(tasks.doomed, trap.items, fates.report)
        await fates.wait(settling, _PATIENCE)
        died = trap.began()
    return {
        "lost": _lost(fates, size),
        "unknown": fates.unknown(),
        "known": fates.known_at(trap.victim) - died,
        "usable": float(await _usable(contender)),
    }


async def _gone(trap: _Trap) -> float:
    """Wait until every process that the victim ran in has ended; return the time."""
    while not (attempts := trap.words()) or any(  # noqa: ASYNC110
        _runs(process) for _, process in attempts
    ):
        # They are not this process's children: there is nothing to await.
        await asyncio.sleep(_POLL)
    return monotonic()


def _runs(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] not in {"Z", "X"}


async def stuck(contender: Contender, size: int) -> Figures:
    """Let one task run for ever, with a time limit for each."""
    await warm_up(contender)
    with tempfile.TemporaryDirectory() as directory:
        trap = _Trap(size, "loop", directory)
        fates = Fates(size)
        watching = asyncio.create_task(_gone(trap))
        settling = contender.settle(
            tasks.doomed, trap.items, fates.report, limit=_TIMEOUT
        )
        await fates.wait(settling, _TIMEOUT + _PATIENCE)
        began = trap.began()
        # The victim's fate may be known a moment before its process is gone.
        await asyncio.wait({watching}, timeout=1.0)
        ended = watching.result() if watching.done() else math.inf
    return {
        "killed": ended - began - _TIMEOUT,
        "lost": _lost(fates, size),
        "known": fates.known_at(trap.victim) - began - _TIMEOUT,
        "usable": float(await _usable(contender)),
    }


_KILLED_METRICS: Final = (
    Metric(key="lost", title="tasks lost", unit=""),
    Metric(key="unknown", title="never told", unit=""),
    Metric(key="known", title="known after", unit="s"),
    Metric(key="usable", title="usable after", unit="yes", better="higher"),
)
_NO_WORKER: Final = {"pool-tuned": "as pool: it submits one task at a time"}
_KILLED_GOAL: Final = "one task lost, known within 0.5 s, the pool goes on"

ROWS: Final = (
    Row(
        number=11,
        name="11a",
        title="one of 100 tasks ends its process",
        goal=_KILLED_GOAL,
        metrics=_KILLED_METRICS,
        measure=partial(killed, fate="exit"),
        size=100,
        quick=100,
        excluded=_NO_WORKER,
        leaves_ruins=True,
    ),
    Row(
        number=11,
        name="11b",
        title="one of 100 tasks dies of SIGSEGV",
        goal=_KILLED_GOAL,
        metrics=_KILLED_METRICS,
        measure=partial(killed, fate="segv"),
        size=100,
        quick=100,
        excluded=_NO_WORKER,
        leaves_ruins=True,
    ),
    Row(
        number=12,
        name="12",
        title="one of 100 tasks never ends; timeout 2 s",
        goal="killed within 0.3 s of its timeout, the other 99 unharmed",
        metrics=(
            Metric(key="killed", title="killed after timeout", unit="s"),
            Metric(key="lost", title="tasks lost", unit=""),
            Metric(key="known", title="known after timeout", unit="s"),
            Metric(key="usable", title="usable after", unit="yes", better="higher"),
        ),
        measure=stuck,
        size=100,
        quick=100,
        excluded={
            contender.name: "no time limit for a task"
            for contender in CONTENDERS.values()
            if not contender.limits_time
        },
        leaves_ruins=True,
    ),
)
