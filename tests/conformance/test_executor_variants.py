"""What every executor promises, where requests fail and where a store is memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from wren.backends.local.compute import LocalCompute
from wren.conformance.executor import ExecutorSuite
from wren.conformance.faults import FaultPlan, FaultyCompute, FaultyStorage
from wren.conformance.limits import LimitedCompute
from wren.executor import Executor
from wren.storage.local import FileStorage
from wren.storage.memory import MemoryStorage


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One is enough here; others show that the event loop makes no difference."""
    return "asyncio"


@pytest.fixture(scope="module")
async def workers(anyio_backend: str) -> AsyncIterator[LocalCompute]:
    """Two, for all tests."""
    workers = LocalCompute(2)
    await workers.prepare()
    yield workers
    await workers.aclose()


@pytest.mark.blocking  # starting an interpreter blocks the loop for a moment
class TestUnderFaults(ExecutorSuite):
    """A fifth of the first invocations fail, and so do requests to the store.

    Left out is what counts invocations, as those that failed are counted, too, and
    what is only large.
    """

    @pytest.fixture
    async def open_executor(
        self, tmp_path: Path, workers: LocalCompute
    ) -> AsyncIterator[Callable[..., Executor]]:
        """Faults come before the workers; there are as many attempts as it takes."""
        store = FileStorage(tmp_path / "store")

        def open_executor(**options: Any) -> Executor:
            plan = FaultPlan.random(
                11,
                rate=0.2,
                calls=100,
                actions={
                    "invoke": ["throttle", "refuse", "die", "lose", "duplicate"],
                    "put": ["fail-before", "fail-after", "delay"],
                    "get": ["fail-before", "truncate", "flip"],
                    "list": ["fail-before", "delay", "stale"],
                    "delete": ["fail-after"],
                },
            )
            chosen: dict[str, Any] = {"retries": 30, **options}
            return Executor(
                backend=FaultyCompute(workers, plan),
                storage=FaultyStorage(store, plan),
                **chosen,
            )

        yield open_executor
        await store.aclose()


for counted in (
    "test_one_item_is_a_list_of_one",
    "test_a_functions_bytes_travel_once_to_a_worker",
    "test_many_small_tasks_are_few_invocations",
    "test_many_tasks_take_little_of_the_driver",
    "test_pickling_leaves_the_event_loop_free",
):
    setattr(TestUnderFaults, counted, None)


@pytest.mark.blocking  # as above
class TestMemory(ExecutorSuite):
    """Nothing is inline, and the store is this process's memory."""

    inline = False

    @pytest.fixture
    async def store(self) -> AsyncIterator[MemoryStorage]:
        """Shared by all executors of a test."""
        store = MemoryStorage()
        yield store
        await store.aclose()

    @pytest.fixture
    def open_executor(
        self, store: MemoryStorage, workers: LocalCompute
    ) -> Callable[..., Executor]:
        """The workers' messages hold a few hundred bytes."""
        compute = LimitedCompute(workers, request_bytes=300, response_bytes=300)

        def open_executor(**options: Any) -> Executor:
            return Executor(backend=compute, storage=store, **options)

        return open_executor

    @pytest.fixture
    def leftovers(self, store: MemoryStorage) -> Callable[[], Awaitable[list[str]]]:
        """Look into it."""

        async def leftovers() -> list[str]:
            return [info.key async for info in store.list()]

        return leftovers
