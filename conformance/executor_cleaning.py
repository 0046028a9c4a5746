"""Checks of what is removed from the store, and what is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from wren.clean import remove_job, stale_jobs
from wren.conformance.executor_bench import JOBS, Bench
from wren.conformance.executor_values import PATIENCE
from wren.conformance.faults import Fault, FaultPlan
from wren.conformance.spec import Level, check


class CleaningChecks:
    """A job removes all that it stored, and nothing else."""

    @check("E31")
    async def test_cleaning_spares_other_jobs(self, bench: Bench) -> None:
        """Another driver's work is under way beside it."""
        others = [f"{JOBS}{'0' * 32}/in/1", f"{JOBS}{'f' * 32}/out/00/1", "mine"]
        for key in others:
            await bench.inside.put(key, b"another's")

        with anyio.fail_after(PATIENCE):
            async with bench.open() as executor:
                await executor.map(abs, range(4), chunksize=1, commit_after=0)
                with pytest.raises(TypeError):
                    await executor.map(len, range(4), chunksize=1, commit_after=0)

        assert await bench.keys() == sorted(others)

    @check("E32", Level.FAULT)
    @pytest.mark.parametrize(
        ("operation", "action"),
        [
            ("list", "fail-before"),
            ("list", "forbid"),
            ("delete", "fail-before"),
            ("delete", "fail-after"),
            ("delete", "forbid"),
        ],
    )
    async def test_cleaning_can_be_taken_up_again(
        self, bench: Bench, operation: str, action: str
    ) -> None:
        """A store that fails then ends nothing; what stays is found and removed."""
        plan = FaultPlan(Fault(operation, action, key=f"{JOBS}*"))

        with anyio.fail_after(PATIENCE):
            async with bench.open(plan) as executor:
                job = executor.map(abs, range(4), chunksize=1, commit_after=0)
                assert await job == list(range(4))
            stays = await bench.keys()
            later = datetime.now(UTC) + timedelta(days=1)
            found = [stale async for stale in stale_jobs(bench.inside, later)]
            for stale in found:
                await remove_job(bench.inside, stale)

        assert {stale.id for stale in found} <= {job.id}
        assert bool(found) == bool(stays)
        assert await bench.keys() == []
