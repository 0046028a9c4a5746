"""A proxy that loses, cuts, stalls, bends and counts what goes through it.

It stands between any client and any server that speaks plain HTTP/1.1, and shows what a
wrapper around an adapter cannot: what a client library makes of a connection that goes
wrong. It runs on asyncio, in the test's own event loop.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from fnmatch import fnmatchcase
from http import HTTPStatus
from types import TracebackType
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

from wren.conformance.fault_plan import Fault, FaultPlan, damage

ACTIONS: Final = frozenset(
    {
        "refuse",  # the connection is reset before anything reaches the server
        "lose",  # the server does its work; then the connection is reset
        "status",  # the server is not asked; `Fault.status` is the answer
        "truncate",  # the whole length is announced, half of it is sent
        "cut",  # half of the body is sent, then the connection is reset
        "stall",  # half of the body is sent, and nothing more for `Fault.seconds`
        "drip",  # the body comes byte by byte, over `Fault.seconds`
        "flip",  # one bit of the body is changed
        "empty",  # there is no body
        "duplicate",  # the request reaches the server twice
    }
)
_METHODS: Final = ("GET", "HEAD", "PUT", "POST", "DELETE", "*")
_END: Final = b"\r\n\r\n"
_LIMIT: Final = 1 << 20  # bytes of a request's or an answer's head
_PIECE: Final = 1 << 16
_STALL: Final = 60.0
_PER_HOP: Final = frozenset({b"connection", b"expect", b"keep-alive"})


class Request(NamedTuple):
    """What came by."""

    method: str
    path: str
    """With its query, as it was sent."""


class _Message(NamedTuple):
    """A request or an answer."""

    first: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def header(self, name: bytes) -> bytes:
        """Return a header's value in small letters; empty if there is none."""
        return dict(self.headers).get(name, b"").lower()

    def encode(self, *extra: bytes, leave_out: frozenset[bytes] = _PER_HOP) -> bytes:
        """Return the head."""
        lines = [b": ".join(each) for each in self.headers if each[0] not in leave_out]
        return b"\r\n".join([self.first, *lines, *extra]) + _END


class FaultProxy:
    """Plays a plan on every request, and remembers them all.

    The operation of a fault is the HTTP method, its key a pattern of the path. Both
    bodies are held whole in memory, and each request goes to the server on a connection
    of its own; towards the client connections are kept alive.
    """

    def __init__(self, server: str, plan: FaultPlan | None = None) -> None:
        """Describe a proxy; ``async with`` starts it.

        Args:
            server: Where requests go, such as ``http://127.0.0.1:9000``.
            plan: What goes wrong; by default nothing.

        Raises:
            ValueError: An action that is none of `ACTIONS`.
        """
        self.plan = plan or FaultPlan()
        self.plan.check(dict.fromkeys(_METHODS, ACTIONS))
        self.requests: list[Request] = []
        """Every request that came, in order."""

        self.forwarded = 0
        """How many requests the server got."""

        self.url = ""
        """What clients are to be told, once the proxy runs."""

        parts = urlsplit(server)
        self._upstream = parts.hostname or "", parts.port or 80
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    def count(self, method: str, pattern: str = "*") -> int:
        """Return how many requests of a method had a path that matches a pattern."""
        return sum(
            each.method == method and fnmatchcase(each.path, pattern)
            for each in self.requests
        )

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, limit=_LIMIT, backlog=1024
        )
        port: int = self._server.sockets[0].getsockname()[1]
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
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # No coroutine: the task that asyncio makes of one logs its cancellation.
        task = asyncio.create_task(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer the requests of one connection."""
        try:
            while (request := await _read_request(reader, writer)) is not None:
                method, path, _ = request.first.decode("latin-1").split(" ", 2)
                self.requests.append(Request(method, path))
                fault = self.plan.take(method, path)
                if not await self._answer(fault, method, request, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the client has gone
        finally:
            writer.close()

    async def _answer(
        self,
        fault: Fault | None,
        method: str,
        request: _Message,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Answer one request; say whether the connection may be used again."""
        action = fault.action if fault else ""
        if action == "refuse":
            _reset(writer)
            return False
        if fault and action == "status":
            writer.write(_status(fault, head_only=method == "HEAD"))
            await writer.drain()
            return True
        if action == "duplicate":
            await self._forward(method, request)
        answer = await self._forward(method, request)
        if action == "lose":
            _reset(writer)
            return False
        length = len(answer.body)
        if action in {"flip", "empty"}:
            answer = answer._replace(body=damage(answer.body, action))
            length = len(answer.body)
        framing: list[bytes] = []
        if method != "HEAD":
            framing = [b"content-length: %d" % length]
        skip = _PER_HOP if method == "HEAD" else _PER_HOP | _FRAMING
        writer.write(answer.encode(*framing, leave_out=skip))
        return await _send_body(writer, answer.body, fault)

    async def _forward(self, method: str, request: _Message) -> _Message:
        """Send a request to the server and return its answer."""
        reader, writer = await asyncio.open_connection(*self._upstream, limit=_LIMIT)
        self.forwarded += 1
        try:
            writer.write(request.encode(b"connection: close"))
            writer.write(request.body)
            await writer.drain()
            while True:
                answer = await _read_head(reader)
                if not answer.first.split(b" ", 2)[1].startswith(b"1"):
                    break  # what comes before, such as 100 Continue, is for us alone
            if method == "HEAD" or answer.first.split(b" ", 2)[1] in {b"204", b"304"}:
                return answer
            return answer._replace(body=await _read_body(reader, answer, plain=True))
        finally:
            writer.close()


_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})


