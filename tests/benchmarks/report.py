"""The table for a person, and the same as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from tests.benchmarks.results import Comparison, Entry, compare
from tests.benchmarks.row import Metric, Row

_PARTS: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_MULTIPLES: Final = ((1e6, "M"), (1e3, "k"), (1.0, ""))


def quantity(value: float, unit: str) -> str:
    """Write a figure with three digits and its unit."""
    if math.isinf(value):
        return "never"
    match unit:
        case "yes":
            return "yes" if value == 1 else "no" if value == 0 else "at times"
        case "s":
            return _scaled(value, _PARTS)
        case "tasks/s":
            return f"{_scaled(value, _MULTIPLES)}/s"
        case _:
            return f"{_digits(value)} {unit}".rstrip()


def _scaled(value: float, scale: Sequence[tuple[float, str]]) -> str:
    fitting = [step for step in scale if abs(value) >= step[0]]
    factor, name = fitting[0] if fitting else scale[-1]
    return f"{_digits(value / factor)} {name}".rstrip()


def _digits(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"


def row_table(row: Row, entries: Sequence[Entry]) -> str:
    """Draw one row: a line for each contender, and what follows from them."""
    head = ["", *(metric.title for metric in row.metrics), "best", "rounds", "", ""]
    taking_part = [entry for entry in entries if entry.status != "excluded"]
    lines = [
        *_aligned([head, *(_line(row, entry) for entry in taking_part)]),
        *_absent(entries),
        *(_verdict(row.metrics[0], found) for found in compare(row, entries)),
    ]
    title = f"{row.name}. {row.title}  [goal: {row.goal}]"
    return "\n  ".join([title, *lines])


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Join cells to lines: the first and the last column left, figures right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if n in {0, last} else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _line(row: Row, entry: Entry) -> list[str]:
    contender, first = entry.contender, row.metrics[0]
    if not (values := entry.values(first)):
        why = f"{entry.status}: {entry.detail}"
        return [contender.label, *("" for _ in row.metrics), "", "", "", why]
    remarks = _remarks(row, entry)
    if entry.status != "ok":  # some rounds went well, the last one did not
        remarks += f"  {entry.status}: {entry.detail}"
    return [
        contender.label,
        *(quantity(entry.median(metric), metric.unit) for metric in row.metrics),
        quantity(entry.best(first), first.unit),
        f"{len(values)}",
        f"n={entry.size:,}" if entry.size != row.size else "",
        remarks,
    ]


def _remarks(row: Row, entry: Entry) -> str:
    notes = entry.contender.note, row.notes.get(entry.contender.name)
    return "; ".join(filter(None, notes))


def _absent(entries: Sequence[Entry]) -> list[str]:
    """Return a line for each reason why contenders do not take part."""
    names: dict[str, list[str]] = {}
    for entry in entries:
        if entry.status == "excluded":
            names.setdefault(entry.detail, []).append(entry.contender.name)
    return [f"without {', '.join(who)}: {why}" for why, who in names.items()]


def _verdict(metric: Metric, found: Comparison) -> str:
    return (
        f"wren / {found.peer} ({found.what}): {_ratio(found)}, "
        f"{metric.better} is better"
    )


def _ratio(found: Comparison) -> str:
    return "-" if found.ratio is None else f"{found.ratio:.3g}"


def summary(results: Sequence[tuple[Row, Sequence[Entry]]]) -> str:
    """List every row in which wren has a figure and a peer has one too."""
    lines = [["row", "wren / peer", "better", "wren", "peer", ""]]
    for row, entries in results:
        first = row.metrics[0]
        lines += [
            [
                row.name,
                _ratio(found),
                first.better,
                quantity(found.ours, first.unit),
                quantity(found.theirs, first.unit),
                f"{found.peer}, {found.what}",
            ]
            for found in compare(row, entries)
        ]
    return "\n  ".join(["Summary, by medians", *_aligned(lines)])


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
        "note": _remarks(row, entry),
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


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
