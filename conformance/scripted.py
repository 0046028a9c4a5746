"""A server that answers by a script, for what no real server does when asked.

`wren.conformance.proxy` harms the answers of a server that exists. Here there is none:
each answer is written by the test, byte for byte, so that it may be wrong in any way.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeAlias

from wren.conformance.proxy_http import Head, read_body, read_head, reset_when_closed

CLOSE: Final = b"<close>"
"""At the end of an answer: the connection is closed in good order."""

RESET: Final = b"<reset>"
"""At the end of an answer: the connection is reset after what comes before.

Of a long answer that is lost for which the client's side has no room yet.
"""

STALL: Final = b"<stall>"
"""At the end of an answer: silence, until the client has closed the connection."""

_PIECE: Final = 256 * 1024
_BUFFER: Final = 64 * 1024


class Request(NamedTuple):
    """What the server was sent."""

    method: str
    target: str
    """The path with its query, as it was sent."""

    headers: Mapping[str, str]
    """Names in small letters. Of a header that comes twice the last one."""

    body: bytes
    """Without the sizes of its chunks."""


Reply: TypeAlias = bytes | Callable[[Request], bytes]
"""A whole answer, or what makes it; it may end with `CLOSE`, `RESET` or `STALL`.

One that is nothing else ends the connection in that way instead of an answer.
"""


def reply(status: int, body: bytes = b"", **headers: str) -> bytes:
    """Return an answer.

    Args:
        status: Any number; a reason is made up.
        body: Sent as it is.
        headers: An underscore in a name stands for a hyphen. ``Content_Length`` is that
            of the body unless another one is given.
    """
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named = {"Content-Length": str(len(body)), **named}
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status} Status\r\n{lines}\r\n".encode("latin-1") + body


class ScriptedServer:
    """Answers each request with the next line of its script, or by `answer`.

    Use it by ``async with``, on asyncio. Requests are answered in the order in which
    their bodies have come. Connections are kept alive until an answer says otherwise.

    Raises:
        ExceptionGroup: On leaving, if the server has failed: by an exception of
            `answer` or of a line, or because a request came after the last line.
            The connection was closed when it happened.
    """

    def __init__(self) -> None:
        self.script: list[Reply] = []
        """What is still to be answered; the first line is the next."""

        self.answer: Callable[[Request], Reply] | None = None
        """Answers all requests if it is set; the script is then left alone."""

        self.requests: list[Request] = []
        """Every request that came, in order."""

        self.arrived = asyncio.Event()
        """Set once a whole request has come."""

        self.reading = asyncio.Event()
        """Bodies are read while this is set, as it is at first."""
        self.reading.set()

        self.pause = 0.0
        """Seconds after each 256 KiB of a body."""

        self.url = ""
        """Where the server listens."""

        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def sent(self) -> list[str]:
        """Return the methods of all requests, in order."""
        return [request.method for request in self.requests]

    async def __aenter__(self) -> Self:
        listening = socket.create_server(("127.0.0.1", 0))
        # Small, so that a body is not sent long before it is read.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._server = await asyncio.start_server(
            self._accept, sock=listening, limit=_BUFFER
        )
        port: int = listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        await asyncio.sleep(0)  # a connection may have come that has no task yet
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports end a turn after they were closed
        broken = [each for each in ended if isinstance(each, Exception)]
        if broken:
            raise ExceptionGroup("the server has failed", broken)

    def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # No coroutine: of one asyncio makes a task whose failure it only logs.
        self._tasks.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer the requests of one connection."""
        # Nothing may be left in our own memory when the connection is reset.
        writer.transport.set_write_buffer_limits(0)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            writer.transport.abort()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; return whether the connection stays open."""
        head = await read_head(reader)
        await self.reading.wait()
        if head.waits:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await self._read(reader, head)
        answer = self._next(Request(head.method, head.target, head.headers, body))
        ending = next(filter(answer.endswith, (CLOSE, RESET, STALL)), b"")
        writer.write(answer.removesuffix(ending))
        await writer.drain()
        if ending == STALL:
            await reader.read()  # until the client has had enough
        if ending == RESET:
            reset_when_closed(writer)
        return not ending

    async def _read(self, reader: asyncio.StreamReader, head: Head) -> bytes:
        """Return the whole body of a request, at the pace of `pause`."""
        left = head.request_length()
        if left is None:
            return await read_body(reader, head, None)
        pieces: list[bytes] = []
        while left:
            pieces.append(await read_body(reader, head, min(left, _PIECE)))
            left -= len(pieces[-1])
            await asyncio.sleep(self.pause)
        return b"".join(pieces)

    def _next(self, request: Request) -> bytes:
        self.requests.append(request)
        self.arrived.set()
        if self.answer is not None:
            line = self.answer(request)
        elif self.script:
            line = self.script.pop(0)
        else:
            raise LookupError(f"no line is left for {request.method} {request.target}")
        return line if isinstance(line, bytes) else line(request)
