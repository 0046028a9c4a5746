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

    def median(self, metric: Metric) -> float:
        """Return the median over the rounds. There must be `values`."""
        return statistics.median(self.values(metric))

    def best(self, metric: Metric) -> float:
        """Return the best round: the least time, or the highest rate."""
        choose = max if metric.better == "higher" else min
        return choose(self.values(metric))


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
        if min(self.ours, self.theirs) <= 0 or math.isinf(self.ours + self.theirs):
            return None
        return self.ours / self.theirs


def compare(row: Row, entries: Iterable[Entry]) -> list[Comparison]:
    """Compare wren with the best peer, and with the one that the row's goal names."""
    metric = row.metrics[0]
    measured = {
        entry.contender.name: entry for entry in entries if entry.values(metric)
    }
    ours = measured.pop(OURS, None)
    if ours is None or not measured:
        return []
    best = min(measured, key=lambda name: _standing(row, measured[name]))
    peers = {"best peer": best}
    if row.reference in measured:
        peers["the goal's"] = row.reference
    return [
        Comparison(
            peer=peer,
            ours=ours.median(metric),
            theirs=measured[peer].median(metric),
            what=what,
        )
        for what, peer in peers.items()
    ]


def _standing(row: Row, entry: Entry) -> list[float]:
    """Return what is least for the best contender; later metrics break ties."""
    return [
        entry.median(metric) * (-1 if metric.better == "higher" else 1)
        for metric in row.metrics
    ]
