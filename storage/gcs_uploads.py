"""Large objects, sent in chunks to an upload session that ends whole or not at all.

See https://cloud.google.com/storage/docs/performing-resumable-uploads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from wren.errors import TransientError
from wren.storage.gcs_bodies import Body
from wren.storage.gcs_faults import NAME

if TYPE_CHECKING:
    from wren.storage.gcs_bucket import Bucket

CHUNK: Final = 32 * 1024 * 1024
"""Bytes of one request. All but the last must be a multiple of 256 KiB."""


class Upload:
    """An upload under way. Its methods block; one thread at a time may use it."""

    def __init__(
        self,
        name: str,
        key: str,
        data: memoryview,
        nonce: str | None,
        check: Callable[[], None],
    ) -> None:
        """Describe an upload; nothing is sent yet.

        Args:
            name: The object.
            key: For errors.
            data: The whole content.
            nonce: See `Bucket.begin`.
            check: Called before each MiB is sent; what it raises ends the request.
        """
        self._name = name
        self._key = key
        self._data = data
        self._nonce = nonce
        self._check = check
        self._session = ""
        self._sent: int | None = 0
        self._is_sure = True

    def advance(self, bucket: Bucket) -> bool:
        """Make the next request. After a `TransientError` it may be called again.

        Returns:
            Whether the object is there.

        Raises:
            PreconditionError: There was to be no object, and there is one.
            StorageError: The session has ended otherwise.
        """
        size, before = len(self._data), self._sent or 0
        if not self._session:
            self._session = bucket.begin(self._name, self._key, self._data, self._nonce)
            return False
        if self._is_sure:
            end = min(before + CHUNK, size)
            body: Body | bytes = Body(self._check, self._data[before:end])
            span = f"bytes {before}-{end - 1}/{size}"
        else:
            body, span = b"", f"bytes */{size}"
        was_sure, self._is_sure = self._is_sure, False
        self._sent = bucket.send(self._session, self._key, body, span)
        self._is_sure = True
        if was_sure and self._sent == before:
            raise TransientError("nothing arrived", store=NAME, key=self._key)
        return self._sent is None

    def abandon(self, bucket: Bucket) -> None:
        """End the session, if there is one."""
        if self._session:
            bucket.abandon(self._session)
