"""The executor on this machine, under faults that hypothesis chooses."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from wren.backends.local.compute import LocalCompute
from wren.conformance.executor_model import ExecutorModelSuite, Open
from wren.conformance.fault_plan import FaultPlan
from wren.conformance.faulty_compute import FaultyCompute
from wren.executor import Executor


@pytest.mark.blocking  # starting an interpreter blocks the loop for a moment
class TestLocal(ExecutorModelSuite):
    """Two workers serve all cases."""

    @pytest.fixture
    async def open_faulty(self) -> AsyncIterator[Open]:
        """Put faults between an executor and workers that stay."""
        local = LocalCompute(2)

        @asynccontextmanager
        async def open_faulty(
            plan: FaultPlan, **options: Any
        ) -> AsyncGenerator[tuple[Executor, FaultyCompute]]:
            compute = FaultyCompute(local, plan)
            async with Executor(
                backend=compute, storage="memory:", **options
            ) as opened:
                yield opened, compute

        yield open_faulty
        await local.aclose()
