"""Objects in a bucket of Google Cloud Storage."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import anyio
from anyio import from_thread

from wren.errors import (
    KeyExistsError,
    KeyNotFoundError,
    TransientError,
)
from wren.protocols import Buffer, Grant, ObjectInfo, Storage, StorageCapabilities
from wren.storage.gcs_doctor import diagnose
from wren.storage.gcs_faults import NAME, PreconditionError
from wren.storage.gcs_list import Listing
from wren.storage.gcs_threads import Threads
from wren.storage.gcs_uploads import Upload
from wren.storage.keys import check_keys, check_range
from wren.storage.location import Location
from wren.storage.pages import Pages
from wren.storage.parts import PART, read_parts
from wren.storage.requests import pool_size
from wren.storage.undisturbed import undisturbed

if TYPE_CHECKING:
    from wren.config import Settings
    from wren.doctor import Result
    from wren.storage.gcs_bucket import Bucket
    from wren.storage.gcs_content import Content

T = TypeVar("T")

_EXAMPLE: Final = "gs://bucket/prefix"

_LIBRARY: Final = "google.cloud.storage"

_MAX_BATCH: Final = 100
"""Calls in one batch: https://cloud.google.com/storage/docs/batch."""

_BATCHES: Final = 8  # in flight


class GcsStorage(Storage):
    """A `Storage` in one bucket, below a prefix. It is not created here.

    Google's client blocks, so each request is made in a thread; there are as many of
    them as connections. Reading is left to its thread when it is cancelled. A put or
    delete is not: the call ends when its thread has ended, which it does at the next
    MiB of a large object, and otherwise when the request is answered or times out. So
    nothing happens after a call has returned, and the caller's buffer is free.

    Objects of up to 8 MiB are written in one request, larger ones in an upload session,
    which is ended when the put fails or is cancelled.
    """

    def __init__(
        self, location: Location, *, project: str | None = None, connections: int = 64
    ) -> None:
        """Describe a store; nothing is read or sent yet.

        Args:
            location: The bucket and the prefix.
            project: Google Cloud project; None for that of the credentials.
            connections: Most requests in flight.
        """
        self._location = location
        self._threads = Threads(location.bucket, project, connections)

    @property
    def name(self) -> str:
        """See `Storage.name`."""
        return NAME

    @property
    def capabilities(self) -> StorageCapabilities:
        """See `Storage.capabilities`."""
        return StorageCapabilities()

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """See `Storage.get`. More than 8 MiB are read in concurrent ranges."""
        check_range(start, stop)
        name = self._location.full(key)
        return await undisturbed(lambda: self._get(name, key, start, stop))

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Storage.put`."""
        name = self._location.full(key)
        with memoryview(data) as view:
            if not if_absent:
                await self._write(name, key, view, None)
                return
            nonce = secrets.token_hex(16)
            await undisturbed(lambda: self._create(name, key, view, nonce))

    async def head(self, key: str) -> ObjectInfo:
        """See `Storage.head`."""
        name = self._location.full(key)
        info, _ = await self._threads.look(lambda bucket: bucket.describe(name, key))
        return info

    async def delete(self, keys: Iterable[str]) -> None:
        """See `Storage.delete`. Up to 100 in one request."""
        checked = dict.fromkeys(check_keys(keys))
        names = [self._location.full(key) for key in checked]
        batches = iter(
            [names[at : at + _MAX_BATCH] for at in range(0, len(names), _MAX_BATCH)]
        )

        async def work() -> None:
            for batch in batches:
                await self._delete(batch)

        self._threads.check_open()
        try:
            async with anyio.create_task_group() as group:
                for _ in range(min(_BATCHES, -(-len(names) // _MAX_BATCH))):
                    group.start_soon(work)
        except ExceptionGroup as failed:
            first = failed.exceptions[0]
            raise first from first.__cause__

    def list(self, prefix: str = "", *, start_after: str = "") -> Pages:
        """See `Storage.list`. Up to 1000 objects are read at a time."""
        listing = Listing(self._threads, self._location, prefix, start_after)
        return Pages(listing.read)

    async def grant(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        *,
        expires_in: float,
        if_absent: bool = False,
    ) -> Grant:
        """See `Storage.grant`.

        Who has a service account's key, impersonates a service account, or runs as one
        that may sign for itself, grants by a signed URL, which keeps everything that
        `Storage.grant` promises. The time is rounded up to a second.

        Anybody else, such as a person who is logged in, grants by a token in a header,
        for which one request is made. It differs, since the platform cannot do more:

        * it is valid for as long as the login's own token is, an hour at most;
          `Grant.expires` says until when;
        * it is for all objects whose names begin with this one's, and a PUT that
          may replace also allows to read and to delete them;
        * if ``if_absent``, it allows to create and not to replace: without the header
          that states the condition, an object that exists is kept, too, but the answer
          is 403 and not 412;
        * the bucket must have uniform bucket-level access.

        Raises:
            UnsupportedError: A signed URL is to be valid for more than seven days.
            AccessDeniedError: There are no credentials, as with an emulator.
        """
        name = self._location.full(key)

        def make(bucket: Bucket) -> Grant:
            from wren.storage.gcs_grants import make_grant  # slow to import

            return make_grant(
                bucket, name, key, method, seconds=expires_in, if_absent=if_absent
            )

        return await self._threads.look(make)

    def diagnose(self) -> AsyncIterator[Result]:
        """Look at the login, the permissions and the bucket's settings."""
        return diagnose(self._location.bucket, self._threads)

    async def aclose(self) -> None:
        """See `Storage.aclose`."""
        await self._threads.aclose()

    async def _get(self, name: str, key: str, start: int, stop: int | None) -> bytes:
        # An empty range asks for a byte, to see whether the object is there.
        last = start + PART if stop is None else min(max(stop, start + 1), start + PART)

        async def read(first: int, end: int, generation: str = "") -> Content:
            return await self._threads.look(
                lambda bucket: bucket.read(name, key, first, end, generation)
            )

        found = await read(start, last)
        end = found.size if stop is None else min(stop, found.size)
        if end <= last:
            return found.data if stop != start else b""

        async def part(first: int, end: int) -> bytes:
            if first == start:
                return found.data
            return (await read(first, end, found.generation)).data

        whole = await read_parts(part, start, end)
        if len(whole) == found.size and not await self._threads.run(
            partial(found.is_of, whole)
        ):
            raise PreconditionError("the checksum does not match", store=NAME, key=key)
        return whole

    async def _create(self, name: str, key: str, data: memoryview, nonce: str) -> None:
        """Write an object if there is none.

        An answer that there is one may be about this very object: the answer to an
        earlier try was lost. The nonce tells.
        """
        with contextlib.suppress(PreconditionError):
            await self._write(name, key, data, nonce)
            return
        try:
            _, found = await self._threads.look(
                lambda bucket: bucket.describe(name, key)
            )
        except KeyNotFoundError as exc:
            text = "the object in the way is gone"
            raise PreconditionError(text, store=NAME, key=key) from exc
        if found != nonce:
            raise KeyExistsError(store=NAME, key=key)

    async def _write(
        self, name: str, key: str, data: memoryview, nonce: str | None
    ) -> None:
        check = from_thread.check_cancelled
        if len(data) <= PART:
            await self._threads.change(
                lambda bucket: bucket.write(name, key, data, nonce, check)
            )
            return
        upload = Upload(name, key, data, nonce, check)
        try:
            while not await self._threads.change(upload.advance):
                pass
        except BaseException:
            await self._threads.clean_up(upload.abandon)
            raise

    async def _delete(self, names: Sequence[str]) -> None:
        left = names

        def step(bucket: Bucket) -> None:
            nonlocal left
            failures = bucket.delete(left)
            left = list(failures)
            for name, error in failures.items():
                error.key = self._location.relative(name)
            errors = sorted(failures.values(), key=_is_passing)
            if errors:
                raise errors[0]

        await self._threads.change(step)


def _is_passing(error: Exception) -> bool:
    return isinstance(error, TransientError)


def open_storage(url: str, settings: Settings) -> GcsStorage:
    """Open ``gs://bucket/prefix``; no I/O happens yet.

    Raises:
        ConfigurationError: The URL names no bucket, or has a query or the like.
        ModuleNotFoundError: google-cloud-storage is not installed.
    """
    if find_spec(_LIBRARY) is None:  # it is imported when it is needed: that is slow
        raise ModuleNotFoundError(f"No module named {_LIBRARY!r}", name=_LIBRARY)
    return GcsStorage(
        Location.parse(url, example=_EXAMPLE),
        project=settings.gcp_project,
        connections=pool_size(settings),
    )
