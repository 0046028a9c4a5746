"""The content of an object, or a range of it, as the service sends it."""

from __future__ import annotations

import base64
import re
from http import HTTPStatus
from typing import Final, NamedTuple

import google_crc32c
import requests
from google.api_core.exceptions import from_http_response

from wren.errors import TransientError
from wren.storage.gcs_bodies import PIECE
from wren.storage.gcs_faults import NAME

_CHECKSUM: Final = re.compile(r"crc32c=([A-Za-z0-9+/=]+)")


class Content(NamedTuple):
    """A range of an object's bytes."""

    data: bytes
    size: int
    """Of the whole object."""

    generation: str
    """Which object it is, of all that have had this name."""

    checksum: str
    """CRC32C of the whole object, in base64; empty if the store does not say."""

    def is_of(self, whole: bytes) -> bool:
        """Compare a whole object with the checksum, if there is one."""
        return not self.checksum or crc32c(memoryview(whole)) == self.checksum


def read_content(
    response: requests.Response, start: int, stop: int, key: str
) -> Content:
    """Read the answer to a request for a range.

    Args:
        response: Whose body has not been read.
        start: First byte that was asked for.
        stop: One past the last, which may lie beyond the object's end.
        key: For errors.

    Raises:
        GoogleAPICallError: The answer is an error.
        TransientError: The body is short, or the checksum of a whole object is another.
    """
    headers = response.headers
    found = _CHECKSUM.search(headers.get("X-Goog-Hash", ""))
    checksum = found[1] if found else ""
    generation = headers.get("X-Goog-Generation", "")
    if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return Content(b"", 0, generation, checksum)  # wholly beyond the end
    if response.status_code not in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
        raise from_http_response(response)
    data: bytes = response.raw.read(decode_content=False)
    size, expected = len(data), int(headers.get("Content-Length", len(data)))
    if response.status_code == HTTPStatus.PARTIAL_CONTENT:
        size = int(headers["Content-Range"].rpartition("/")[2])
        expected = min(stop, size) - start
    if len(data) != expected:
        text = f"{len(data)} bytes came instead of {expected}"
        raise TransientError(text, store=NAME, key=key)
    content = Content(data, size, generation, checksum)
    if len(data) == size and not content.is_of(data):
        raise TransientError("the checksum does not match", store=NAME, key=key)
    if response.status_code == HTTPStatus.OK:  # the range was ignored
        return content._replace(data=data[start:stop])
    return content


def crc32c(data: memoryview) -> str:
    """Return a checksum in base64, as the service writes it."""
    checksum = google_crc32c.Checksum()
    for start in range(0, len(data), PIECE):
        checksum.update(bytes(data[start : start + PIECE]))
    return base64.b64encode(checksum.digest()).decode()
