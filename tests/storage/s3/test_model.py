"""Any sequence of calls on S3 gives the answers that a dictionary would give."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import count

from hypothesis import settings as Settings  # noqa: N812  # a class

from wren import config
from wren.conformance.models import SETTINGS, check_storage_model
from wren.protocols import Storage
from wren.storage.s3 import open_storage
from wren.transfer import delete_prefix

QUICK = Settings(SETTINGS, max_examples=6)


def test_a_bucket_is_a_dictionary(s3_url: str) -> None:
    """Hypothesis draws the calls, the same ones each time."""
    number = count()

    @asynccontextmanager
    async def place() -> AsyncGenerator[Callable[[], Storage]]:
        url = f"{s3_url}/{next(number)}"
        yield lambda: open_storage(url, config.Settings())
        store = open_storage(url, config.Settings())
        await delete_prefix(store, "")
        await store.aclose()

    check_storage_model(place, settings=QUICK)
