"""Writing objects: short ones in one request, long ones in parts, all or nothing."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from secrets import token_hex
from typing import Any, Final

from anyio import move_on_after
from anyio.lowlevel import checkpoint_if_cancelled

from wren.errors import KeyExistsError, KeyNotFoundError, StorageError, TransientError
from wren.protocols import Buffer
from wren.storage.parts import PART, write_parts
from wren.storage.s3_bodies import body, own
from wren.storage.s3_connection import Connection, code_of

_WHOLE: Final = 2 * PART
"""Bytes of the longest object that is sent in one request: parts take two more."""

_STARTS: Final = 3
_GRACE: Final = 20.0
"""Seconds that a cancelled upload may take to remove its parts."""

_NONCE: Final = "wren-nonce"

_log = logging.getLogger(__name__)


class _StartAgainError(Exception):
    """Another writer came between: these parts cannot become the object."""


async def upload(
    connection: Connection, key: str, data: Buffer, *, if_absent: bool
) -> None:
    """Store an object.

    Raises:
        KeyExistsError: ``if_absent`` and somebody else's object is there.
    """
    connection.check()
    nonce = token_hex(16)
    write = _write_parts if len(data) > _WHOLE else _write_whole
    try:
        await write(connection, key, await own(data), nonce, if_absent)
    except KeyExistsError:
        # The answer to a request that was sent twice, be it by us or by the library
        # for HTTP, may be about its own success.
        if not await _is_mine(connection, key, nonce):
            raise


async def _is_mine(connection: Connection, key: str, nonce: str) -> bool:
    try:
        found = await connection.ask("head_object", key)
    except KeyNotFoundError:
        return False
    return bool(found["Metadata"].get(_NONCE) == nonce)


async def _write_whole(
    connection: Connection, key: str, data: bytes, nonce: str, if_absent: bool
) -> None:
    arguments = _condition(if_absent)
    if if_absent:
        arguments["Metadata"] = {_NONCE: nonce}

    async def send() -> None:
        await connection.send("put_object", key, Body=body(data), **arguments)

    await connection.run(send)


async def _write_parts(
    connection: Connection, key: str, data: bytes, nonce: str, if_absent: bool
) -> None:
    for _ in range(_STARTS):
        try:
            await _write_parts_once(connection, key, data, nonce, if_absent)
        except _StartAgainError:
            continue
        return
    raise TransientError("other writers come between", store="s3", key=key)


async def _write_parts_once(
    connection: Connection, key: str, data: bytes, nonce: str, if_absent: bool
) -> None:
    upload_id = await _begin(connection, key, nonce)
    completed = False
    try:
        parts = await _send_parts(connection, key, upload_id, data)
        complete = partial(_complete, connection, key, upload_id, parts, if_absent)
        await connection.run(complete)
        completed = True
    except StorageError as exc:
        # Gone because an earlier request has completed it, whose answer was lost?
        if code_of(exc) != "NoSuchUpload":
            raise
        completed = await _is_mine(connection, key, nonce)
        if not completed:
            raise
    finally:
        if not completed:
            await _abort(connection, key, upload_id)


async def _begin(connection: Connection, key: str, nonce: str) -> str:
    """Begin an upload in parts; cancelled meanwhile, take it back.

    Nobody knows the name of an upload whose beginning was not waited for, and its parts
    would be paid for without end.
    """
    await checkpoint_if_cancelled()
    create = asyncio.ensure_future(_create(connection, key, nonce))
    try:
        return await asyncio.shield(create)
    except asyncio.CancelledError:
        with move_on_after(_GRACE, shield=True):
            try:
                upload_id = await create
            except StorageError:
                pass  # nothing was begun
            else:
                await _abort(connection, key, upload_id)
        raise


async def _create(connection: Connection, key: str, nonce: str) -> str:
    arguments: dict[str, Any] = {"Metadata": {_NONCE: nonce}}
    if (await connection.open()).checksums:
        arguments["ChecksumAlgorithm"] = "CRC32"  # what the parts will come with
    begun = await connection.ask("create_multipart_upload", key, **arguments)
    upload_id: str = begun["UploadId"]
    return upload_id


async def _send_parts(
    connection: Connection, key: str, upload_id: str, data: bytes
) -> list[dict[str, Any]]:
    """Send all parts; return what completes the upload."""
    sent: dict[int, dict[str, Any]] = {}

    async def write(index: int, view: memoryview) -> None:
        number = index + 1

        async def send() -> None:
            answer = await connection.send(
                "upload_part",
                key,
                UploadId=upload_id,
                PartNumber=number,
                Body=body(view),
            )
            checksums = {
                name: value
                for name, value in answer.items()
                if name.startswith("Checksum") and name != "ChecksumType"
            }
            etag = answer["ETag"]
            sent[number] = {"PartNumber": number, "ETag": etag, **checksums}

        await connection.run(send)

    await write_parts(write, data)
    return [sent[number] for number in sorted(sent)]


async def _complete(
    connection: Connection,
    key: str,
    upload_id: str,
    parts: list[dict[str, Any]],
    if_absent: bool,
) -> None:
    try:
        await connection.send(
            "complete_multipart_upload",
            key,
            UploadId=upload_id,
            MultipartUpload={"Parts": parts},
            **_condition(if_absent),
        )
    except TransientError as exc:
        # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
        if code_of(exc) == "ConditionalRequestConflict":
            raise _StartAgainError from exc
        raise


async def _abort(connection: Connection, key: str, upload_id: str) -> None:
    """Remove an upload and its parts, even if this task has been cancelled."""
    with move_on_after(_GRACE, shield=True) as scope:
        try:
            await connection.ask("abort_multipart_upload", key, UploadId=upload_id)
        except StorageError as exc:
            if code_of(exc) != "NoSuchUpload":
                _log.warning("an unfinished upload is left: %s", exc)
    if scope.cancelled_caught:
        _log.warning("an unfinished upload is left: s3:%s: no answer", key)


def _condition(if_absent: bool) -> dict[str, Any]:
    return {"IfNoneMatch": "*"} if if_absent else {}
