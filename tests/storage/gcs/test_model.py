"""Any sequence of calls on GCS gives the answers that a dictionary would give."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import settings as hypothesis_settings

from wren.config import Settings
from wren.conformance.models import SETTINGS, check_storage_model
from wren.protocols import Storage
from wren.storage.gcs import open_storage


@pytest.mark.timeout(300)
def test_a_store_is_a_dictionary(gcs_url: str) -> None:
    """On any failure hypothesis prints the shortest sequence that shows it."""

    @asynccontextmanager
    async def place() -> AsyncGenerator[Callable[[], Storage]]:
        url = f"{gcs_url}/{uuid.uuid4().hex}"
        yield lambda: open_storage(url, Settings())

    # Each step is a request or two; the model over memory does many more.
    fewer = hypothesis_settings(SETTINGS, max_examples=15)
    check_storage_model(place, settings=fewer)
