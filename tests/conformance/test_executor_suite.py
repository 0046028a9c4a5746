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
    async def open_executor(
        self, folder: Path
    ) -> AsyncIterator[Callable[..., Executor]]:
        """Two workers, whose messages hold a few hundred bytes."""
        opened: list[LimitedCompute] = []

        def open_executor(**options: Any) -> Executor:
            local = LocalCompute(2)
            compute = LimitedCompute(local, request_bytes=300, response_bytes=300)
            opened.append(compute)
            return Executor(backend=compute, storage=folder.as_uri(), **options)

        yield open_executor
        for compute in opened:
            await compute.aclose()

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
    async def compute(self) -> AsyncIterator[LocalCompute]:
        """Two workers."""
        compute = LocalCompute(2)
        yield compute
        await compute.aclose()

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[FileStorage]:
        """A directory."""
        store = FileStorage(tmp_path / "store")
        yield store
        await store.aclose()
