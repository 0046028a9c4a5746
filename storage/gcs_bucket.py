"""Single requests to one bucket, made by Google's client in whatever thread calls.

Retries are off everywhere: `wren.storage.requests` makes them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from google.api_core.exceptions import from_http_response

from wren.errors import KeyNotFoundError, StorageError
from wren.protocols import ObjectInfo
from wren.storage.gcs_bodies import CONTENT_TYPE, Body, multipart
from wren.storage.gcs_connection import TIMEOUTS, Connection
from wren.storage.gcs_content import Content, crc32c, read_content
from wren.storage.gcs_errors import explain, explained
from wren.storage.gcs_faults import NAME

if TYPE_CHECKING:
    from google.cloud.storage import Blob

NONCE: Final = "wren-nonce"
"""Metadata of an object that was put if absent: who has written it."""


_FIELDS: Final = "items(name,size,etag,timeCreated),nextPageToken"
_GONE: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_LAST: Final = re.compile(r"bytes=0-(\d+)")


class Bucket:
    """One bucket. Every method makes one request and blocks for it.

    Safe for use by many threads. Names are objects' full names. Errors are those of
    `wren.errors`, with ``key`` as it was given.
    """

    def __init__(self, name: str, connection: Connection) -> None:
        self.name = name
        self.connection = connection

    def read(
        self, name: str, key: str, start: int, stop: int, generation: str = ""
    ) -> Content:
        """Read a range that may reach beyond the end.

        Args:
            name: The object.
            key: For errors.
            start: First byte.
            stop: One past the last byte; more than ``start``.
            generation: Which object it must be; empty for any.

        Raises:
            PreconditionError: The object has been replaced.
        """
        connected = self.connection.get()
        url = (
            f"{connected.client.api_endpoint}/download/storage/v1/b/{self.name}"
            f"/o/{quote(name, safe='')}?alt=media"
        )
        if generation:
            url += f"&ifGenerationMatch={generation}"
        headers = {
            "Range": f"bytes={start}-{stop - 1}",
            "Accept-Encoding": "gzip",  # as it is stored, and not unpacked
        }
        with (
            explained(self.name, key),
            connected.session.get(
                url, headers=headers, stream=True, timeout=TIMEOUTS
            ) as response,
        ):
            return read_content(response, start, stop, key)

    def write(
        self,
        name: str,
        key: str,
        data: memoryview,
        nonce: str | None,
        check: Callable[[], None],
    ) -> None:
        """Write an object in one request.

        Args:
            name: The object.
            key: For errors.
            data: The whole content.
            nonce: See `begin`.
            check: Called before each MiB is sent; what it raises ends the request.

        Raises:
            PreconditionError: There is one, and there was to be none.
        """
        connected = self.connection.get()
        url = (
            f"{connected.client.api_endpoint}/upload/storage/v1/b/{self.name}"
            "/o?uploadType=multipart"
        )
        resource: dict[str, Any] = {"name": name, "crc32c": crc32c(data)}
        if nonce is not None:
            url += "&ifGenerationMatch=0"
            resource["metadata"] = {NONCE: nonce}
        kind, body = multipart(resource, data, check)
        headers = {"Content-Type": kind}
        with explained(self.name, key):
            response = connected.session.post(
                url, data=body, headers=headers, timeout=TIMEOUTS
            )
            if not response.ok:
                raise from_http_response(response)

    def begin(self, name: str, key: str, data: memoryview, nonce: str | None) -> str:
        """Begin an upload in several requests; nothing of the data is sent yet.

        Args:
            name: The object.
            key: For errors.
            data: The whole content, for its checksum.
            nonce: Stored with the object, which is created only if there is none;
                None to replace one.

        Returns:
            The session's address. Whoever has it may upload.

        Raises:
            PreconditionError: There is an object, and there was to be none.
        """
        blob = self._blob(name, nonce)
        blob.crc32c = crc32c(data)
        with explained(self.name, key):
            return blob.create_resumable_upload_session(
                CONTENT_TYPE,
                len(data),
                if_generation_match=None if nonce is None else 0,
                timeout=TIMEOUTS,
                checksum=None,
                retry=None,
            )

    def send(self, session: str, key: str, body: Body | bytes, span: str) -> int | None:
        """Send a part of an upload's content, or ask how much has arrived.

        Args:
            session: What `begin` returned.
            key: For errors.
            body: The part.
            span: Where it belongs, as the header ``Content-Range`` has it.

        Returns:
            How many bytes have arrived; None if the upload is complete.

        Raises:
            PreconditionError: There was to be no object, and there is one.
            StorageError: The session has ended otherwise.
        """
        connected = self.connection.get()
        with explained(self.name, key):
            response = connected.session.put(
                session,
                data=body,
                headers={"Content-Range": span},
                timeout=TIMEOUTS,
                allow_redirects=False,  # 308 means: more is expected
            )
            if response.status_code == HTTPStatus.PERMANENT_REDIRECT:
                found = _LAST.fullmatch(response.headers.get("Range", ""))
                return int(found[1]) + 1 if found else 0
            if response.status_code in _GONE:
                raise StorageError("the upload session has ended", store=NAME, key=key)
            if not response.ok:
                raise from_http_response(response)
        return None

    def abandon(self, session: str) -> None:
        """End an upload: what was sent is dropped, and there will be no object.

        Errors are ignored, since the service ends it by itself after a week.
        """
        with contextlib.suppress(StorageError), explained(self.name):
            self.connection.get().session.delete(session, timeout=TIMEOUTS)

    def describe(self, name: str, key: str) -> tuple[ObjectInfo, str]:
        """Return what is known of an object, and its nonce."""
        blob = self._blob(name)
        with explained(self.name, key):
            blob.reload(timeout=TIMEOUTS, retry=None)
        return _info(blob, key), (blob.metadata or {}).get(NONCE, "")

    def delete(self, names: Sequence[str]) -> dict[str, StorageError]:
        """Delete objects, at most 100; those that are absent are no error.

        Returns:
            Why some are not deleted, by their names.
        """
        if len(names) == 1:
            return self._delete_one(names[0])
        client = self.connection.get().client
        bucket = client.bucket(self.name)
        with explained(self.name), client.batch(raise_exception=False) as batch:
            for name in names:
                bucket.blob(name).delete(timeout=TIMEOUTS, retry=None)
        failures: dict[str, StorageError] = {}
        answers = batch._responses  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        for name, answer in zip(names, answers, strict=True):
            if not answer.ok:
                error = explain(from_http_response(answer), self.name, name)
                if not isinstance(error, KeyNotFoundError):
                    failures[name] = error
        return failures

    def page(
        self, prefix: str, start: str, token: str | None
    ) -> tuple[list[ObjectInfo], str | None]:
        """Return a page of the objects whose names have a prefix, by full name.

        Args:
            prefix: What the names begin with.
            start: The first name that may be in it; empty for any.
            token: Of the page before; None for the first.

        Returns:
            The objects, which may be none, and the next page's token or None.
        """
        client = self.connection.get().client
        found = client.list_blobs(
            client.bucket(self.name),
            prefix=prefix,
            start_offset=start or None,
            page_token=token,
            fields=_FIELDS,
            timeout=TIMEOUTS,
            retry=None,
        )
        with explained(self.name):
            blobs = next(found.pages, ())
            return [_info(blob, blob.name) for blob in blobs], found.next_page_token

    def allowed(self, permissions: Sequence[str]) -> list[str]:
        """Return which of these permissions the login has."""
        bucket = self.connection.get().client.bucket(self.name)
        with explained(self.name):
            return bucket.test_iam_permissions(
                permissions, timeout=TIMEOUTS, retry=None
            )

    def soft_delete_seconds(self) -> int:
        """Return for how long deleted objects are kept."""
        bucket = self.connection.get().client.bucket(self.name)
        with explained(self.name):
            bucket.reload(timeout=TIMEOUTS, retry=None)
        return bucket.soft_delete_policy.retention_duration_seconds or 0

    def _blob(self, name: str, nonce: str | None = None) -> Blob:
        blob = self.connection.get().client.bucket(self.name).blob(name)
        if nonce is not None:
            blob.metadata = {NONCE: nonce}
        return blob

    def _delete_one(self, name: str) -> dict[str, StorageError]:
        try:
            with explained(self.name, name):
                self._blob(name).delete(timeout=TIMEOUTS, retry=None)
        except KeyNotFoundError:
            return {}
        except StorageError as exc:
            return {name: exc}
        return {}


def _info(blob: Blob, key: str) -> ObjectInfo:
    size, modified = blob.size, blob.time_created
    if size is None or modified is None:
        raise StorageError("the description is incomplete", store=NAME, key=key)
    return ObjectInfo(key=key, size=size, modified=modified, etag=blob.etag or "")
