"""The compute suite as adapters of remote platforms use it, and how it is made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from wren.conformance.compute import ComputeSuite
from wren.conformance.compute_faults import ComputeFaultSuite
from wren.conformance.compute_lives import DroppedConnectionChecks
from wren.conformance.loopback import (
    LoopbackCompute,
    LoopbackDeployer,
    LoopbackPlatform,
)


class OnLoopback:
    """Fixtures of an adapter that speaks HTTP to its platform."""

    direct_seconds: ClassVar[float] = float("inf")

    @pytest.fixture
    async def compute(self, anyio_backend: str) -> AsyncIterator[LoopbackCompute]:
        """An adapter whose platform has not started."""
        platform = LoopbackPlatform(direct_seconds=self.direct_seconds)
        compute = LoopbackCompute(platform)
        yield compute
        await compute.aclose()

    @pytest.fixture
    def deployer(self, compute: LoopbackCompute) -> LoopbackDeployer:
        """Deploys on that platform."""
        return compute.deployer

    @pytest.fixture
    def faults(self, compute: LoopbackCompute) -> LoopbackPlatform:
        """The platform fails on request."""
        return compute.platform


class TestLoopbackCompute(OnLoopback, ComputeSuite):
    """A platform with limits, with things to deploy, and one process a request."""

    driver: ClassVar = (
        "from wren.conformance.loopback import LoopbackCompute, LoopbackPlatform\n"
        "compute = LoopbackCompute(LoopbackPlatform())\n"
    )

    @pytest.fixture
    async def unstartable(self, anyio_backend: str) -> AsyncIterator[LoopbackCompute]:
        """An adapter whose workers find no standard library."""
        compute = LoopbackCompute(LoopbackPlatform(startable=False))
        yield compute
        await compute.aclose()


class TestLoopbackFaults(OnLoopback, ComputeFaultSuite):
    """A platform whose API fails."""

    slow: ClassVar = 1.0


@pytest.mark.anyio
class TestDroppedConnections(OnLoopback, DroppedConnectionChecks):
    """A platform that ends connections before functions."""

    direct_seconds: ClassVar = 1.0
