"""What a run of the suite found, as JSON, as a table, and compared with another run."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from itertools import groupby
from typing import Any, Final

import wren

SCHEMA: Final = 1

NOT_SELECTED: Final = "not selected"
"""The detail of a check that nobody wanted to run."""

_TITLE: Final = 60  # columns


class Status(StrEnum):
    """What became of a check."""

    PASSED = "passed"

    FAILED = "failed"

    NOT_OFFERED = "not offered"
    """The adapter does not declare the capability, and was seen to refuse it."""

    NOT_RUN = "not run"
    """Left out, so nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one test of one check."""

    adapter: str
    id: str
    title: str
    level: str
    test: str
    """The test's name, with its parameters."""

    loop: str
    """``asyncio``, ``trio``, or empty for a test without an event loop."""

    status: Status
    seconds: float
    detail: str = ""
    """Why it failed, was not offered or did not run."""

    @property
    def part(self) -> str:
        """The part of the suite: ``storage``, ``compute`` or ``executor``."""
        return part_of(self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What was tested."""

    part: str
    """The part of the suite; a store and a backend may have the same name."""

    name: str
    version: str
    """Distribution and version, such as ``wren-cloud 0.1.0``."""

    target: str = ""
    """What was configured, without secrets."""

    capabilities: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What it declares: capabilities of a store, limits of a compute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A run of the suite."""

    adapters: Sequence[Adapter]
    outcomes: Sequence[Outcome]
    suite_version: str = wren.__version__
    python: str = field(default_factory=platform.python_version)
    platform: str = field(default_factory=platform.platform)
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat())

    @property
    def passed(self) -> bool:
        """Whether something ran and nothing failed."""
        statuses = {outcome.status for outcome in self.outcomes}
        return Status.PASSED in statuses and Status.FAILED not in statuses

    def totals(self, adapter: Adapter) -> dict[str, int]:
        """Return how many checks of an adapter ended in which way."""
        checks: dict[str, list[Outcome]] = {}
        for outcome in self.outcomes:
            if (outcome.part, outcome.adapter) == (adapter.part, adapter.name):
                checks.setdefault(outcome.id, []).append(outcome)
        counted = Counter(map(_worst, checks.values()))
        return {status.value: counted[status] for status in Status}

    def to_json(self) -> str:
        """Return the report as a JSON document."""
        document = {
            "schema": SCHEMA,
            "suite_version": self.suite_version,
            "python": self.python,
            "platform": self.platform,
            "started": self.started,
            "adapters": [
                {**asdict(each), "totals": self.totals(each)} for each in self.adapters
            ],
            "checks": [asdict(outcome) for outcome in self.outcomes],
        }
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Return the report that `to_json` wrote.

        Raises:
            ValueError: It is none, or of another version.
        """
        found: Any = json.loads(text)
        try:
            if found["schema"] != SCHEMA:
                raise ValueError(f"schema {found['schema']!r}, expected {SCHEMA}")
            return cls(
                adapters=[
                    Adapter(**{k: v for k, v in each.items() if k != "totals"})
                    for each in found["adapters"]
                ],
                outcomes=[
                    Outcome(**each | {"status": Status(each["status"])})
                    for each in found["checks"]
                ],
                suite_version=found["suite_version"],
                python=found["python"],
                platform=found["platform"],
                started=found["started"],
            )
        except (KeyError, TypeError) as exc:
            raise ValueError("not a report of the conformance suite") from exc


def table(report: Report) -> Iterator[str]:
    """Yield the lines of a table: a row for each check, a column for each adapter.

    A check that consists of several tests shows the worst of their outcomes, and the
    name of the first test that had it. Below the table, a line for each test that
    failed. Checks that were not selected are only counted.
    """
    selected = [each for each in report.outcomes if each.detail != NOT_SELECTED]
    for part, outcomes in _parts(selected):
        names = list(dict.fromkeys(outcome.adapter for outcome in outcomes))
        widths = [max(len(name), len("FAILED")) for name in names]
        cells = "  ".join(map(str.ljust, names, widths))
        yield f"{part:{_TITLE + 7}}  {cells}".rstrip()
        for level, rows in groupby(outcomes, key=lambda each: each.level):
            yield f"  {level}"
            for identity, same in groupby(rows, key=lambda each: each.id):
                yield _row(identity, list(same), names, widths)
        yield ""
    for adapter in report.adapters:
        totals = report.totals(adapter)
        counts = ", ".join(f"{n} {name}" for name, n in totals.items() if n)
        yield f"{adapter.part} {adapter.name} ({adapter.version}): {counts}"
    for outcome in report.outcomes:
        if outcome.status is Status.FAILED:
            first = outcome.detail.strip().partition("\n")[0]
            yield f"FAILED {outcome.adapter} {outcome.id} {outcome.test}: {first}"


def _row(
    identity: str, same: list[Outcome], names: list[str], widths: list[int]
) -> str:
    # A test's name says by itself what must hold; its title may lean on the name.
    test = min(same, key=lambda each: _SEVERITY.index(each.status)).test
    title = test.partition("[")[0].removeprefix("test_").replace("_", " ")
    cells = [
        _CELLS[_worst([each for each in same if each.adapter == name])]
        for name in names
    ]
    row = "  ".join(map(str.ljust, cells, widths))
    return f"  {identity:4} {title:{_TITLE}.{_TITLE}}  {row}".rstrip()


_CELLS: Final[Mapping[Status, str]] = {
    Status.PASSED: "ok",
    Status.FAILED: "FAILED",
    Status.NOT_OFFERED: "-",
    Status.NOT_RUN: "?",
}

_SEVERITY: Final = (
    Status.FAILED,
    Status.NOT_RUN,
    Status.PASSED,
    Status.NOT_OFFERED,
)

_PARTS: Final[Mapping[str, str]] = {"S": "storage", "C": "compute", "E": "executor"}


def part_of(identity: str) -> str:
    """Return the part of the suite that a check belongs to."""
    letters = identity.rstrip("0123456789-")
    return _PARTS.get(letters, letters)


_LEVELS: Final = ("core", "commit", "extended", "fault", "scale", "security")


def _worst(outcomes: Iterable[Outcome]) -> Status:
    """Return what a check's tests amount to.

    One that failed or did not run outweighs the others; one of which the store offers
    a part has passed.
    """
    statuses = {outcome.status for outcome in outcomes}
    return next((each for each in _SEVERITY if each in statuses), Status.NOT_RUN)


def _parts(outcomes: Iterable[Outcome]) -> Iterator[tuple[str, list[Outcome]]]:
    """Yield the parts of the suite, each with its outcomes by level and identity."""

    def order(outcome: Outcome) -> tuple[int, str]:
        known = outcome.level in _LEVELS
        level = _LEVELS.index(outcome.level) if known else len(_LEVELS)
        return level, outcome.id

    by_part: dict[str, list[Outcome]] = {name: [] for name in _PARTS.values()}
    for outcome in outcomes:
        by_part.setdefault(outcome.part, []).append(outcome)
    for name, inside in by_part.items():
        if inside:
            yield name, sorted(inside, key=order)


@dataclass(frozen=True, slots=True)
class Change:
    """A test that ended otherwise than before."""

    adapter: str
    id: str
    test: str
    before: Status
    after: Status

    @property
    def is_loss(self) -> bool:
        """Whether something that was shown to hold no longer is."""
        return self.before is Status.PASSED


def compare(before: Report, after: Report) -> list[Change]:
    """Return what differs between two runs. A test that is missing did not run."""
    first, second = _by_test(before), _by_test(after)
    changes = (
        Change(
            *key,
            first.get(key, Status.NOT_RUN),
            second.get(key, Status.NOT_RUN),
        )
        for key in sorted(first.keys() | second.keys())
    )
    return [change for change in changes if change.before is not change.after]


def _by_test(report: Report) -> dict[tuple[str, str, str], Status]:
    return {(each.adapter, each.id, each.test): each.status for each in report.outcomes}
