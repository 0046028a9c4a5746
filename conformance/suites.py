"""The three suites, for whatever `wren.conformance.plugin` was told to test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final

import pytest

from wren.config import Settings
from wren.conformance import rewriting as rewriting  # before the checks; see there
from wren.conformance.compute import ComputeSuite, ComputeTraits
from wren.conformance.executor import ExecutorSuite
from wren.conformance.executor_bench import Bench
from wren.conformance.executor_faults import ExecutorFaultSuite
from wren.conformance.storage import StorageSuite
from wren.conformance.targets import Places
from wren.executor import Executor
from wren.protocols import Compute, Storage
from wren.registry import open_storage

_TRAITS: Final[Mapping[str, ComputeTraits]] = {
    "local": ComputeTraits(clean_temp=False),
}
"""What platforms do not offer. Of one that is not here, everything is asked."""

_DRIVERS: Final[Mapping[str, str]] = {
    "local": (
        "from wren.backends.local.compute import LocalCompute\n"
        "compute = LocalCompute(1)\n"
    ),
}
"""See `ComputeSuite.driver`, where workers end with the process that made them."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run each check once; anyio's own fixture has it run on every event loop."""
    return "asyncio"


class TestStorage(StorageSuite):
    """The plugin's fixtures give it an empty store for each test."""

    @pytest.fixture
    def longest_key(self, wren_places: Places) -> int:
        """Leave room for what the place of a test puts before its keys."""
        return wren_places.longest_key


class TestCompute(ComputeSuite):
    """Workers leave their marks in the configured store, which they surely reach."""

    @pytest.fixture(autouse=True)
    def adapt(
        self,
        store: Storage,
        wren_settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Ask for what the platform offers.

        The store comes first: what it opens is not what a compute leaves behind.
        """
        del store
        traits = _TRAITS.get(wren_settings.backend, ComputeTraits())
        memory = wren_settings.memory
        limit = None if memory is None else memory << 20
        monkeypatch.setattr(type(self), "traits", replace(traits, memory=limit))
        driver = _DRIVERS.get(wren_settings.backend, "")
        monkeypatch.setattr(type(self), "driver", driver)

    @pytest.fixture
    async def store(self, wren_places: Places) -> AsyncIterator[Storage]:
        """Open the configured store, or the backend's own."""
        if not await wren_places.has_store():
            pytest.skip("no store is configured, and the backend has none")
        async with wren_places.store() as opened:
            yield opened


class TestExecutor(ExecutorSuite):
    """The configured backend and store, as a program would use them."""

    @pytest.fixture
    def leftovers(
        self, wren_settings: Settings, wren_place: str | None
    ) -> Callable[[], Awaitable[list[str]]] | None:
        """Look into the store with another client, if it is one that others reach."""
        if wren_place is None or "//" not in wren_place:
            return None

        async def leftovers() -> list[str]:
            store = open_storage(wren_place, wren_settings)
            try:
                return [info.key async for info in store.list()]
            finally:
                await store.aclose()

        return leftovers


class TestExecutorFaults(ExecutorFaultSuite):
    """The same with faults in between."""

    @pytest.fixture
    def bench(
        self, compute: Compute, store: Storage, open_executor: Callable[..., Executor]
    ) -> Bench:
        """Return what opens executors; reported with those of `TestExecutor`."""
        return Bench(compute, store)
