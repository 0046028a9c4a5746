"""The table for a person, and the same as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from tests.benchmarks.results import Comparison, Entry, compare
from tests.benchmarks.row import Metric, Row

_PREFIXES: Final = (
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1, ""),
    (1e-3, "m"),
    (1e-6, "µ"),
)


def quantity(value: float | None, unit: str) -> str:
    """Write a figure with three digits and its unit."""
    if value is None:
        return ""
    if math.isinf(value):
        return "never"
    if unit == "yes":
        return "yes" if value >= 1 else "no" if value <= 0 else "at times"
    if unit not in {"s", "tasks/s"}:
        return f"{_digits(value)} {unit}".rstrip()
    # Nobody reads kiloseconds.
    prefixes = _PREFIXES[3:] if unit == "s" else _PREFIXES[:4]
    fitting = [pair for pair in prefixes if abs(value) >= pair[0]]
    factor, prefix = fitting[0] if fitting else prefixes[-1]
    return f"{_digits(value / factor)} {prefix}{unit}"


def _digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"


def row_table(row: Row, entries: Sequence[Entry]) -> str:
    """Draw one row: a line for each contender."""
    head = ["", *(metric.title for metric in row.metrics), "best", "rounds", "", ""]
    taking_part = [entry for entry in entries if entry.status != "excluded"]
    lines = [head, *(_line(row, entry) for entry in taking_part)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    drawn = [
        "  ".join(
            cell.ljust(width) if n in {0, len(widths) - 1} else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    title = f"{row.name}. {row.title}  [goal: {row.goal}]"
    verdicts = [
        _verdict(row.metrics[0], comparison) for comparison in compare(row, entries)
    ]
    below = [*_absent(entries), *verdicts]
    return "\n".join([title, *(f"  {line}" for line in [*drawn, *below])])


def _line(row: Row, entry: Entry) -> list[str]:
    first = row.metrics[0]
    rounds = len(entry.values(first))
    note = row.notes.get(entry.contender.name, "")
    remarks = [entry.contender.note, note] if rounds else []
    if entry.status != "ok":
        remarks.insert(0, f"{entry.status}: {entry.detail}")
    return [
        entry.contender.label,
        *(quantity(entry.median(metric), metric.unit) for metric in row.metrics),
        quantity(entry.best(first), first.unit),
        f"{rounds}" if rounds else "",
        f"n={entry.size:,}" if rounds and entry.size != row.size else "",
        "; ".join(filter(None, remarks)),
    ]


def _absent(entries: Sequence[Entry]) -> list[str]:
    """Return a line for each reason why contenders do not take part."""
    names: dict[str, list[str]] = {}
    for entry in entries:
        if entry.status == "excluded":
            names.setdefault(entry.detail, []).append(entry.contender.name)
    return [f"without {', '.join(who)}: {why}" for why, who in names.items()]


def _verdict(metric: Metric, comparison: Comparison) -> str:
    ratio = comparison.ratio
    shown = "no ratio" if ratio is None else f"{ratio:.2f} x"
    return (
        f"wren: {shown} {comparison.peer} ({comparison.what}; "
        f"{metric.better} is better)"
    )


def summary(results: Sequence[tuple[Row, Sequence[Entry]]]) -> str:
    """List every row in which wren has a figure and a peer has one too."""
    lines = ["Summary: wren ÷ peer, medians"]
    for row, entries in results:
        unit = row.metrics[0].unit
        for found in compare(row, entries):
            ratio = "" if found.ratio is None else f"{found.ratio:.2f}"
            lines.append(
                f"  {row.name:>4}  {ratio:>7}  {quantity(found.ours, unit):>14}"
                f"  {quantity(found.theirs, unit):>14}  {found.peer}, {found.what}; "
                f"{row.metrics[0].better} is better"
            )
    return "\n".join(lines)


def as_json(row: Row, entries: Sequence[Entry]) -> dict[str, object]:
    """Return one row as JSON's types; null stands for never."""
    return {
        "row": row.number,
        "name": row.name,
        "title": row.title,
        "goal": row.goal,
        "size": row.size,
        "metrics": [
            {"key": metric.key, "unit": metric.unit, "better": metric.better}
            for metric in row.metrics
        ],
        "contenders": [_entry_as_json(row, entry) for entry in entries],
        "comparisons": [
            {
                "peer": found.peer,
                "what": found.what,
                "wren": _finite(found.ours),
                "theirs": _finite(found.theirs),
                "ratio": found.ratio,
            }
            for found in compare(row, entries)
        ],
    }


def _entry_as_json(row: Row, entry: Entry) -> dict[str, object]:
    return {
        "name": entry.contender.name,
        "status": entry.status,
        "detail": entry.detail,
        "note": row.notes.get(entry.contender.name, entry.contender.note),
        "size": entry.size,
        "seconds": entry.seconds,
        "figures": {
            metric.key: {
                "values": [_finite(value) for value in values],
                "median": _finite(entry.median(metric)),
                "minimum": _finite(min(values)),
                "maximum": _finite(max(values)),
            }
            for metric in row.metrics
            if (values := entry.values(metric))
        },
    }


def _finite(value: float | None) -> float | None:
    return None if value is None or math.isinf(value) else value
