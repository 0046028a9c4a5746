"""Deleting blobs, many in one request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeVar

from anyio import create_task_group
from azure.core.exceptions import HttpResponseError
from azure.storage.blob.aio import ContainerClient

from wren.errors import KeyNotFoundError
from wren.storage.azure_client import Client
from wren.storage.azure_errors import code_of

T = TypeVar("T")

_BATCH: Final = 256  # the service's limit
_BATCHES_AT_ONCE: Final = 4
_DELETED: Final = 202
_BATCH_REFUSED: Final = frozenset({400, 403, 405, 409, 501})


class Deletions:
    """Deletes blobs of one container; one that is not there is no failure."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._takes_batches = True

    async def delete(self, names: Sequence[str]) -> None:
        """Delete blobs in batches or, where the service refuses batches, one by one.

        Raises:
            StorageError: Some could not be deleted; others are.
        """
        if len(names) == 1:
            await self._delete_one(names[0])
            return
        starts = range(0, len(names), _BATCH)
        batches = [names[start : start + _BATCH] for start in starts]
        await _for_each(self._delete_batch, batches, _BATCHES_AT_ONCE)

    async def _delete_one(self, name: str) -> None:
        try:
            await self._client.send(
                lambda container: container.delete_blob(
                    name, delete_snapshots="include"
                )
            )
        except KeyNotFoundError:
            return

    async def _delete_batch(self, names: Sequence[str]) -> None:
        if self._takes_batches:
            self._takes_batches = await self._client.send(
                lambda container: self._send_batch(container, names)
            )
        if not self._takes_batches:
            await _for_each(self._delete_one, names, self._client.requests.slots)

    async def _send_batch(
        self, container: ContainerClient, names: Sequence[str]
    ) -> bool:
        """Delete blobs in one request; return False if such requests are not taken."""
        try:
            answers = await container.delete_blobs(
                *names, delete_snapshots="include", raise_on_any_failure=False
            )
            found = [
                (each.status_code, code_of(each.headers)) async for each in answers
            ]
        except HttpResponseError as exc:
            if exc.status_code not in _BATCH_REFUSED:
                raise
            return False
        if len(found) != len(names):  # one answer for all
            return False
        for status, code in found:
            if status != _DELETED and code != "BlobNotFound":
                raise self._client.errors.answer(status, code)
        return True


async def _for_each(
    step: Callable[[T], Awaitable[None]], items: Iterable[T], at_once: int
) -> None:
    """Await the step on each item, a few at a time; the first failure ends all."""
    todo = iter(items)

    async def work() -> None:
        for item in todo:
            await step(item)

    try:
        async with create_task_group() as group:
            for _ in range(at_once):
                group.start_soon(work)
    except ExceptionGroup as failed:
        first = failed.exceptions[0]  # callers expect the store's error, not a group
        raise first from first.__cause__
