"""The local backend keeps the contract of `Compute`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from wren.backends.local.compute import LocalCompute
from wren.conformance.compute import ComputeSuite, ComputeTraits

MEMORY = 256
"""Megabytes for each worker."""


@pytest.mark.blocking  # starting an interpreter blocks the loop for a moment
class TestLocalCompute(ComputeSuite):
    """Two worker processes; they share this machine's temporary directory."""

    traits: ClassVar = ComputeTraits(clean_temp=False, memory=MEMORY << 20)
    driver: ClassVar = (
        "from wren.backends.local.compute import LocalCompute\n"
        "compute = LocalCompute(1)\n"
    )

    @pytest.fixture
    async def compute(self) -> AsyncIterator[LocalCompute]:
        """A pool that has not started."""
        compute = LocalCompute(2, memory=MEMORY)
        yield compute
        await compute.aclose()

    @pytest.fixture
    async def unstartable(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[LocalCompute]:
        """A pool whose interpreter finds no standard library."""
        monkeypatch.setenv("PYTHONHOME", "/nonexistent")
        compute = LocalCompute(1)
        yield compute
        await compute.aclose()
