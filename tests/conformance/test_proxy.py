"""The proxy passes on what it is not told to harm, and harms what it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import threading
from collections.abc import AsyncGenerator, Generator, Iterator
from http.client import HTTPConnection, HTTPException, IncompleteRead
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from anyio import to_thread

from wren.conformance.fault_plan import MARK, Fault, FaultPlan
from wren.conformance.proxy import FaultProxy, proxy_in_thread

BODY = bytes(range(256)) * 40
LARGE = 48 << 20


class Server(ThreadingHTTPServer):
    """Keeps what is put, and says what it was asked."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.connected = threading.Event()


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD with `BODY`, and everything else with a digest."""

    protocol_version = "HTTP/1.1"

    @property
    def owner(self) -> Server:
        assert isinstance(self.server, Server)
        return self.server

    def setup(self) -> None:
        super().setup()
        self.owner.connected.set()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""

    def handle_expect_100(self) -> bool:
        if "refuse" in self.path:
            self.send_error(403)
            return False
        return super().handle_expect_100()

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline() != b"\r\n":
            pass

    def _pieces(self) -> Iterator[bytes]:
        if self.headers["Transfer-Encoding"] == "chunked":
            yield from self._chunks()
        left = int(self.headers["Content-Length"] or 0)
        while left:
            piece = self.rfile.read(min(left, 1 << 16))
            left -= len(piece)
            yield piece

    def _take(self) -> str:
        digest = hashlib.sha256()
        start = b""
        for piece in self._pieces():
            digest.update(piece)
            start = start or piece[:100]
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.owner.seen.append((self.command, self.path, headers, start))
        return digest.hexdigest()

    def do_GET(self) -> None:
        self._take()
        body = BODY
        self.send_response(200)
        if "chunked" in self.path:
            self.send_header("Transfer-Encoding", "chunked")
            body = b"".join(
                b"%x;ext=1\r\n%s\r\n" % (len(piece), piece)
                for piece in (BODY[:1000], BODY[1000:])
            )
            body += b"0\r\nx-trailer: yes\r\n\r\n"
        elif "until-close" in self.path:
            self.send_header("Connection", "close")
        elif "large" in self.path:
            self.send_header("Content-Length", str(LARGE))
            body = bytes(LARGE)
        else:
            self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        self._take()
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()

    def do_PUT(self) -> None:
        digest = self._take().encode()
        self.send_response(201)
        self.send_header("Content-Length", str(len(digest)))
        self.end_headers()
        self.wfile.write(digest)

    def do_DELETE(self) -> None:
        self._take()
        self.send_response(204)
        self.end_headers()


@pytest.fixture
def server() -> Generator[Server]:
    """A server that is not ours."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def proxy(server: Server) -> Generator[FaultProxy]:
    """A proxy before it, with nothing planned."""
    with proxy_in_thread(server.url) as proxy:
        yield proxy


class Client(HTTPConnection):
    """A client of a proxy that gives up when nothing comes."""

    def __init__(self, proxy: FaultProxy, timeout: float = 20) -> None:
        super().__init__(urlsplit(proxy.url).netloc, timeout=timeout)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Return the answer, read to its end, as its ``body``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.request(method, path, body, named)
        answer: Any = self.getresponse()
        answer.body = answer.read()
        return answer


@pytest.fixture
def client(proxy: FaultProxy) -> Generator[Client]:
    """A client whose connection is made when it is needed."""
    with contextlib.closing(Client(proxy)) as client:
        yield client


# --- nothing planned ------------------------------------------------------------------


def test_a_request_passes_as_it_is(client: Client, server: Server) -> None:
    """A signature covers its path and headers, the name of the host among them."""
    answer = client.ask("PUT", "/a%20b//c?x=%2F&y", b"abc", X_Signed="As It Is")

    assert answer.status == 201
    assert answer.body.decode() == hashlib.sha256(b"abc").hexdigest()
    ((method, path, headers, body),) = server.seen
    assert (method, path, body) == ("PUT", "/a%20b//c?x=%2F&y", b"abc")
    assert headers["host"] == f"{client.host}:{client.port}"
    assert headers["x-signed"] == "As It Is"
    assert not any(name.startswith(("via", "x-forwarded")) for name in headers)


