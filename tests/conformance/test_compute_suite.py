"""The compute suite as adapters of remote platforms use it, and how it is made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import ClassVar

import pytest

from wren.conformance.compute import ComputeSuite, ComputeTraits
from wren.conformance.compute_endings import EndingChecks
from wren.conformance.compute_faults import ComputeFaultSuite
from wren.conformance.compute_lives import DroppedConnectionChecks
from wren.conformance.loopback import (
    LoopbackCompute,
    LoopbackDeployer,
    LoopbackPlatform,
)
from wren.conformance.spec import check_of
from wren.envelope import Buffer
from wren.errors import WorkerLostError


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


class Modest(LoopbackCompute):
    """Offers little, and says so."""

    async def invoke(
        self,
        request: Sequence[Buffer],
        *,
        timeout: float,  # noqa: ASYNC109  # the contract
    ) -> bytes:
        try:
            return await super().invoke(request, timeout=timeout)
        except WorkerLostError as exc:
            raise WorkerLostError("the worker was lost") from exc


@pytest.mark.anyio
class TestModestCompute(OnLoopback, EndingChecks):
    """A platform that neither stops workers nor says how they ended."""

    traits: ClassVar = ComputeTraits(
        cancel=False,
        kill_on_timeout=False,
        exit_codes=False,
        last_words=False,
        isolation=False,
    )

    @pytest.fixture
    async def compute(self, anyio_backend: str) -> AsyncIterator[Modest]:
        """An adapter on a platform that does not notice when its client has gone."""
        deaf = ("-m", "wren.conformance.mutants.compute_platform", "Deaf")
        compute = Modest(LoopbackPlatform(program=deaf))
        yield compute
        await compute.aclose()


def test_every_check_is_there() -> None:
    """C23 is about remaining time, which the contract does not tell a task."""
    found = {
        each.id
        for suite in (ComputeSuite, ComputeFaultSuite)
        for name in dir(suite)
        if (each := check_of(getattr(suite, name))) is not None
    }

    assert found == {f"C{number:02}" for number in range(1, 33)} - {"C23"}


@pytest.mark.anyio
class TestDroppedConnections(OnLoopback, DroppedConnectionChecks):
    """A platform that ends connections before functions."""

    direct_seconds: ClassVar = 1.0
