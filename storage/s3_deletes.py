"""Deleting objects, a thousand in one request."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Final

from anyio import create_task_group

from wren.errors import KeyNotFoundError, StorageError, TransientError
from wren.storage.s3_connection import Connection

_BATCH: Final = 1000
"""https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html"""

_AT_ONCE: Final = 8
_NOT_XML: Final = re.compile("[\ufffe\uffff]")
"""Characters that a key may have and a document cannot hold, not even escaped."""


async def delete(connection: Connection, keys: list[str]) -> None:
    """Delete objects; those that are not there count as deleted.

    Raises:
        StorageError: An object was not deleted. Others may have been.
    """
    listed = list(dict.fromkeys(key for key in keys if not _NOT_XML.search(key)))
    steps = [
        partial(_delete_batch, connection, listed[first : first + _BATCH])
        for first in range(0, len(listed), _BATCH)
    ]
    steps += [
        partial(connection.ask, "delete_object", key)
        for key in keys
        if _NOT_XML.search(key)
    ]
    if len(steps) == 1:
        await steps[0]()
        return
    todo = iter(steps)

    async def work() -> None:
        for step in todo:
            await step()

    try:
        async with create_task_group() as group:
            for _ in range(min(_AT_ONCE, len(steps))):
                group.start_soon(work)
    except ExceptionGroup as failed:
        first = failed.exceptions[0]  # callers expect the store's error, not a group
        raise first from first.__cause__


async def _delete_batch(connection: Connection, keys: list[str]) -> None:
    left = [connection.location.full(key) for key in keys]

    async def send() -> None:
        nonlocal left
        objects = [{"Key": name} for name in left]
        answer = await connection.send(
            "delete_objects", Delete={"Objects": objects, "Quiet": True}
        )
        failures = _failures(connection, answer.get("Errors", ()))
        left = [connection.location.full(error.key) for error in failures]
        failures.sort(key=lambda error: isinstance(error, TransientError))
        if failures:  # one that stays comes first
            raise failures[0]

    await connection.run(send)


def _failures(connection: Connection, entries: Any) -> list[StorageError]:
    """Return what S3 says of each object that it has not deleted."""
    from wren.storage.s3_errors import explain_item

    errors = [explain_item(entry, connection.location) for entry in entries]
    return [error for error in errors if not isinstance(error, KeyNotFoundError)]