@pytest.mark.parametrize("path", ["/plain", "/chunked", "/until-close"])
def test_answers_pass_however_they_end(client: Client, path: str) -> None:
    """By their length, in chunks, or with the connection."""
    for _ in range(2):
        answer = client.ask("GET", path)
        assert answer.body == BODY
        assert answer.status == 200


def test_answers_without_a_body_end_at_once(client: Client) -> None:
    """Whatever length they announce."""
    answer = client.ask("HEAD", "/k")
    assert (answer.headers["Content-Length"], answer.body) == (str(len(BODY)), b"")
    assert client.ask("DELETE", "/k").status == 204
    assert client.ask("GET", "/k").body == BODY


def test_a_connection_is_kept(client: Client, proxy: FaultProxy) -> None:
    """As the server keeps it."""
    client.ask("GET", "/k")
    first = client.sock
    for _ in range(3):
        client.ask("PUT", "/k", BODY)
    assert client.sock is first is not None
    assert proxy.forwarded == 4


def test_bodies_in_chunks_pass(client: Client) -> None:
    """Of no announced length, with extensions and trailers."""
    answer = client.ask("PUT", "/k", iter([b"abc", b"def" * 50_000]))
    assert answer.body.decode() == hashlib.sha256(b"abc" + b"def" * 50_000).hexdigest()

    client.putrequest("PUT", "/k")
    client.putheader("Transfer-Encoding", "chunked")
    client.endheaders(
        b"3;signature=1\r\nabc\r\n0\r\nx-checksum: 2\r\nx-more: 3\r\n\r\n"
    )
    answer = client.getresponse()
    assert answer.read().decode() == hashlib.sha256(b"abc").hexdigest()


def test_large_bodies_stream_both_ways(
    client: Client, proxy: FaultProxy, server: Server
) -> None:
    """The server begins to receive before the client has sent everything."""
    size = 1 << 26
    client.putrequest("PUT", "/large")
    client.putheader("Content-Length", str(size))
    client.endheaders()
    piece = bytes(1 << 20)
    for _ in range(size >> 21):
        client.send(piece)
    assert server.connected.wait(20)
    assert proxy.forwarded == 1
    for _ in range(size >> 21):
        client.send(piece)
    assert (
        client.getresponse().read().decode() == hashlib.sha256(bytes(size)).hexdigest()
    )
    assert len(client.ask("GET", "/large").body) == LARGE


