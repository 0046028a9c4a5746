"""The scripted server says what it is told to, and ends as it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Self

import anyio
import pytest

from wren.conformance.scripted import (
    CLOSE,
    RESET,
    STALL,
    Reply,
    Request,
    ScriptedServer,
    reply,
)

pytestmark = pytest.mark.anyio

GET = b"GET /k HTTP/1.1\r\n\r\n"
HEAD = b"HTTP/1.1 %d Status\r\nContent-Length: %d\r\n\r\n"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The server runs on asyncio."""
    return "asyncio"


@pytest.fixture
async def server() -> AsyncGenerator[ScriptedServer]:
    """A server with nothing in its script."""
    async with ScriptedServer() as played:
        yield played


class Client:
    """One connection to a server, on which bytes go as they are."""

    def __init__(self, server: ScriptedServer) -> None:
        self._address = server.url.removeprefix("http://").split(":")

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(*self._address)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()
        await asyncio.sleep(0)  # the transport ends a turn later

    async def expect(self, answer: bytes) -> None:
        """Read as many bytes, and no others."""
        assert await self.reader.readexactly(len(answer)) == answer


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncGenerator[Client]:
    """A connection to the server."""
    async with Client(server) as connected:
        yield connected


def test_a_reply_has_the_length_of_its_body_unless_told_otherwise() -> None:
    """A wrong length is what some scripts are about."""
    assert reply(200, b"ab") == HEAD % (200, 2) + b"ab"
    assert reply(200, b"ab", Content_Length="5") == HEAD % (200, 5) + b"ab"
    assert b"\r\nx-a-b: c_d\r\n" in reply(200, x_a_b="c_d")


async def test_lines_are_answered_in_order_on_one_connection(
    server: ScriptedServer, client: Client
) -> None:
    """A client that keeps its connection is not made to open others."""
    server.script = [reply(200, b"1"), lambda request: reply(404, request.body)]

    client.writer.write(GET)
    await client.expect(reply(200, b"1"))
    client.writer.write(b"PUT /k HTTP/1.1\r\nContent-Length: 2\r\n\r\nab")
    await client.expect(reply(404, b"ab"))

    assert server.sent() == ["GET", "PUT"]
    assert not server.script


async def test_a_function_answers_everything(
    server: ScriptedServer, client: Client
) -> None:
    """The script waits meanwhile."""
    server.script = [reply(500)]
    server.answer = lambda request: reply(200, request.target.encode())

    for _ in range(2):
        client.writer.write(GET)
        await client.expect(reply(200, b"/k"))

    assert server.script == [reply(500)]


@pytest.mark.parametrize(
    ("framing", "sent"),
    [
        (("content-length", "4"), b"body"),
        (("transfer-encoding", "chunked"), b"3\r\nbod\r\n1\r\ny\r\n0\r\n\r\n"),
    ],
    ids=["length", "chunked"],
)
async def test_a_request_is_kept_as_it_came(
    server: ScriptedServer, client: Client, framing: tuple[str, str], sent: bytes
) -> None:
    """Names in small letters, values as they are, the body whole."""
    server.script = [reply(200)]
    name, value = framing

    head = f"PUT /k?q=%2F HTTP/1.1\r\nX-Name: Va: Lue\r\n{name.title()}: {value}\r\n"
    client.writer.write(f"{head}\r\n".encode() + sent)
    await server.arrived.wait()

    headers = {"x-name": "Va: Lue", name: value}
    assert server.requests == [Request("PUT", "/k?q=%2F", headers, b"body")]


async def test_a_body_that_waits_for_leave_gets_it(
    server: ScriptedServer, client: Client
) -> None:
    """Clients of S3 ask for it, and some wait for long."""
    server.script = [reply(200)]

    client.writer.write(
        b"PUT /k HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    )
    await client.expect(b"HTTP/1.1 100 Continue\r\n\r\n")
    client.writer.write(b"body")
    await client.expect(reply(200))

    assert server.requests[0].body == b"body"


@pytest.mark.parametrize("said", [b"", reply(200, b"part", Content_Length="9")])
async def test_closing_is_an_end_in_good_order(
    server: ScriptedServer, client: Client, said: bytes
) -> None:
    """After all that was to be said, which may be nothing."""
    server.script = [said + CLOSE]

    client.writer.write(GET)

    assert await client.reader.read() == said


@pytest.mark.parametrize("said", [b"", reply(200, b"part", Content_Length="9")])
async def test_a_reset_is_none(
    server: ScriptedServer, client: Client, said: bytes
) -> None:
    """It must not look like a short answer."""
    server.script = [said + RESET]

    client.writer.write(GET)
    await client.expect(said)

    with pytest.raises(ConnectionResetError):
        await client.reader.read()


@pytest.mark.parametrize("said", [b"", reply(200, b"part", Content_Length="9")])
async def test_a_stall_lasts_until_the_client_has_had_enough(
    server: ScriptedServer, client: Client, said: bytes
) -> None:
    """Then the server goes on with others."""
    server.script = [said + STALL, reply(200)]

    client.writer.write(GET)
    await client.expect(said)
    with anyio.move_on_after(0.1) as silence:
        await client.reader.read()
    assert silence.cancelled_caught

    client.writer.write_eof()
    assert await client.reader.read() == b""
    async with Client(server) as other:
        other.writer.write(GET)
        await other.expect(reply(200))


async def test_nothing_is_read_while_the_server_does_not(
    server: ScriptedServer, client: Client
) -> None:
    """The client notices, as it cannot send what is longer than a few buffers."""
    server.script = [reply(200)]
    server.reading.clear()
    body = bytes(16 << 20)

    client.writer.write(b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body))
    client.writer.write(body)
    with anyio.move_on_after(0.1) as sending:
        await client.writer.drain()
    assert sending.cancelled_caught
    assert not server.requests

    server.reading.set()
    await client.expect(reply(200))
    assert len(server.requests[0].body) == len(body)


async def test_a_slow_server_pauses_between_pieces(
    server: ScriptedServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each 256 KiB, and after what is left."""
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def passing(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    server.script = [reply(200)]
    server.pause = 5.0
    monkeypatch.setattr(asyncio, "sleep", passing)

    size = 2 * 256 * 1024 + 1
    client.writer.write(b"PUT / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size)
    client.writer.write(bytes(size))
    await client.expect(reply(200))

    assert pauses == [5.0] * 3


def _refuse(request: Request) -> bytes:
    raise AssertionError(f"not {request.method}")


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [(None, LookupError, "no line is left for GET /k"), (_refuse, AssertionError, "")],
    ids=["script", "function"],
)
async def test_a_server_that_has_failed_says_so(
    answer: Callable[[Request], Reply] | None, kind: type[Exception], said: str
) -> None:
    """A client that tries again would hide it."""

    async def fail() -> None:
        async with ScriptedServer() as server, Client(server) as client:
            server.answer = answer
            client.writer.write(GET)
            assert await client.reader.read() == b""

    with pytest.raises(ExceptionGroup) as caught:
        await fail()

    (failure,) = caught.value.exceptions
    assert isinstance(failure, kind)
    assert said in str(failure)


async def test_leaving_ends_what_is_open() -> None:
    """Neither a stall nor a body that was not read holds it up, or leaves a task."""
    before = asyncio.all_tasks()

    async with ScriptedServer() as server, Client(server) as one:
        server.script = [STALL]
        one.writer.write(GET)
        await server.arrived.wait()
        server.reading.clear()
        async with Client(server) as other:
            other.writer.write(GET)
            await other.writer.drain()

    assert asyncio.all_tasks() == before
