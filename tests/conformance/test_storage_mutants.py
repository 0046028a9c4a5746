"""The storage suite finds what is broken: every mutant fails a check that it names."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TypedDict

import pytest

from wren.conformance.mutants.storage import MUTANTS, Sound

SUITES = """
import pytest

from wren.conformance import storage_concurrency, storage_grants
from wren.conformance.mutants.storage import MUTANTS, Sound
from wren.conformance.storage import StorageSuite

storage_concurrency._SOON = storage_grants._EXPIRY = 3.0  # no mutant mends by waiting


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


def suite_for(broken):
    class Tested(StorageSuite):
        caught_by = broken.caught_by

        @pytest.fixture
        async def store(self):
            store = broken()
            yield store
            await store.inner.aclose()

    return Tested


for broken in (Sound, *MUTANTS):
    globals()[f"Test{broken.__name__}"] = suite_for(broken)
"""


class Verdict(TypedDict):
    """How one check of one store ended."""

    test: str
    outcome: str
    detail: str


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Verdict]]:
    """Return what became of each store's checks, all run in one process."""
    folder = tmp_path_factory.mktemp("mutants")
    (folder / "test_mutants.py").write_text(SUITES)
    file = folder / "verdicts"
    gate = ("-p", "wren.conformance.mutants.gate", "--verdicts", str(file))
    arguments = ("-q", "-p", "no:cacheprovider", "--timeout=20", *gate)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, "test_mutants.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found: dict[str, list[Verdict]] = {}
    for line in file.read_text().splitlines():
        entry = json.loads(line)
        found.setdefault(entry.pop("class").removeprefix("Test"), []).append(entry)
    return found


@pytest.mark.timeout(300)
def test_the_sound_store_passes(verdicts: dict[str, list[Verdict]]) -> None:
    """Where the reference fails, every mutant seems to be caught."""
    outcomes = verdicts[Sound.__name__]

    assert len(outcomes) > 60
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
