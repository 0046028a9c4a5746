"""The executor's suite finds what is broken: every mutant fails a check it names."""

from __future__ import annotations

import pytest

from wren.conformance.mutants.executor import Mutant
from wren.conformance.mutants.executor_faults import MUTANTS
from wren.conformance.mutants.verdicts import Verdicts, failures, judge

SUITES = """
import os
from contextlib import asynccontextmanager

import pytest

from wren.backends.local.compute import LocalCompute
from wren.conformance import executor_commits, executor_faults
from wren.conformance.executor import ExecutorSuite
from wren.conformance.executor_faults import ExecutorFaultSuite
from wren.conformance.executor_model import ExecutorModelSuite
from wren.conformance.faulty_compute import FaultyCompute
from wren.conformance.mutants.executor_faults import MUTANTS
from wren.executor import Executor
from wren.storage.local import FileStorage

# No mutant mends by waiting.
executor_commits.PATIENCE = executor_faults.PATIENCE = 10.0


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
async def workers(anyio_backend):
    workers = LocalCompute(2)
    await workers.prepare()
    yield workers
    await workers.aclose()


def suite_for(caught_by, apply):
    class Tested(ExecutorSuite, ExecutorModelSuite, ExecutorFaultSuite):
        @pytest.fixture(autouse=True)
        def broken(self, monkeypatch):
            if apply is not None:
                apply(monkeypatch)

        @pytest.fixture
        def open_executor(self, tmp_path):
            url = (tmp_path / "store").as_uri()
            return lambda **options: Executor(
                **{"backend": "local", "concurrency": 2, "storage": url} | options
            )

        @pytest.fixture
        def leftovers(self, tmp_path):
            async def leftovers():
                store = FileStorage(tmp_path / "store")
                return [info.key async for info in store.list()]

            return leftovers

        @pytest.fixture
        def compute(self, workers):
            return workers

        @pytest.fixture
        async def store(self, tmp_path):
            store = FileStorage(tmp_path / "store")
            yield store
            await store.aclose()

        @pytest.fixture
        def open_faulty(self, workers):
            @asynccontextmanager
            async def open_faulty(plan, **options):
                compute = FaultyCompute(workers, plan)
                options = {"backend": compute, "storage": "memory:"} | options
                async with Executor(**options) as executor:
                    yield executor, compute

            return open_faulty

    Tested.caught_by = caught_by
    return Tested


SOUND = {each for mutant in MUTANTS for each in mutant.caught_by}
PART, PARTS = map(int, os.environ["PART"].split("/"))
suites = [("Sound", SOUND, None), *MUTANTS]
for name, caught_by, apply in suites[PART::PARTS]:
    globals()[f"Test{name}"] = suite_for(caught_by, apply)
"""


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    """Return what became of each executor's checks: they mostly wait."""
    folder = tmp_path_factory.mktemp("mutants")
    return judge(SUITES, folder, processes=3, limit=60)


@pytest.mark.timeout(300)
def test_the_sound_executor_passes(verdicts: Verdicts) -> None:
    """Where the reference fails, every mutant seems to be caught."""
    outcomes = verdicts["Sound"]

    assert len(outcomes) > 30
    assert failures(outcomes) == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_mutant_is_caught(mutant: Mutant, verdicts: Verdicts) -> None:
    """By an assertion: a check that only runs out of time has found nothing."""
    outcomes = verdicts[mutant.name]

    assert failures(outcomes), f"{mutant.caught_by} passed"
    assert any(verdict.convicts for verdict in outcomes)
