"""Measure wren beside its peers.

Every contender runs in a process of its own, one after the other, round after round
(A B C A B C ...), so that whatever else the machine does meets all of them. Compare
ratios of one run; absolute figures drift from run to run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

if not __package__:  # run by its path, and not with -m
    sys.path[0] = str(Path(__file__).parents[2])

from tests.benchmarks import machine, report
from tests.benchmarks.contender import WORKERS
from tests.benchmarks.contenders.catalogue import CONTENDERS, OURS
from tests.benchmarks.launch import Outcome, launch
from tests.benchmarks.results import Entry
from tests.benchmarks.row import Row
from tests.benchmarks.rows.catalogue import ROWS

SLOW_TO_START: Final = frozenset({"dask", "lithops"})
"""Contenders that ``--quick`` leaves out unless they are named."""


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows",
        type=_names,
        default=[],
        help="numbers or names of rows, such as 1,4a,6 (default: all)",
    )
    parser.add_argument(
        "--peers",
        type=_names,
        default=[],
        help=f"contenders: {','.join(CONTENDERS)} (default: all)",
    )
    parser.add_argument("--rounds", type=int, help="default: 5; with --quick: 1")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one round at smaller sizes, without those that start slowly",
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=4.0,
        help="seconds after which a peer is not run again in a row (default: "
        "%(default)g; wren always is)",
    )
    parser.add_argument(
        "--limit", type=float, help="seconds for one run (default: the row's own)"
    )
    parser.add_argument(
        "--json", type=Path, default=Path("bench.json"), help="default: %(default)s"
    )
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 5)
    options.peers = options.peers or [
        name for name in CONTENDERS if not (options.quick and name in SLOW_TO_START)
    ]
    known = {row.name for row in ROWS} | {str(row.number) for row in ROWS}
    if unknown := set(options.rows) - known:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    if unknown := set(options.peers) - set(CONTENDERS):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    return options


def _entries(row: Row, names: Sequence[str], *, quick: bool) -> list[Entry]:
    """Return an empty entry for each contender; a final one for those excluded."""
    entries: list[Entry] = []
    for name in names:
        size = row.sizes.get(name, row.size)
        entry = Entry(
            contender=CONTENDERS[name], size=min(size, row.quick) if quick else size
        )
        if name in row.excluded:
            outcome = Outcome(status="excluded", detail=row.excluded[name])
            entry.outcomes.append(outcome)
        entries.append(entry)
    return entries


def _runs_again(entry: Entry, budget: float) -> bool:
    if not entry.outcomes:
        return True
    within = entry.seconds < budget or entry.contender.name == OURS
    return entry.status == "ok" and within


def _measure(row: Row, options: argparse.Namespace) -> list[Entry]:
    entries = _entries(row, options.peers, quick=options.quick)
    limit: float = options.limit or row.limit
    for number in range(options.rounds):
        for entry in entries:
            if _runs_again(entry, options.budget):
                _show(f"{row.name}, round {number + 1}: {entry.contender.label}")
                entry.outcomes.append(
                    launch(row.name, entry.contender.name, entry.size, limit)
                )
    _show("")
    return entries


def _show(progress: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{progress}")
        sys.stderr.flush()


def _chosen(names: Sequence[str]) -> Iterator[Row]:
    for row in ROWS:
        if not names or row.name in names or str(row.number) in names:
            yield row


def _distributions(names: Sequence[str]) -> list[str]:
    found = (CONTENDERS[name].distribution for name in names)
    return [*filter(None, found), "cloudpickle", "numpy"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table for each row, and write the JSON file."""
    options = _parse(arguments)
    began = datetime.now(UTC)
    load = [machine.load_average()]
    results: list[tuple[Row, list[Entry]]] = []
    for row in _chosen(options.rows):
        entries = _measure(row, options)
        results.append((row, entries))
        sys.stdout.write(report.row_table(row, entries) + "\n\n")
        sys.stdout.flush()
    load.append(machine.load_average())
    where = machine.describe()
    document = {
        "date": began.isoformat(timespec="seconds"),
        **where,
        "load": load,
        "versions": machine.versions(_distributions(options.peers)),
        "workers": WORKERS,
        "rounds": options.rounds,
        "quick": options.quick,
        "rows": [report.as_json(row, entries) for row, entries in results],
    }
    options.json.write_text(json.dumps(document, indent=1) + "\n")
    sys.stdout.write(report.summary(results) + "\n")
    sys.stdout.write(
        f"{began:%Y-%m-%d %H:%M} UTC, Python {where['python']}, "
        f"{where['cores']} cores, load {load[0][0]} before and {load[1][0]} after; "
        f"all figures in {options.json}\n"
    )


if __name__ == "__main__":
    main()
