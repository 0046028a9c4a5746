"""The bodies of requests: sent in pieces, and not copied more than they must be."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator
from typing import Final

from anyio import to_thread

from wren.protocols import Buffer

_AT_ONCE: Final = 256 * 1024
"""Bytes that are sent at once."""

_PIECE: Final = 1024 * 1024


async def own(data: Buffer) -> bytes:
    """Return a content that its owner cannot change while it is being sent."""
    if isinstance(data, bytes) or len(data) <= _PIECE:
        return bytes(data)
    return await to_thread.run_sync(_join, data)


def _join(data: bytearray | memoryview) -> bytes:
    # Joining releases the interpreter's lock; one copy of all of it would not.
    with memoryview(data) as view:
        starts = range(0, len(view), _PIECE)
        return b"".join([bytes(view[start : start + _PIECE]) for start in starts])


def body(data: bytes | memoryview) -> bytes | _Body:
    """Return what to give to the client, anew for each request.

    Args:
        data: Immutable.
    """
    return bytes(data) if len(data) <= _AT_ONCE else _Body(memoryview(data))


class _Body:
    """A file to botocore, which measures and signs it, and a stream to aiohttp.

    aiohttp would copy an `io.BytesIO`, and send `bytes` in one go; either holds up the
    event loop for as long as that takes.
    """

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def read(self, size: int | None = None) -> bytes:
        """Return the next bytes; by default all that are left."""
        start = self._at
        stop = None if size is None or size < 0 else start + size
        data = bytes(self._view[start:stop])
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position, counted from the beginning, from here or from the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._view)}
        self._at = base[whence] + offset
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at

    async def __aiter__(self) -> AsyncGenerator[memoryview]:
        """Yield all of the content, and let others run in between."""
        for start in range(0, len(self._view), _AT_ONCE):
            yield self._view[start : start + _AT_ONCE]
            await asyncio.sleep(0)
