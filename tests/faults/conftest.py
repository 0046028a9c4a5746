"""Worker processes and a store, faults before both, and tasks that leave a trace."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sized
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import anyio
import pytest

from wren import Executor
from wren.backends.local.compute import LocalCompute
from wren.conformance.fault_plan import FaultPlan
from wren.conformance.faulty_compute import FaultyCompute
from wren.conformance.faulty_storage import FaultyStorage
from wren.conformance.limits import LimitedCompute
from wren.protocols import Storage
from wren.storage.local import FileStorage

T = TypeVar("T")
R = TypeVar("R")

SMALL = 300
"""Bytes that a request or response may have where data is to be spilled."""

PATIENCE = 60.0
"""Seconds after which something hangs."""


class Platform:
    """Two worker processes, whose connections may be lost, and a store.

    Attributes:
        store: Shared with others as far as an executor knows, so that what is read from
            it is verified.
        compute: What the last executor invoked.
    """

    def __init__(self, folder: Path, store: Storage) -> None:
        self.store = store
        self.compute: FaultyCompute
        self._traces = folder / "traces"
        self._traces.mkdir()

    @asynccontextmanager
    async def open(
        self,
        plan: FaultPlan,
        *,
        spilled: bool = False,
        direct_seconds: float = float("inf"),
        **options: Any,
    ) -> AsyncGenerator[Executor]:
        """Open an executor; all of the plan must have happened when it is left.

        Args:
            plan: What goes wrong.
            spilled: Functions, arguments and results travel through the store.
            direct_seconds: When connections are dropped.
            options: The executor's.
        """
        most = SMALL if spilled else float("inf")
        async with (
            aclosing(LocalCompute(2)) as local,
            LimitedCompute(
                local,
                request_bytes=most,
                response_bytes=most,
                direct_seconds=direct_seconds,
                lossless=False,
            ) as limited,
        ):
            self.compute = FaultyCompute(limited, plan)
            storage = FaultyStorage(self.store, plan)
            with plan, anyio.fail_after(PATIENCE):
                async with Executor(
                    backend=self.compute, storage=storage, **options
                ) as executor:
                    yield executor

    def traced(self, function: Callable[[T], R]) -> Callable[[T], R]:
        """Return a function that leaves a trace each time it is called.

        Its item is a number, or something that has a length.
        """
        folder = str(self._traces)

        def call(item: T) -> R:
            number = item if isinstance(item, int) else len(cast("Sized", item))
            path = os.path.join(folder, str(number))  # noqa: PTH118  # on the worker
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(descriptor, b".")
            os.close(descriptor)
            return function(item)

        return call

    @property
    def executions(self) -> Counter[int]:
        """How often each item was worked on."""
        return Counter(
            {int(path.name): path.stat().st_size for path in self._traces.iterdir()}
        )

    async def keys(self) -> list[str]:
        """Return what lies in the store."""
        return [info.key async for info in self.store.list()]


@pytest.fixture
def on_store(tmp_path: Path) -> Callable[[Storage], Platform]:
    """Make a platform of a store, which stays its owner's."""
    return partial(Platform, tmp_path)


@pytest.fixture
async def platform(
    tmp_path: Path, on_store: Callable[[Storage], Platform]
) -> AsyncGenerator[Platform]:
    """A platform whose store is a directory."""
    async with aclosing(FileStorage(tmp_path / "store")) as store:
        yield on_store(store)
