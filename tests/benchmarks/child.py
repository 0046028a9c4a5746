"""Measures one contender in one row, once, in a process of its own.

Run by `tests.benchmarks.launch`; the result goes into a file, because what a contender
prints is its own business.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from tests.benchmarks.contender import MissingError, WrongResultError
from tests.benchmarks.contenders.catalogue import CONTENDERS
from tests.benchmarks.row import Figures
from tests.benchmarks.rows.catalogue import ROWS


async def main(row_name: str, contender_name: str, size: str, path: str) -> None:
    """Measure and write the outcome: ``status``, ``detail`` and ``figures``."""
    (row,) = (row for row in ROWS if row.name == row_name)
    status, detail = "ok", ""
    figures: Figures = {}
    try:
        figures = await row.measure(CONTENDERS[contender_name](), int(size))
    except MissingError as exc:
        status, detail = "missing", str(exc)
    except WrongResultError as exc:
        status, detail = "wrong", str(exc)
    outcome: dict[str, object] = {
        "status": status,
        "detail": detail,
        "figures": figures,
    }
    _write(Path(path), outcome)
    if row.leaves_ruins or status != "ok":
        # Whatever still runs would keep this process from ending.
        os._exit(0)


def _write(path: Path, outcome: dict[str, object]) -> None:
    path.write_text(json.dumps(outcome))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
