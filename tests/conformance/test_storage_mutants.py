"""The storage suite finds what is broken: every mutant fails a check that it names."""

from __future__ import annotations

import pytest

from wren.conformance.mutants.storage import MUTANTS, Sound
from wren.conformance.mutants.verdicts import Verdicts, failures, judge

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


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    """Return what became of each store's checks."""
    return judge(SUITES, tmp_path_factory.mktemp("mutants"), limit=20)


@pytest.mark.timeout(300)
def test_the_sound_store_passes(verdicts: Verdicts) -> None:
    """Where the reference fails, every mutant seems to be caught."""
    outcomes = verdicts[Sound.__name__]

    assert len(outcomes) > 60
    assert failures(outcomes) == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_mutant_is_caught(mutant: type[Sound], verdicts: Verdicts) -> None:
    """By an assertion: a check that only runs out of time has found nothing."""
    outcomes = verdicts[mutant.__name__]

    assert failures(outcomes), f"{mutant.caught_by} passed"
    assert any(verdict.convicts for verdict in outcomes)
