"""Reading objects: short ones in one request, long ones in concurrent ranges."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Final, NamedTuple

from wren.errors import KeyExistsError, StorageError, TransientError
from wren.storage.parts import PART, read_parts
from wren.storage.s3_connection import Connection, code_of
from wren.storage.undisturbed import DisturbedError, undisturbed

_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/")


class _Long(NamedTuple):
    """What an answer says whose body is left to be read in parts."""

    etag: str
    size: int


async def download(
    connection: Connection, key: str, start: int, stop: int | None
) -> bytes:
    """Return the bytes ``[start, stop)`` of one version of an object.

    Args:
        connection: The bucket.
        key: The object.
        start: First byte.
        stop: One past the last byte, more than ``start``; None for the end.
    """

    async def read() -> bytes:
        found = await connection.run(partial(_receive, connection, key, start, stop))
        if isinstance(found, bytes):
            return found
        part = partial(_receive_part, connection, key, found.etag)
        return await read_parts(part, start, start + found.size)

    return await undisturbed(read)


async def _receive_part(
    connection: Connection, key: str, etag: str, start: int, stop: int
) -> bytes:
    read = partial(_receive, connection, key, start, stop, etag=etag)
    try:
        part = await connection.run(read)
    except KeyExistsError as exc:  # it has another etag now
        raise DisturbedError("overwritten while read", store="s3", key=key) from exc
    if isinstance(part, bytes):
        return part
    raise StorageError("more was sent than was asked for", store="s3", key=key)


async def _receive(
    connection: Connection,
    key: str,
    start: int,
    stop: int | None,
    *,
    etag: str | None = None,
) -> bytes | _Long:
    """Make one request; read the answer, unless it has more than one part."""
    arguments = {} if etag is None else {"IfMatch": etag}
    ranged = start > 0 or stop is not None
    if ranged:
        arguments["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
    try:
        answer = await connection.send("get_object", key, **arguments)
    except StorageError as exc:
        if code_of(exc) in {"InvalidRange", "416"}:  # wholly beyond the end
            return b""
        raise
    with connection.explained(key):
        async with answer["Body"] as body:  # or the connection would never be free
            size = _size(answer, start if ranged else None, key)
            if size is not None and size > PART:
                return _Long(answer["ETag"], size)
            data: bytes = await body.read()
    if size is not None and len(data) != size:
        raise TransientError(f"{len(data)} bytes came of {size}", store="s3", key=key)
    return data


def _size(answer: Any, start: int | None, key: str) -> int | None:
    """Return how many bytes the body has; None if it ends where it says so.

    Raises:
        TransientError: Something between here and S3 has answered, or has cut what
            S3 said: it cannot be seen whether the body is complete.
        StorageError: It is another range than the one that begins at ``start``.
    """
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    framed = headers.get("transfer-encoding", "").lower() == "chunked"
    if "ETag" not in answer or not (framed or "content-length" in headers):
        raise TransientError("the answer is not one of S3's", store="s3", key=key)
    size: int | None = answer.get("ContentLength")
    if start is not None:
        sent = _RANGE.match(answer.get("ContentRange", ""))
        if sent is None or int(sent[1]) != start:
            raise StorageError("the server ignores ranges", store="s3", key=key)
        size = int(sent[2]) + 1 - start
    return size
