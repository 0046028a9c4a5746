"""What the checks of a `Compute` share: fixtures, and calls that cannot hang."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest

from wren.conformance.compute_traits import ComputeTraits
from wren.conformance.marks import Marks
from wren.conformance.request import Answer, ask, read
from wren.envelope import Parts
from wren.protocols import Compute, Deployer, Storage
from wren.storage.local import FileStorage


class ComputeCalls:
    """Fixtures of the suite, and how it calls."""

    traits: ClassVar[ComputeTraits] = ComputeTraits()
    """What the platform offers."""

    patience: ClassVar[float] = 60.0
    """Seconds after which a call is taken to hang. Far more than a cold start needs."""

    grace: ClassVar[float] = 5.0
    """Seconds within which a call returns that was cancelled or has run out of time,
    and within which a process ends that was killed."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Storage]:
        """Where workers leave marks. By default a directory on this machine.

        Workers elsewhere need a store that they reach, and that makes grants.
        """
        store = FileStorage(tmp_path / "marks")
        yield store
        await store.aclose()

    @pytest.fixture
    def marks(self, store: Storage) -> Marks:
        """What workers say through the store."""
        return Marks(store)

    @pytest.fixture
    async def ready(self, compute: Compute) -> Compute:
        """The compute, prepared."""
        await compute.prepare()
        return compute

    @pytest.fixture
    def deployer(self) -> Deployer | None:
        """What deploys the compute's functions, where the adapter has such."""
        return None

    @contextmanager
    def within(self, seconds: float, what: str) -> Generator[None]:
        """Turn a call that takes too long into a failed assertion.

        Args:
            seconds: Until it is cancelled.
            what: What does not happen, for the message.
        """
        began = anyio.current_time()
        with anyio.move_on_after(seconds) as scope:
            yield
        took = anyio.current_time() - began
        assert not scope.cancelled_caught, f"{what}: not within {seconds:g} s"
        assert took < seconds + self.grace, f"{what}: only after {took:.1f} s"

    async def send(
        self,
        compute: Compute,
        request: Parts,
        timeout: float | None = None,  # noqa: ASYNC109  # passed on
    ) -> Answer:
        """Send a request and return the answer; never hangs."""
        with self.within(self.patience, "an answer"):
            return read(
                await compute.invoke(request, timeout=timeout or 2 * self.patience)
            )
        raise AssertionError("unreachable: the block above returns or raises")

    async def call(
        self,
        compute: Compute,
        function: Callable[[Any], Any],
        item: object,
        **header: Any,
    ) -> Answer:
        """Call a function once; never hangs. See `ask`."""
        return await self.send(compute, ask(function, item, **header))
