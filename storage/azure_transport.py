"""How requests get to a storage account: aiohttp, set up for many at a time."""

from __future__ import annotations

import asyncio
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from azure.core.pipeline.transport import AioHttpTransport

from wren.storage.requests import CONNECT_SECONDS, IDLE_SECONDS

_PIECE: Final = 256 * 1024
"""Bytes of a body that are written at a time: 64 bodies on a line of 8 Mbit/s each get
this much through within the longest silence."""

_BUFFERED: Final = 64 * 1024
"""Bytes that asyncio takes at once, even if the other side takes none."""


class Transport(AioHttpTransport):  # type: ignore[misc]  # found by __getattr__
    """Sends a body in pieces, and reads each answer within its request.

    The library would write a body in one go, while nothing else can run and for as long
    as it takes. And it would read a download's body later and, if it is cut short, ask
    again by itself, three times, with pauses of a second.
    """

    def __init__(self, endpoint: str, connections: int) -> None:
        """Open nothing yet. Call it where the event loop runs.

        Args:
            endpoint: Where requests go.
            connections: Most that are open at a time.
        """
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            # Not trust_env: that looks at the environment anew for each request, in a
            # thread, and where the login is a SAS, for a password in ~/.netrc too.
            proxy=_proxy_of(endpoint),
        )
        parent: Any = super()
        parent.__init__(
            session=session,
            connection_timeout=CONNECT_SECONDS,
            read_timeout=IDLE_SECONDS,
        )

    async def send(self, request: Any, *, stream: bool = False, **config: Any) -> Any:
        """Send a request and read its answer, whatever ``stream`` says."""
        del stream
        body = request.data
        if isinstance(body, bytes) and len(body) > _BUFFERED:
            request.data = _Body(body)
        parent: Any = super()
        return await parent.send(request, stream=False, **config)


class _Body(aiohttp.Payload):
    """Bytes that are sent in pieces, each within the longest silence allowed."""

    _value: bytes

    def __init__(self, value: bytes) -> None:
        super().__init__(value)
        self._size = len(value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._value.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        body = memoryview(self._value)[:content_length]
        for start in range(0, len(body), _PIECE):
            async with asyncio.timeout(IDLE_SECONDS):
                await writer.write(body[start : start + _PIECE])
            await asyncio.sleep(0)  # a socket that takes all makes nobody wait


def _proxy_of(endpoint: str) -> str | None:
    """Return the proxy that the environment names for an address, if it does."""
    url = urlsplit(endpoint)
    return None if proxy_bypass(url.netloc) else getproxies().get(url.scheme)
