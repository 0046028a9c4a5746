"""Bodies of requests that carry content: sent a piece at a time, not copied whole."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

PIECE: Final = 1024 * 1024
"""Bytes. The socket's timeout holds for all of one ``sendall``, so that must not be
much."""

CONTENT_TYPE: Final = "application/octet-stream"


class Body:
    """Views, one after the other, as a body whose length is known.

    Iterating again begins anew, as it must when the request is repeated with a new
    token.
    """

    def __init__(self, check: Callable[[], None], *parts: bytes | memoryview) -> None:
        """Describe a body.

        Args:
            check: Called before each piece is sent; what it raises ends the request.
            parts: The content.
        """
        self._check = check
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            for start in range(0, len(part), PIECE):
                self._check()
                yield bytes(part[start : start + PIECE])


def multipart(
    resource: Mapping[str, Any], data: memoryview, check: Callable[[], None]
) -> tuple[str, Body | bytes]:
    """Return content type and body of an upload in one request.

    See https://cloud.google.com/storage/docs/uploading-objects#uploading-an-object.

    Args:
        resource: What the object's description is to say.
        data: Its content.
        check: See `Body`; not called for a small body.
    """
    boundary = secrets.token_hex(16)
    head = (
        f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n"
        f"{json.dumps(resource)}\r\n"
        f"--{boundary}\r\nContent-Type: {CONTENT_TYPE}\r\n\r\n"
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    kind = f"multipart/related; boundary={boundary}"
    if len(data) < PIECE:
        return kind, b"".join((head, data, tail))
    return kind, Body(check, head, data, tail)
