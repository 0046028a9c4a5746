"""Large objects, sent in chunks to an upload session that ends whole or not at all.

See https://cloud.google.com/storage/docs/performing-resumable-uploads.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import requests
from google.api_core.exceptions import from_http_response

from wren.errors import StorageError, TransientError
from wren.storage.gcs_bodies import Body
from wren.storage.gcs_bucket import Bucket
from wren.storage.gcs_connection import TIMEOUTS
from wren.storage.gcs_errors import NAME, explained

CHUNK: Final = 32 * 1024 * 1024
"""Bytes of one request. All but the last must be a multiple of 256 KiB."""

_GONE: Final = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_LAST: Final = re.compile(r"bytes=0-(\d+)")


class Upload:
    """An upload under way. Its methods block; one thread at a time may use it."""

    def __init__(
        self,
        bucket: Bucket,
        name: str,
        key: str,
        data: memoryview,
        nonce: str | None,
        check: Callable[[], None],
    ) -> None:
        """Describe an upload; nothing is sent yet.

        Args:
            bucket: Where the object will be.
            name: The object.
            key: For errors.
            data: The whole content.
            nonce: See `Bucket.begin`.
            check: Called before each MiB is sent; what it raises ends the request.
        """
        self._bucket = bucket
        self._name = name
        self._key = key
        self._data = data
        self._nonce = nonce
        self._check = check
        self._session = ""
        self._sent = 0
        self._is_sure = True
        self._is_done = False

    def advance(self) -> bool:
        """Make the next request. After a `TransientError` it may be called again.

        Returns:
            Whether the object is there.

        Raises:
            PreconditionError: There was to be no object, and there is one.
            StorageError: The session has ended otherwise.
        """
        size = len(self._data)
        if not self._session:
            begin = self._bucket.begin
            self._session = begin(self._name, self._key, self._data, self._nonce)
        elif not self._is_sure:
            self._settle(b"", f"bytes */{size}")
        else:
            before, self._is_sure = self._sent, False
            end = min(before + CHUNK, size)
            body = Body(self._check, self._data[before:end])
            self._settle(body, f"bytes {before}-{end - 1}/{size}")
            if not self._is_done and self._sent == before:
                raise TransientError("nothing arrived", store=NAME, key=self._key)
        return self._is_done

    def abandon(self) -> None:
        """End the session: what was sent is dropped, and there will be no object.

        Errors are ignored, since the service ends it by itself after a week.
        """
        if not self._session:
            return
        with contextlib.suppress(StorageError), explained(self._bucket.name, self._key):
            session = self._bucket.connection.get().session
            session.delete(self._session, timeout=TIMEOUTS)

    def _settle(self, body: bytes | Body, span: str) -> None:
        """Make a request, and learn how far the upload has come."""
        connected = self._bucket.connection.get()
        with explained(self._bucket.name, self._key):
            response = connected.session.put(
                self._session,
                data=body,
                headers={"Content-Range": span},
                timeout=TIMEOUTS,
                allow_redirects=False,  # 308 means: more is expected
            )
            if response.status_code == HTTPStatus.PERMANENT_REDIRECT:
                self._sent = _received(response)
            elif response.ok:
                self._is_done = True
            elif response.status_code in _GONE:
                text = "the upload session has ended"
                raise StorageError(text, store=NAME, key=self._key)
            else:
                raise from_http_response(response)
        self._is_sure = True


def _received(response: requests.Response) -> int:
    found = _LAST.fullmatch(response.headers.get("Range", ""))
    return int(found[1]) + 1 if found else 0
