"""Stores in a bucket of the S3 server that the tests share."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from wren.config import Settings
from wren.storage.location import Location
from wren.storage.s3 import S3Storage, open_storage
from wren.storage.s3_connection import Connection


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
    location = Location.parse(s3_url, example="")
    connection = Connection(location, None, Settings())
    yield connection.ask
    await connection.aclose()


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


@pytest.fixture
def unused_endpoint() -> str:
    """An address of this machine where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"