async def _read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> _Message | None:
    """Return the next request with its body as it was sent; None at the end."""
    try:
        request = await _read_head(reader)
    except asyncio.IncompleteReadError as exc:
        if exc.partial:
            raise
        return None
    if request.header(b"expect") == b"100-continue":
        writer.write(b"HTTP/1.1 100 Continue" + _END)
    return request._replace(body=await _read_body(reader, request, plain=False))


async def _read_head(reader: asyncio.StreamReader) -> _Message:
    first, *lines = (await reader.readuntil(_END)).removesuffix(_END).split(b"\r\n")
    headers: list[tuple[bytes, bytes]] = []
    for line in lines:
        name, _, value = line.partition(b":")
        headers.append((name.strip().lower(), value.strip()))
    return _Message(first, headers, b"")


async def _read_body(
    reader: asyncio.StreamReader, message: _Message, *, plain: bool
) -> bytes:
    """Return a body.

    Args:
        reader: Is at the body's begin.
        message: Its head.
        plain: Return the content of chunks, without their sizes; and read a body of no
            announced length to the end.
    """
    if b"chunked" in message.header(b"transfer-encoding"):
        return await _read_chunks(reader, plain=plain)
    length = message.header(b"content-length")
    if length:
        return await reader.readexactly(int(length))
    return await reader.read() if plain else b""


async def _read_chunks(reader: asyncio.StreamReader, *, plain: bool) -> bytes:
    parts: list[bytes] = []
    while True:
        line = await reader.readuntil(b"\r\n")
        count = int(line.partition(b";")[0], 16)
        data = await reader.readexactly(count)
        if count:
            end = await reader.readuntil(b"\r\n")
            parts += [data] if plain else [line, data, end]
            continue
        trailer = [await reader.readuntil(b"\r\n")]
        while trailer[-1] != b"\r\n":  # such as a checksum
            trailer.append(await reader.readuntil(b"\r\n"))
        return b"".join(parts if plain else [*parts, line, *trailer])


async def _send_body(
    writer: asyncio.StreamWriter, body: bytes, fault: Fault | None
) -> bool:
    """Send an answer's body; say whether the connection may be used again."""
    action = fault.action if fault else ""
    if fault is None or action not in {"truncate", "cut", "stall", "drip"}:
        for start in range(0, len(body), _PIECE):
            writer.write(body[start : start + _PIECE])
            await writer.drain()
        return True
    if action == "drip":
        for byte in body:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(fault.lasts(1.0) / len(body))
        return True
    writer.write(damage(body, "truncate"))
    await writer.drain()
    if action == "stall":
        await asyncio.sleep(fault.lasts(_STALL))
    if action == "cut":
        _reset(writer)
    return False


def _status(fault: Fault, *, head_only: bool) -> bytes:
    phrase = HTTPStatus(fault.status).phrase
    headers: Mapping[str, str] = {
        **fault.headers,
        "content-length": str(len(fault.body)),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {fault.status} {phrase}\r\n{lines}\r\n".encode()
    return head if head_only else head + fault.body


def _reset(writer: asyncio.StreamWriter) -> None:
    """Send RST. An abort alone sends FIN, which looks like a short answer."""
    opened = writer.get_extra_info("socket")
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
