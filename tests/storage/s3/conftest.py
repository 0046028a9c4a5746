"""Stores in a bucket of the S3 server that the tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from wren.config import Settings
from wren.storage.s3 import S3Storage, open_storage


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The client library knows asyncio only."""
    return "asyncio"


@pytest.fixture
async def store(s3_url: str) -> AsyncIterator[S3Storage]:
    """An empty store. What is put into it stays under a prefix that nobody else has."""
    store = open_storage(s3_url, Settings())
    yield store
    await store.aclose()


@pytest.fixture
async def bucket(s3_url: str) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Asks the server past the store's methods: operation, key, arguments."""
    store = open_storage(s3_url, Settings())
    yield store._connection.ask
    await store.aclose()


@pytest.fixture
def uploads_left(
    s3_url: str, bucket: Callable[..., Awaitable[Any]]
) -> Callable[[], Awaitable[int]]:
    """Counts the uploads in parts that were begun and not ended."""
    prefix = s3_url.rpartition("/")[2]

    async def count() -> int:
        answer = await bucket("list_multipart_uploads")
        keys = [each["Key"] for each in answer.get("Uploads", [])]
        return sum(key.startswith(prefix) for key in keys)

    return count
