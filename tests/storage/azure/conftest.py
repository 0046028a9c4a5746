"""What the tests of the Azure adapter share: its event loop, and its stores."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from wren.config import Settings
from wren.storage.azure import AzureStorage, open_storage


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Azure's library knows no event loop but asyncio's."""
    return "asyncio"


@pytest.fixture
async def store(azurite_url: str) -> AsyncGenerator[AzureStorage]:
    """An empty store in a running Azurite."""
    opened = open_storage(azurite_url, Settings())
    yield opened
    await opened.aclose()
