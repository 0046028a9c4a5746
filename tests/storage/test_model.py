"""Any sequence of calls on a store gives the answers that a dictionary would give."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from wren.conformance.models import check_storage_model
from wren.protocols import Storage
from wren.storage.local import FileStorage
from wren.storage.memory import MemoryStorage


class Lasting(MemoryStorage):
    """Keeps its objects when it is closed, as if opening it again found them."""

    async def aclose(self) -> None:
        """Leave that to the place."""


@asynccontextmanager
async def memory() -> AsyncGenerator[Callable[[], Storage]]:
    """Yield what opens the same store again."""
    store = Lasting()
    yield lambda: store
    await MemoryStorage.aclose(store)


@asynccontextmanager
async def files() -> AsyncGenerator[Callable[[], Storage]]:
    """Yield what opens a store in the same folder again."""
    with tempfile.TemporaryDirectory() as folder:
        yield lambda: FileStorage(Path(folder))


@pytest.mark.parametrize("place", [memory, files])
def test_a_store_is_a_dictionary(
    place: Callable[[], AbstractAsyncContextManager[Callable[[], Storage]]],
) -> None:
    """Hypothesis draws the calls, the same ones each time."""
    check_storage_model(place)
