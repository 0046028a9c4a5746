"""One row of the table: what is measured, at which size, and by whom."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from tests.benchmarks.contender import Contender

Figures: TypeAlias = dict[str, float]
"""One round's results by the keys of the row's metrics; ``inf`` means never."""

Measure: TypeAlias = Callable[[Contender, int], Awaitable[Figures]]
"""Measures a contender that has not been started, at a size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure of a row."""

    key: str
    title: str
    unit: str
    """``s``, ``tasks/s``, ``yes`` (1 or 0), or any other that is shown as it is."""

    better: Literal["higher", "lower"] = "lower"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A workload for every contender that can do it."""

    number: int
    """As in ``--rows``; several rows may share one."""

    name: str
    """Tells rows with the same number apart; no spaces."""

    title: str
    goal: str
    """What wren should reach."""

    metrics: tuple[Metric, ...]
    """The first is the one by which contenders are compared."""

    measure: Measure
    size: int
    """How many tasks (or calls, or items)."""

    quick: int
    """Most of them with ``--quick``."""

    sizes: Mapping[str, int] = field(default_factory=dict[str, int])
    """Smaller sizes, by contender, for those that would take minutes."""

    excluded: Mapping[str, str] = field(default_factory=dict[str, str])
    """Why a contender does not take part, by its name."""

    notes: Mapping[str, str] = field(default_factory=dict[str, str])
    """What else to know about a contender's figures here, by its name."""

    reference: str | None = None
    """A contender to compare wren with, besides the best one."""

    limit: float = 30.0
    """Seconds after which a run counts as hanging; its start is included."""

    leaves_ruins: bool = False
    """Contenders cannot be closed afterwards, only killed."""
