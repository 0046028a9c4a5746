"""The executor on this machine keeps what every executor promises."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from wren.backends.local.compute import LocalCompute
from wren.conformance.executor import ExecutorSuite
from wren.conformance.executor_faults import ExecutorFaultSuite
from wren.conformance.limits import LimitedCompute
from wren.executor import Executor
from wren.storage.local import FileStorage


@pytest.fixture(scope="module")
async def workers(anyio_backend: str) -> AsyncIterator[LocalCompute]:
    """Two, for all tests that bring no others."""
    workers = LocalCompute(2)
    await workers.prepare()
    yield workers
    await workers.aclose()


@pytest.mark.blocking  # starting an interpreter blocks the loop for a moment
class TestLocal(ExecutorSuite):
    """As it is when nothing is configured."""

    @pytest.fixture
    def open_executor(self) -> Callable[..., Executor]:
        """Two workers, and a store of their own."""

        def open_executor(**options: Any) -> Executor:
            chosen: dict[str, Any] = {"concurrency": 2, **options}
            return Executor(backend="local", **chosen)

        return open_executor


@pytest.mark.blocking  # as above
class TestNothingInline(ExecutorSuite):
    """Every function, argument and result goes through a store in a directory."""

    inline = False

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """Return where the store is."""
        return tmp_path / "store"

    @pytest.fixture
    def open_executor(
        self, folder: Path, workers: LocalCompute
    ) -> Callable[..., Executor]:
        """The workers' messages hold a few hundred bytes."""
        compute = LimitedCompute(workers, request_bytes=300, response_bytes=300)

        def open_executor(**options: Any) -> Executor:
            return Executor(backend=compute, storage=folder.as_uri(), **options)

        return open_executor

    @pytest.fixture
    def leftovers(self, folder: Path) -> Callable[[], Awaitable[list[str]]]:
        """Look with another store."""

        async def leftovers() -> list[str]:
            store = FileStorage(folder)
            found = [info.key async for info in store.list()]
            await store.aclose()
            return found

        return leftovers


@pytest.mark.blocking  # as above
class TestFaults(ExecutorFaultSuite):
    """The platform and the store fail by plan."""

    @pytest.fixture
    def compute(self, workers: LocalCompute) -> LocalCompute:
        """Two workers, shared."""
        return workers

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[FileStorage]:
        """A directory."""
        store = FileStorage(tmp_path / "store")
        yield store
        await store.aclose()
