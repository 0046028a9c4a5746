"""The compute suite finds what is broken: every mutant fails a check that it names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict

import pytest

from wren.conformance.mutants.compute import MUTANTS, Sound

SUITES = """
import os

import pytest

from wren.conformance import compute_endings, compute_surroundings
from wren.conformance.compute import ComputeSuite
from wren.conformance.compute_faults import ComputeFaultSuite
from wren.conformance.mutants.compute import MUTANTS, Sound

# What a mutant leaves running ends by itself, after it was found.
compute_endings._LIFE = compute_surroundings._LIFE = 6.0


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


def suite_for(broken):
    class Tested(ComputeSuite, ComputeFaultSuite):
        caught_by = broken.caught_by
        patience = broken.patience
        grace = 5.0 if broken is Sound else 2.0  # a busy machine is no fault
        slow = 2.0
        driver = (
            f"from {broken.__module__} import {broken.__name__}\\n"
            f"compute = {broken.__name__}()\\n"
        )

        @pytest.fixture
        async def compute(self):
            compute = broken()
            yield compute
            await compute.inner.aclose()

        @pytest.fixture
        async def unstartable(self):
            compute = broken(startable=False)
            yield compute
            await compute.inner.aclose()

        @pytest.fixture
        def deployer(self, compute):
            return compute.deployer

        @pytest.fixture
        def faults(self, compute):
            return compute.inner.platform

    return Tested


PART, PARTS = map(int, os.environ["PART"].split("/"))
for broken in (Sound, *MUTANTS)[PART::PARTS]:
    globals()[f"Test{broken.__name__}"] = suite_for(broken)
"""


PARTS = 4


class Verdict(TypedDict):
    """How one check of one adapter ended."""

    test: str
    outcome: str
    detail: str


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Verdict]]:
    """Return what became of each adapter's checks, run in a few processes.

    They mostly wait: for what must end, and for what never will.
    """
    folder = tmp_path_factory.mktemp("mutants")
    (folder / "test_mutants.py").write_text(SUITES)
    with ThreadPoolExecutor(PARTS) as pool:
        parts = [pool.submit(run_part, folder, part) for part in range(PARTS)]
    found: dict[str, list[Verdict]] = {}
    for line in "".join(part.result() for part in parts).splitlines():
        entry = json.loads(line)
        found.setdefault(entry.pop("class").removeprefix("Test"), []).append(entry)
    return found


def run_part(folder: Path, part: int) -> str:
    """Run a part of the suites; return what the gate wrote."""
    file = folder / f"verdicts{part}"
    gate = ("-p", "wren.conformance.mutants.gate", "--verdicts", str(file))
    arguments = ("-q", "-p", "no:cacheprovider", "--timeout=30", *gate)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, "test_mutants.py"],
        cwd=folder,
        env={**os.environ, "PART": f"{part}/{PARTS}"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return file.read_text()


@pytest.mark.timeout(300)
def test_the_sound_adapter_passes(verdicts: dict[str, list[Verdict]]) -> None:
    """Where the reference fails, every mutant seems to be caught."""
    outcomes = verdicts[Sound.__name__]

    assert len(outcomes) > 40
    assert [each for each in outcomes if each["outcome"] == "failed"] == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_mutant_is_caught(
    mutant: type[Sound], verdicts: dict[str, list[Verdict]]
) -> None:
    """By an assertion: a check that only runs out of time has found nothing."""
    outcomes = verdicts[mutant.__name__]
    failed = [each for each in outcomes if each["outcome"] == "failed"]

    assert failed, f"{mutant.caught_by} passed"
    assert any("Timeout (>" not in each["detail"] for each in failed)
