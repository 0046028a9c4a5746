"""The compute suite finds what is broken: every mutant fails a check that it names."""

from __future__ import annotations

import pytest

from wren.conformance.mutants.compute import MUTANTS, Sound
from wren.conformance.mutants.verdicts import Verdicts, failures, judge

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


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    """Return what became of each adapter's checks: they mostly wait."""
    return judge(SUITES, tmp_path_factory.mktemp("mutants"), processes=4)


@pytest.mark.timeout(300)
def test_the_sound_adapter_passes(verdicts: Verdicts) -> None:
    """Where the reference fails, every mutant seems to be caught."""
    outcomes = verdicts[Sound.__name__]

    assert len(outcomes) > 40
    assert failures(outcomes) == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_mutant_is_caught(mutant: type[Sound], verdicts: Verdicts) -> None:
    """By an assertion: a check that only runs out of time has found nothing."""
    outcomes = verdicts[mutant.__name__]

    assert failures(outcomes), f"{mutant.caught_by} passed"
    assert any(verdict.convicts for verdict in outcomes)