def test_a_client_may_ask_before_it_sends(client: Client, server: Server) -> None:
    """``Expect: 100-continue``, as the clients of S3 do."""
    opened = socket.create_connection((client.host, client.port or 0), timeout=20)
    with opened, opened.makefile("rb") as answers:
        head = b"PUT %s HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n"
        for _ in range(2):
            opened.sendall(head % b"/k" + b"Expect: 100-continue\r\n\r\n")
            assert answers.readline() == b"HTTP/1.1 100 Continue\r\n"
            assert answers.readline() == b"\r\n"
            opened.sendall(b"abc")
            assert answers.readline().startswith(b"HTTP/1.1 201")
            while answers.readline() != b"\r\n":
                pass
            answers.read(64)
        opened.sendall(head % b"/refuse" + b"Expect: 100-continue\r\n\r\n")
        assert answers.readline().startswith(b"HTTP/1.1 403")
        while answers.readline() != b"\r\n":
            pass
        answers.read()  # ends, as the connection does
    assert [body for *_, body in server.seen] == [b"abc", b"abc"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_hundreds_of_connections_pass_at_once(proxy: FaultProxy) -> None:
    """None waits for another."""
    clients = 200
    meet = threading.Barrier(clients)

    def ask() -> None:
        with contextlib.closing(Client(proxy)) as client:
            client.connect()
            meet.wait(30)
            for _ in range(3):
                assert client.ask("GET", "/k").body == BODY

    limiter = anyio.CapacityLimiter(clients)
    async with anyio.create_task_group() as group:
        for _ in range(clients):
            group.start_soon(lambda: to_thread.run_sync(ask, limiter=limiter))
    assert proxy.count() == proxy.forwarded == 3 * clients


def test_requests_are_counted(client: Client, proxy: FaultProxy) -> None:
    """By method and path, query and all."""
    for method, path in [("GET", "/a?x"), ("GET", "/b"), ("PUT", "/a"), ("HEAD", "/a")]:
        client.ask(method, path)

    assert proxy.requests == [
        ("GET", "/a?x"),
        ("GET", "/b"),
        ("PUT", "/a"),
        ("HEAD", "/a"),
    ]
    assert proxy.count("GET") == 2
    assert proxy.count("GET", "/a*") == 1
    assert proxy.count(pattern="/a*") == 3
    assert proxy.count() == 4


def test_a_server_that_is_not_there_is_no_answer(server: Server) -> None:
    """The proxy speaks for nobody."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with proxy_in_thread(f"http://127.0.0.1:{taken.getsockname()[1]}/x") as proxy:
            assert proxy.url.endswith("/x")
            client = Client(proxy)
            with contextlib.closing(client), pytest.raises(ConnectionResetError):
                client.ask("GET", "/k")


# --- faults ---------------------------------------------------------------------------


def test_a_refused_connection_reaches_nobody(
    client: Client, proxy: FaultProxy, server: Server
) -> None:
    """The client sees a reset, and the server nothing."""
    with FaultPlan(Fault("PUT", "refuse", "/k?*")) as plan:
        proxy.play(plan)
        with pytest.raises(ConnectionError):
            client.ask("PUT", "/k?x", b"abc")
    client.close()
    assert server.seen == []
    assert (proxy.count(), proxy.forwarded) == (1, 0)
    assert client.ask("PUT", "/k?x", b"abc").status == 201


@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD", "DELETE"])
def test_an_answer_is_lost_after_the_work_was_done(
    client: Client, proxy: FaultProxy, server: Server, method: str
) -> None:
    """The server has done it, and the client cannot know."""
    with FaultPlan(Fault(method, "lose")) as plan:
        proxy.play(plan)
        with pytest.raises(ConnectionResetError):
            client.ask(method, "/k", b"abc")
    assert [(seen[0], seen[3]) for seen in server.seen] == [(method, b"abc")]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_request_arrives_twice(
    client: Client, proxy: FaultProxy, server: Server, chunked: bool
) -> None:
    """As from a library that sends again unasked."""
    with FaultPlan(Fault("*", "duplicate")) as plan:
        proxy.play(plan)
        answer = client.ask("PUT", "/k", iter([b"a", b"bc"]) if chunked else b"abc")
    assert answer.body.decode() == hashlib.sha256(b"abc").hexdigest()
    assert [seen[3] for seen in server.seen] == [b"abc", b"abc"]
    assert (proxy.count(), proxy.forwarded) == (1, 2)


@pytest.mark.parametrize("status", [403, 409, 429, 503])
def test_a_status_is_answered_in_the_servers_place(
    client: Client, proxy: FaultProxy, server: Server, status: int
) -> None:
    """With headers and body; and the connection stays."""
    fault = Fault(
        "*", "status", status=status, headers={"Retry-After": "7"}, body=b"<>"
    )
    with FaultPlan(fault, Fault("HEAD", "status", first=1, status=status)) as plan:
        proxy.play(plan)
        answer = client.ask("PUT", "/k", b"abc")
        opened = client.sock
        assert (answer.status, answer.body) == (status, b"<>")
        assert answer.headers["Retry-After"] == "7"
        head = client.ask("HEAD", "/k")
        assert (head.status, head.body) == (status, b"")
    assert client.ask("GET", "/k").body == BODY
    assert client.sock is opened
    assert [seen[0] for seen in server.seen] == ["GET"]


def test_a_body_ends_in_the_middle(client: Client, proxy: FaultProxy) -> None:
    """With the end of the connection, or with a reset of it."""
    with FaultPlan(Fault("GET", "truncate"), Fault("GET", "cut", first=2)) as plan:
        proxy.play(plan)
        with pytest.raises(IncompleteRead) as caught:
            client.ask("GET", "/k")
        assert caught.value.partial == BODY[: len(BODY) // 2]
        client.close()
        client.request("GET", "/k")
        answer = client.getresponse()
        assert answer.length == len(BODY)
        with pytest.raises(ConnectionResetError):
            answer.read()


@pytest.mark.parametrize("path", ["/k", "/chunked", "/until-close"])
def test_a_body_is_another_and_nothing_shows_it(
    client: Client, proxy: FaultProxy, path: str
) -> None:
    """Half of it, with a bit changed, none at all, or something else."""
    expected = {
        "shorten": BODY[: len(BODY) // 2],
        "flip": BODY[: len(BODY) // 2]
        + bytes([BODY[len(BODY) // 2] ^ 1])
        + BODY[len(BODY) // 2 + 1 :],
        "empty": b"",
        "replace": MARK,
    }
    faults = [Fault("GET", each, first=n) for n, each in enumerate(expected, 1)]
    with FaultPlan(*faults) as plan:
        proxy.play(plan)
        found = [client.ask("GET", path).body for _ in expected]
    assert found == list(expected.values())


def test_an_answer_stops_in_the_middle(proxy: FaultProxy) -> None:
    """Half comes, and then nothing; or nothing at all, and nothing is done."""
    for action in ("stall", "delay"):
        with FaultPlan(Fault("GET", action)) as plan:
            proxy.play(plan)
            client = Client(proxy, timeout=0.2)
            with contextlib.closing(client), pytest.raises(TimeoutError):
                client.ask("GET", "/k")
    assert (proxy.count(), proxy.forwarded) == (2, 1)


def test_an_answer_may_be_late(client: Client, proxy: FaultProxy) -> None:
    """Or come in drops; it is whole in the end."""
    plan = FaultPlan(
        Fault("GET", "delay", seconds=0.01), Fault("GET", "drip", first=2, seconds=0.01)
    )
    with plan:
        proxy.play(plan)
        assert client.ask("GET", "/k").body == BODY
        assert client.ask("GET", "/k").body == BODY


def test_faults_hit_those_that_they_name(client: Client, proxy: FaultProxy) -> None:
    """By method, path and which of them it is."""
    with FaultPlan(Fault("GET", "status", "/hit/*", first=2)) as plan:
        proxy.play(plan)
        paths = ["/hit/1", "/miss/2", "/hit/3", "/hit/4"]
        found = [client.ask("GET", path).status for path in paths]
    assert found == [200, 200, 503, 200]


def test_a_misspelt_fault_is_refused(server: Server) -> None:
    """It would test nothing."""
    plan = FaultPlan(Fault("GET", "drop-reply"))
    with pytest.raises(ValueError, match="drop-reply"):
        FaultProxy(server.url, plan)
    with pytest.raises(ValueError, match="http URL"):
        FaultProxy("https://127.0.0.1")


# --- lives ----------------------------------------------------------------------------


@pytest.fixture
async def own(server: Server) -> AsyncGenerator[FaultProxy]:
    """A proxy in the loop of the test."""
    async with FaultProxy(server.url) as proxy:
        yield proxy


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_proxy_runs_in_the_loop_of_the_test(own: FaultProxy) -> None:
    """Beside the code that is tested, and without blocking it."""

    def ask() -> bytes:
        with contextlib.closing(Client(own)) as client:
            body: bytes = client.ask("GET", "/k").body
            return body

    assert await to_thread.run_sync(ask) == BODY


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_leaving_ends_what_is_open(server: Server) -> None:
    """A stalled answer holds up nobody, and no task is left behind."""
    before = asyncio.all_tasks()
    plan = FaultPlan(Fault("GET", "stall"))
    async with FaultProxy(server.url, plan) as proxy:
        where = urlsplit(proxy.url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write(b"GET /k HTTP/1.1\r\nHost: h\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(BODY) // 2)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    assert asyncio.all_tasks() == before
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(where.hostname, where.port)


def test_the_thread_ends_with_its_context(server: Server) -> None:
    """Also while a client holds a connection open."""
    before = threading.active_count()
    with proxy_in_thread(server.url) as proxy, contextlib.closing(Client(proxy)) as one:
        one.ask("GET", "/k")
        assert threading.active_count() > before
    with pytest.raises((OSError, HTTPException)):
        Client(proxy).ask("GET", "/k")
