"""Reading blobs, large ones in concurrent ranges."""

from __future__ import annotations

from typing import Final, NamedTuple

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobProperties
from azure.storage.blob.aio import ContainerClient

from wren.errors import TransientError
from wren.storage.azure_client import Client
from wren.storage.azure_errors import NAME
from wren.storage.parts import PART, read_parts

_BEYOND_THE_END: Final = 416


class _Piece(NamedTuple):
    """A range of a blob, and what the answer said about all of it."""

    data: bytes
    size: int
    etag: str


async def describe(client: Client, key: str, name: str) -> BlobProperties:
    """Return what the service knows of a blob, in one request.

    Raises:
        KeyNotFoundError: No such object.
    """
    return await client.send(
        lambda container: container.get_blob_client(name).get_blob_properties(), key
    )


async def read(
    client: Client, key: str, name: str, start: int, stop: int | None
) -> bytes:
    """Return a range that is not empty, all of it of one version of the object.

    Args:
        client: Makes the requests: one, if the range fits into a part.
        key: The object, for errors.
        name: Its name in the container.
        start: First byte.
        stop: One past the last; None or anything beyond the end means the end.

    Raises:
        KeyNotFoundError: No such object.
        DisturbedError: Another writer replaced it meanwhile.
    """
    end = start + PART if stop is None else min(stop, start + PART)
    head = await _read_piece(client, key, name, start, end)
    end = head.size if stop is None else min(stop, head.size)
    if end <= start + len(head.data):
        return head.data

    async def read_part(first: int, last: int) -> bytes:
        if first == start:
            return head.data
        return (await _read_piece(client, key, name, first, last, head.etag)).data

    return await read_parts(read_part, start, end)


async def _read_piece(
    client: Client, key: str, name: str, start: int, stop: int, etag: str | None = None
) -> _Piece:
    """Read one range in one request; an empty one if it lies beyond the end.

    Raises:
        DisturbedError: The object does not have this ETag any more.
    """

    async def get(container: ContainerClient) -> _Piece:
        try:
            if etag is None:  # the library does not take None for it
                stream = await container.download_blob(name, start, stop - start)
            else:
                stream = await container.download_blob(
                    name,
                    start,
                    stop - start,
                    etag=etag,
                    match_condition=MatchConditions.IfNotModified,
                )
        except HttpResponseError as exc:
            if exc.status_code != _BEYOND_THE_END:  # any range is, of an empty blob
                raise
            return _Piece(b"", 0, "")
        data = b"".join([chunk async for chunk in stream.chunks()])
        total = int((stream.properties.content_range or "").rpartition("/")[2])
        if len(data) != min(stop, total) - start:
            raise TransientError("the answer was cut short", store=NAME, key=key)
        return _Piece(data, total, stream.properties.etag)

    return await client.send(get, key)
