"""What the checks say of broken adapters, each run only as far as it must fail."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wren.config import environment_with

_PATIENCE: Final = 240.0
"""Seconds for a process that runs suites."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one check of one adapter ended."""

    test: str
    outcome: str
    """As pytest says it."""

    detail: str

    @property
    def convicts(self) -> bool:
        """It failed, and not only by running out of time, which finds nothing."""
        return self.outcome == "failed" and "Timeout (>" not in self.detail


Verdicts = dict[str, list[Verdict]]
"""By the name of the adapter."""


def judge(
    suites: str, folder: Path, *, processes: int = 1, limit: int = 30
) -> Verdicts:
    """Run suites and return what became of each one's checks.

    Args:
        suites: A test module. It defines classes that are named ``Test`` and the
            adapter's name, of all adapters the N-th, then each ``processes``-th after
            it: the environment has both numbers, as ``PART=N/processes``.
        folder: An empty one.
        processes: How many run side by side, as suites mostly wait.
        limit: Seconds for one check.
    """
    (folder / "test_mutants.py").write_text(suites)

    def run(part: int) -> str:
        return _run(folder, f"{part}/{processes}", limit)

    with ThreadPoolExecutor(processes) as pool:
        lines = "".join(pool.map(run, range(processes))).splitlines()
    found: Verdicts = {}
    for line in lines:
        entry: dict[str, str] = json.loads(line)
        name = entry.pop("class").removeprefix("Test")
        found.setdefault(name, []).append(Verdict(**entry))
    return found


def failures(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Return what failed, for whatever reason."""
    return [verdict for verdict in verdicts if verdict.outcome == "failed"]


def _run(folder: Path, part: str, limit: int) -> str:
    file = folder / f"verdicts{part.partition('/')[0]}"
    gate = ("-p", "wren.conformance.mutants.gate", "--verdicts", str(file))
    quiet = ("-q", "--tb=short", "-p", "no:cacheprovider")
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-m", "pytest", *quiet, f"--timeout={limit}", *gate, "."],
        cwd=folder,
        env=environment_with({"PART": part}),
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return file.read_text()
