"""What the tests of the GCS adapter share: its stores."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from wren.config import Settings
from wren.storage.gcs import GcsStorage, open_storage


@pytest.fixture
async def store(gcs_url: str) -> AsyncGenerator[GcsStorage]:
    """An empty store in a running server."""
    opened = open_storage(gcs_url, Settings())
    yield opened
    await opened.aclose()
