"""Writing blobs, large ones in blocks that are committed at the end."""

from __future__ import annotations

import base64
import secrets
from typing import Final

from azure.core import MatchConditions
from azure.storage.blob import BlobBlock
from azure.storage.blob.aio import ContainerClient

from wren.errors import KeyExistsError, KeyNotFoundError
from wren.protocols import Buffer
from wren.storage.azure_client import SINGLE_PUT, Client
from wren.storage.azure_errors import NAME, PreconditionError
from wren.storage.azure_reads import describe
from wren.storage.parts import write_parts

# Names must be C# identifiers: no hyphen. Azurite would take one, the service does not.
# https://learn.microsoft.com/rest/api/storageservices/setting-and-retrieving-properties-and-metadata-for-blob-resources
_NONCE: Final = "wren_nonce"


async def write(client: Client, key: str, name: str, data: Buffer) -> None:
    """Write a blob, whatever is there.

    Args:
        client: Makes the requests: one, if the object is not large.
        key: The object, for errors.
        name: Its name in the container.
        data: All of it.

    Raises:
        DisturbedError: Another writer's commit dropped the blocks of this one.
    """
    await _write(client, key, name, data, "")


async def create(client: Client, key: str, name: str, data: Buffer, nonce: str) -> None:
    """Write a blob where none is.

    Args:
        client: As of `write`.
        key: As of `write`.
        name: As of `write`.
        data: As of `write`.
        nonce: Kept with the object. It tells an object that a lost answer was about,
            even to a request that aiohttp sent twice by itself, from another's.

    Raises:
        KeyExistsError: Another's blob is there.
        DisturbedError: As of `write`.
    """
    try:
        await _write(client, key, name, data, nonce)
    except KeyExistsError:
        if not await _has_nonce(client, key, name, nonce):
            raise


async def _has_nonce(client: Client, key: str, name: str, nonce: str) -> bool:
    try:
        found = await describe(client, key, name)
    except KeyNotFoundError:
        return False
    metadata = {name.lower(): value for name, value in found.metadata.items()}
    return metadata.get(_NONCE) == nonce


async def _write(client: Client, key: str, name: str, data: Buffer, nonce: str) -> None:
    large = len(data) > SINGLE_PUT
    blocks = await _stage(client, key, name, data) if large else []
    body = b"" if large else data if isinstance(data, bytes) else bytes(data)
    metadata = {_NONCE: nonce} if nonce else None

    async def finish(container: ContainerClient) -> None:
        blob = container.get_blob_client(name)
        if large:
            condition = MatchConditions.IfMissing if nonce else None
            await blob.commit_block_list(
                blocks, metadata=metadata, match_condition=condition
            )
        else:
            await blob.upload_blob(
                body, length=len(body), overwrite=not nonce, metadata=metadata
            )

    try:
        await client.send(finish, key)
    except PreconditionError as exc:
        raise KeyExistsError(store=NAME, key=key) from exc


async def _stage(client: Client, key: str, name: str, data: Buffer) -> list[BlobBlock]:
    """Upload the blocks of a blob; return them in order."""
    upload = secrets.token_bytes(16)  # so that two puts do not share blocks
    blocks: dict[int, BlobBlock] = {}

    async def stage(number: int, part: memoryview) -> None:
        block = base64.b64encode(upload + number.to_bytes(4, "big")).decode()
        blocks[number] = BlobBlock(block)

        async def send(container: ContainerClient) -> None:
            body = bytes(part)
            blob = container.get_blob_client(name)
            await blob.stage_block(block, body, length=len(body))

        await client.send(send, key)

    await write_parts(stage, data)
    return [blocks[number] for number in sorted(blocks)]
