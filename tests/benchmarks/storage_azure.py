"""Raw calls of azure-storage-blob, for `tests.benchmarks.storage`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from azure.storage.blob.aio import ContainerClient

from tests.benchmarks.storage import Client
from wren.storage.azure_client import API_VERSION
from wren.storage.azure_login import find_login
from wren.storage.location import Location

EMULATOR = "azurite"
DISTRIBUTION = "azure-storage-blob"


@asynccontextmanager
async def raw(url: str) -> AsyncGenerator[Client]:
    """Open a client with the library's own transport, which has 100 connections."""
    place = Location.parse(url, example="az://account/container/prefix")
    name, _, prefix = place.prefix.partition("/")
    login = find_login(place.bucket)
    async with ContainerClient(
        login.endpoint,
        name,
        credential=login.credential(),
        api_version=API_VERSION,
        retry_total=0,
    ) as container:

        async def put(key: str, data: bytes) -> object:
            return await container.upload_blob(prefix + key, data, overwrite=True)

        async def get(key: str) -> bytes:
            stream = await container.download_blob(prefix + key)
            return await stream.readall()

        yield Client(put, get)
