"""Rounds put together: medians, and wren beside the best of the others."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.benchmarks.contender import Contender
from tests.benchmarks.contenders.catalogue import OURS
from tests.benchmarks.launch import Outcome
from tests.benchmarks.row import Metric, Row


@dataclass(slots=True, kw_only=True)
class Entry:
    """One contender in one row."""

    contender: type[Contender]
    size: int
    outcomes: list[Outcome] = field(default_factory=list[Outcome])

    @property
    def status(self) -> str:
        """How the last run ended, which is also why there was no further one."""
        return self.outcomes[-1].status

    @property
    def detail(self) -> str:
        """More about `status`, for a person."""
        return self.outcomes[-1].detail

    @property
    def seconds(self) -> float:
        """What all of its runs took together."""
        return sum(outcome.seconds for outcome in self.outcomes)

    def values(self, metric: Metric) -> list[float]:
        """Return a figure of each round that has one."""
        return [
            outcome.figures[metric.key]
            for outcome in self.outcomes
            if metric.key in outcome.figures
        ]

    def median(self, metric: Metric) -> float | None:
        """Return the median over the rounds, or None if there is no figure."""
        values = self.values(metric)
        return statistics.median(values) if values else None

    def best(self, metric: Metric) -> float | None:
        """Return the best round: the least time, or the highest rate."""
        choose = max if metric.better == "higher" else min
        return choose(self.values(metric), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Wren beside a peer, by the medians of a row's first metric."""

    peer: str
    ours: float
    theirs: float
    what: str
    """``best peer``, or the contender that the row's goal names."""

    @property
    def ratio(self) -> float | None:
        """Wren divided by the peer; None where that says nothing."""
        if self.theirs <= 0 or self.ours < 0 or math.isinf(self.ours / self.theirs):
            return None
        return self.ours / self.theirs


def compare(row: Row, entries: Iterable[Entry]) -> list[Comparison]:
    """Compare wren with the best peer, and with the one that the row's goal names."""
    metric = row.metrics[0]
    medians = {
        entry.contender.name: median
        for entry in entries
        if (median := entry.median(metric)) is not None
    }
    ours = medians.pop(OURS, None)
    if ours is None or not medians:
        return []
    choose = max if metric.better == "higher" else min
    best = choose(medians, key=lambda name: medians[name])
    peers = {"best peer": best}
    if row.reference in medians:
        peers["the goal's"] = row.reference
    return [
        Comparison(peer=peer, ours=ours, theirs=medians[peer], what=what)
        for what, peer in peers.items()
    ]
