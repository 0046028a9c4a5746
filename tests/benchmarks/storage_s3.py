"""Raw calls of aiobotocore, for `tests.benchmarks.storage`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from tests.benchmarks.storage import AT_ONCE, Client
from wren.storage.location import Location

EMULATOR = "s3"
DISTRIBUTION = "aiobotocore"


@asynccontextmanager
async def raw(url: str) -> AsyncGenerator[Client]:
    """Open a client; without checksums and hashes, as the adapter's on an emulator."""
    location = Location.parse(url, example="s3://bucket/prefix")
    config = AioConfig(
        max_pool_connections=AT_ONCE,
        retries={"total_max_attempts": 1, "mode": "standard"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path", "payload_signing_enabled": False},
    )
    async with get_session().create_client("s3", config=config) as client:

        async def put(key: str, data: bytes) -> object:
            name = location.full(key)
            return await client.put_object(Bucket=location.bucket, Key=name, Body=data)

        async def get(key: str) -> bytes:
            answer = await client.get_object(
                Bucket=location.bucket, Key=location.full(key)
            )
            async with answer["Body"] as body:
                data: bytes = await body.read()
                return data

        yield Client(put, get)
