"""A proxy that loses, cuts, stalls, bends and counts what goes through it.

It stands between any client and any server that speaks plain HTTP/1.1, and shows what a
wrapper around an adapter cannot: what a client library makes of a connection that goes
wrong.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Generator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

from anyio.from_thread import start_blocking_portal

from wren.conformance.fault_plan import Fault, FaultPlan, damage
from wren.conformance.proxy_http import (
    LIMIT,
    Head,
    pass_body,
    read_body,
    read_head,
    reset_when_closed,
    write_answer,
)

ACTIONS: Final = frozenset(
    {
        "delay",  # it takes `Fault.seconds` longer; by default for ever
        "refuse",  # the connection is reset before anything reaches the server
        "status",  # the server is not asked; `Fault.status` is the answer
        "duplicate",  # the request reaches the server twice; the second answer counts
        "lose",  # the server does its work; then the connection is reset
        "truncate",  # the whole length is announced, half of the body sent, then FIN
        "cut",  # the same, then RST
        "stall",  # the same, then silence for `Fault.seconds`; by default for ever
        "drip",  # the body comes in small pieces, over `Fault.seconds`; default 1
        "shorten",  # half of the body, with nothing that shows it
        "flip",  # one bit of the body is changed
        "empty",  # there is no body
        "replace",  # another body, `wren.conformance.fault_plan.MARK`
    }
)
_METHODS: Final = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "*")
_PASSED: Final = frozenset({"", "delay"})
_DRIPS: Final = 32


class Request(NamedTuple):
    """What a client has asked for."""

    method: str
    path: str
    """With its query, as it was sent."""


class _Client(NamedTuple):
    """A connection to a client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class FaultProxy:
    """Plays a plan on the requests that pass, and remembers them all.

    The operation of a fault is the HTTP method; its key is a pattern of the path. What
    passes unharmed passes unchanged, byte for byte and piece by piece, so that a
    signature over the Host header still holds; where a fault is played, the bodies are
    held in memory. Connections to clients are kept alive; towards the server each
    request has its own, as one that was kept could be closed by the server unseen.

    It runs on asyncio: use it by ``async with`` where the test does, too, and
    `proxy_in_thread` anywhere else.
    """

    def __init__(self, server: str, plan: FaultPlan | None = None) -> None:
        """Describe a proxy; ``async with`` starts it.

        Args:
            server: Where requests go, such as ``http://127.0.0.1:9000/account``.
            plan: What goes wrong; by default nothing.

        Raises:
            ValueError: An action that is none of `ACTIONS`, or a URL that is not http.
        """
        parts = urlsplit(server)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"an http URL is needed, not {server!r}")
        self.play(plan or FaultPlan())
        self.requests: list[Request] = []
        """Every request that came, in order."""

        self.forwarded = 0
        """How many requests the server got."""

        self.url = ""
        """The server's URL for clients that are to go through the proxy."""

        self._upstream = parts.hostname, parts.port or 80
        self._path = parts.path
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    def play(self, plan: FaultPlan) -> None:
        """Use another plan from now on.

        Raises:
            ValueError: An action that is none of `ACTIONS`.
        """
        plan.check(dict.fromkeys(_METHODS, ACTIONS))
        self.plan = plan

    def count(self, method: str = "*", pattern: str = "*") -> int:
        """Return how many requests had this method and a path that matches."""
        return sum(
            method in {each.method, "*"} and fnmatchcase(each.path, pattern)
            for each in tuple(self.requests)
        )

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._accept, "127.0.0.1", 0, limit=LIMIT, backlog=1024
        )
        port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}{self._path}"
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
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await asyncio.sleep(0)  # transports end a turn after they were closed

    def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # No coroutine: of one asyncio makes a task whose cancellation it logs (3.11).
        task = asyncio.create_task(self._serve(_Client(reader, writer)))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, client: _Client) -> None:
        """Answer the requests of one connection."""
        # Nothing may be left in our own memory when the connection is reset.
        client.writer.transport.set_write_buffer_limits(0)
        try:
            while await self._serve_one(client):
                pass
            client.writer.close()
            await client.writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError):
            _reset(client)  # what went wrong with the server, the client shall see
        finally:
            client.writer.transport.abort()

    async def _serve_one(self, client: _Client) -> bool:
        """Answer one request; say whether the connection may be used again."""
        try:
            request = await read_head(client.reader)
        except asyncio.IncompleteReadError as exc:
            if exc.partial:
                raise
            return False
        self.requests.append(Request(request.method, request.target))
        fault = self.plan.take(request.method, request.target)
        if fault is None:
            return await self._pass(client, request)
        match fault.action:
            case "delay":
                await asyncio.sleep(fault.lasts(math.inf))
                return await self._pass(client, request)
            case "refuse":
                _reset(client)
                return False
            case "status":
                return await _refuse(client, request, fault)
            case _:
                return await self._harm(client, request, fault)

    async def _pass(self, client: _Client, request: Head) -> bool:
        """Pass a request and its answer on, both at the same time."""
        server = _Client(*await asyncio.open_connection(*self._upstream, limit=LIMIT))
        self.forwarded += 1
        server.writer.write(request.raw)
        sending = asyncio.create_task(
            pass_body(client.reader, server.writer, request, request.request_length())
        )
        try:
            allowed = not request.waits
            answer = await read_head(server.reader)
            while answer.status < 200:
                allowed = True
                client.writer.write(answer.raw)
                answer = await read_head(server.reader)
            client.writer.write(answer.raw)
            length = answer.answer_length(request.method)
            await pass_body(server.reader, client.writer, answer, length)
            await client.writer.drain()
            if not allowed and not sending.done():
                return False  # the body may come yet, or the next request
            try:  # a server may answer before it has read everything, and read on
                await sending
            except OSError:
                return False
            ends = length is None and not answer.chunked
            return not (ends or answer.closes or request.closes)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            server.writer.transport.abort()

    async def _harm(self, client: _Client, request: Head, fault: Fault) -> bool:
        """Do to an answer, or to the request, what the plan says."""
        body = await _receive(client, request)
        if fault.action == "duplicate":
            await self._ask(request, body)
        answer, data = await self._ask(request, body)
        if fault.action == "lose":
            _reset(client)
            return False
        if fault.action == "shorten":
            data = damage(data, "truncate")
        elif fault.action in {"flip", "empty", "replace"}:
            data = damage(data, fault.action)
        if request.method == "HEAD":
            client.writer.write(answer.raw)
        else:
            client.writer.write(answer.reframed(len(data)))
        await _send(client, data, fault)
        await client.writer.drain()
        return fault.action not in {"truncate", "cut", "stall"} and not answer.closes

    async def _ask(self, request: Head, body: bytes) -> tuple[Head, bytes]:
        """Send a whole request to the server and return its whole answer."""
        reader, writer = await asyncio.open_connection(*self._upstream, limit=LIMIT)
        self.forwarded += 1
        try:
            if request.chunked:
                writer.write(
                    request.without(
                        "expect", "transfer-encoding", content_length=len(body)
                    )
                )
            else:
                writer.write(request.without("expect"))
            writer.write(body)
            await writer.drain()
            answer = await read_head(reader)
            while answer.status < 200:
                answer = await read_head(reader)
            length = answer.answer_length(request.method)
            return answer, await read_body(reader, answer, length)
        finally:
            writer.transport.abort()


@contextmanager
def proxy_in_thread(
    server: str, plan: FaultPlan | None = None
) -> Generator[FaultProxy]:
    """Run a proxy on an event loop of its own, in a thread, beside any test.

    Entering and leaving wait for the thread: a fixture that is not async may do that.

    Raises:
        ValueError: See `FaultProxy`.
    """
    proxy = FaultProxy(server, plan)
    with (
        start_blocking_portal("asyncio") as portal,
        portal.wrap_async_context_manager(proxy),
    ):
        yield proxy


async def _receive(client: _Client, request: Head) -> bytes:
    """Return the whole body of a request."""
    if request.waits:
        client.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return await read_body(client.reader, request, request.request_length())


async def _refuse(client: _Client, request: Head, fault: Fault) -> bool:
    """Answer in the server's place."""
    closes = request.waits or request.closes  # a body that waits for leave never comes
    if not request.waits:
        await _receive(client, request)
    client.writer.write(
        write_answer(
            fault.status,
            fault.headers,
            fault.body,
            method=request.method,
            closes=closes,
        )
    )
    await client.writer.drain()
    return not closes


async def _send(client: _Client, data: bytes, fault: Fault) -> None:
    """Send the body of an answer, or a part of it."""
    writer = client.writer
    match fault.action:
        case "drip":
            size = max(1, math.ceil(len(data) / _DRIPS))
            for start in range(0, len(data), size):
                await asyncio.sleep(fault.lasts(1.0) / _DRIPS)
                writer.write(data[start : start + size])
        case "truncate" | "cut" | "stall":
            writer.write(data[: len(data) // 2])
            await writer.drain()
            if fault.action == "stall":
                await asyncio.sleep(fault.lasts(math.inf))
            if fault.action != "truncate":
                _reset(client)
        case _:
            writer.write(data)


def _reset(client: _Client) -> None:
    reset_when_closed(client.writer)
    client.writer.transport.abort()
