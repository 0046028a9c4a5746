"""A worker's HTTP: what is tried again, what is not, and what is never told."""

from __future__ import annotations

import contextlib
import logging
import pickle
import socket
import ssl
import struct
import threading
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
import trustme

from wren import grants
from wren.errors import KeyNotFoundError, StorageError, TransientError
from wren.protocols import Grant

MIB = 1024 * 1024
SECRETS = ("SECRET-QUERY", "SECRET-HEADER", "SECRET-USER")
QUERY = "X-Signature=SECRET-QUERY"

Action = Callable[["Handler"], None]


class Server(ThreadingHTTPServer):
    """A store that does what the script says, one action for each request."""

    daemon_threads = True
    script: list[Action]
    requests: list[tuple[str, str, dict[str, str], bytes]]
    released: threading.Event

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet about connections that the client or an action cut."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    body = b""

    @property
    def store(self) -> Server:
        """The server, with its own type."""
        return cast("Server", self.server)

    def serve(self) -> None:
        action = self.store.script.pop(0)
        if action not in EARLY:
            self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.store.requests.append((self.command, self.path, headers, self.body))
        action(self)

    do_GET = do_PUT = serve  # noqa: N815  # names that http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Write nothing to standard error."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def reply(status: int, body: bytes = b"", **headers: str) -> Action:
    """Answer."""
    return lambda handler: handler.answer(status, body, **headers)


def error(status: int, code: str) -> Action:
    """Answer with an error in the words of S3 and its like."""
    secret = f"<StringToSign>{QUERY}</StringToSign>"
    xml = f"<?xml version='1.0'?><Error><Code>{code}</Code>{secret}</Error>"
    return reply(status, xml.encode())


def cut_short(handler: Handler) -> None:
    """Announce ten bytes and send four."""
    handler.send_response(200)
    handler.send_header("Content-Length", "10")
    handler.end_headers()
    handler.wfile.write(b"four")
    handler.close_connection = True


def cut_chunk(handler: Handler) -> None:
    """Announce a chunk of ten bytes and send four."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"a\r\nfour")
    handler.close_connection = True


def reset(handler: Handler) -> None:
    """Cut the connection without an answer; the request may have been carried out."""
    linger = struct.pack("ii", 1, 0)  # close with RST
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()
    handler.close_connection = True


def hang_up(handler: Handler) -> None:
    """End the connection politely without an answer."""
    handler.close_connection = True


def babble(handler: Handler) -> None:
    """Send what is no HTTP."""
    handler.wfile.write(b"what?\r\n\r\n")
    handler.close_connection = True


def stall(handler: Handler) -> None:
    """Say nothing until the test has ended."""
    handler.store.released.wait(30)
    handler.close_connection = True


def stall_half_way(handler: Handler) -> None:
    """Begin to answer, then say nothing."""
    handler.send_response(200)
    handler.send_header("Content-Length", "10")
    handler.end_headers()
    handler.wfile.write(b"four")
    stall(handler)


def refuse_early(handler: Handler) -> None:
    """Answer before the body has been read, and close."""
    handler.answer(403, b"<Error><Code>AccessDenied</Code></Error>")
    handler.close_connection = True


def accept_early(handler: Handler) -> None:
    """Claim to have stored what was not read."""
    handler.answer(200)
    handler.close_connection = True


EARLY = (refuse_early, accept_early)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Generator[Server]:
    """A store on loopback; the client waits for next to nothing between tries."""
    monkeypatch.setattr(grants, "_FIRST_PAUSE", 0.001)
    with serving() as server:
        yield server


@contextlib.contextmanager
def serving(context: ssl.SSLContext | None = None) -> Generator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.script = []
    server.requests = []
    server.released = threading.Event()
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def grant(server: Server, method: str = "GET", **headers: str) -> dict[str, Any]:
    """Return a grant for the server, full of secrets."""
    return {
        "method": method,
        "url": f"http://127.0.0.1:{server.server_port}/bucket/a%20key?{QUERY}",
        "headers": {"x-token": "SECRET-HEADER", **headers},
        "expires": time.time() + 60,
    }


def assert_tells_no_secret(exc: BaseException) -> None:
    """Nothing that may end in a log or on a screen shows the query or the headers."""
    shown = "".join(
        [str(exc), repr(exc), repr(vars(exc)), *traceback.format_exception(exc)]
    )
    shown += repr(pickle.dumps(exc)) + repr(exc.__cause__)
    assert not [secret for secret in SECRETS if secret in shown]


# --- the grant itself ---------------------------------------------------------------


def test_a_grant_travels_as_json() -> None:
    """Without an infinity, which JSON has not."""
    made = Grant(method="PUT", url="file:///x", headers={"if-none-match": "*"})

    assert grants.to_json(made) == {
        "method": "PUT",
        "url": "file:///x",
        "headers": {"if-none-match": "*"},
        "expires": None,
    }
    assert grants.to_json(Grant(method="GET", url="http://x", expires=7.5)) == {
        "method": "GET",
        "url": "http://x",
        "headers": {},
        "expires": 7.5,
    }


def test_the_request_is_exactly_the_granted_one(server: Server) -> None:
    """Path and query untouched, every header sent: the signature may cover them."""
    server.script = [reply(200, b"data"), reply(200)]

    assert grants.fetch(grant(server)) == b"data"
    assert grants.store(grant(server, "PUT", If_Match="x"), [b"a", b""]) == "written"

    (got, get_path, got_headers, _), (put, put_path, put_headers, body) = (
        server.requests
    )
    assert (got, put) == ("GET", "PUT")
    assert get_path == put_path == f"/bucket/a%20key?{QUERY}"
    assert got_headers["x-token"] == put_headers["x-token"] == "SECRET-HEADER"
    assert put_headers["if_match"] == "x"
    assert put_headers["content-length"] == "1"
    assert "transfer-encoding" not in put_headers
    assert body == b"a"


@pytest.mark.parametrize("read", [grants.fetch, grants.fetch_buffer])
def test_large_bodies_pass_whole(
    server: Server, read: Callable[[dict[str, Any]], bytes | memoryview]
) -> None:
    """Larger than any buffer between here and there, in parts of any size."""
    parts: Sequence[bytes | bytearray | memoryview] = [
        bytes(3 * MIB + 1),
        b"",
        bytearray(b"x" * MIB),
        memoryview(b"y" * 5),
    ]
    data = b"".join(parts)
    server.script = [reply(201), reply(200, data), reply(200)]

    assert grants.store(grant(server, "PUT"), parts) == "written"
    assert read(grant(server)) == data
    assert grants.store(grant(server, "PUT"), []) == "written"

    assert server.requests[0][3] == data
    assert server.requests[2][2]["content-length"] == "0"


def test_a_buffer_is_writable(server: Server) -> None:
    """Arrays are built over it, and people write to their arrays."""
    server.script = [reply(200, b"data"), reply(200, b"")]

    buffer = grants.fetch_buffer(grant(server))
    buffer[0] = 0

    assert bytes(buffer) == b"\0ata"
    assert bytes(grants.fetch_buffer(grant(server))) == b""


# --- what is tried again ------------------------------------------------------------

PASSING = [
    *(reply(500), reply(502), reply(503), reply(504), reply(429), reply(408)),
    *(error(503, "SlowDown"), error(400, "RequestTimeout")),
    *(reset, hang_up, babble),
]
PASSING_IDS = [
    *("500", "502", "503", "504", "429", "408", "slow-down", "request-timeout"),
    *("reset", "hang-up", "babble"),
]


@pytest.mark.parametrize("fault", PASSING, ids=PASSING_IDS)
def test_a_passing_fault_is_tried_again(server: Server, fault: Action) -> None:
    """Twice, and then it is well; the same bytes are sent each time."""
    server.script = [fault, fault, reply(200, b"data"), fault, fault, reply(200)]

    assert grants.fetch(grant(server)) == b"data"
    assert grants.store(grant(server, "PUT"), [b"body"]) == "written"

    assert [body for *_, body in server.requests] == [b""] * 3 + [b"body"] * 3


@pytest.mark.parametrize("read", [grants.fetch, grants.fetch_buffer])
@pytest.mark.parametrize("fault", [cut_short, cut_chunk])
def test_a_body_cut_short_is_read_again(
    server: Server, fault: Action, read: Callable[[dict[str, Any]], bytes | memoryview]
) -> None:
    """What has arrived is no object."""
    server.script = [fault, reply(200, b"0123456789")]

    assert read(grant(server)) == b"0123456789"


@pytest.mark.parametrize("fault", [stall, stall_half_way])
def test_silence_ends_a_try(
    server: Server, fault: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the answer and in the middle of it."""
    monkeypatch.setattr(grants, "_SILENCE", 0.2)
    # More than one: a busy machine may be silent for as long by itself.
    server.script = [fault, *[reply(200, b"data")] * 5]

    assert grants.fetch(grant(server)) == b"data"


@pytest.mark.parametrize("fault", [*PASSING, cut_short], ids=[*PASSING_IDS, "cut"])
def test_a_lasting_fault_is_transient(server: Server, fault: Action) -> None:
    """After a handful of tries; whoever asked may ask again later."""
    server.script = [fault] * 20

    with pytest.raises(TransientError) as caught:
        grants.fetch(grant(server))

    assert len(server.requests) == 6
    assert_tells_no_secret(caught.value)
    assert "/bucket/a%20key" in str(caught.value)


def test_patience_has_an_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries that take long leave no time for another."""
    monkeypatch.setattr(grants, "_PATIENCE", 0.0)
    server.script = [reply(500), reply(200)]

    with pytest.raises(TransientError, match="HTTP 500"):
        grants.fetch(grant(server))

    assert len(server.requests) == 1


def test_pauses_are_drawn_and_grow(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full jitter: thousands of workers must not come back at the same moment."""
    pauses: list[float] = []
    monkeypatch.setattr(grants, "_FIRST_PAUSE", 0.5)
    monkeypatch.setattr(time, "sleep", pauses.append)
    for _ in range(20):
        server.script = [reply(500)] * 6
        with pytest.raises(TransientError):
            grants.fetch(grant(server))

    steps = [pauses[step::5] for step in range(5)]
    assert len(pauses) == 100
    for step, bound in zip(steps, (0.5, 1.0, 2.0, 4.0, 5.0), strict=True):
        assert max(step) <= bound
        assert min(step) < bound / 2 < max(step)


def test_nobody_there_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection, and a host that has no address."""
    monkeypatch.setattr(grants, "_FIRST_PAUSE", 0.001)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for host in (f"127.0.0.1:{port}", "host.invalid"):
            away: dict[str, Any] = {
                "method": "GET",
                "url": f"http://{host}/k?{QUERY}",
                "headers": {},
                "expires": None,
            }
            with pytest.raises(TransientError) as caught:
                grants.fetch(away)
            assert_tells_no_secret(caught.value)


# --- conditions ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "taken",
    [
        error(412, "PreconditionFailed"),
        reply(412),
        error(409, "BlobAlreadyExists"),
        reply(409, x_ms_error_code="BlobAlreadyExists"),
        reply(403, x_ms_error_code="UnauthorizedBlobOverwrite"),
    ],
    ids=["s3", "bare", "azure-xml", "azure-header", "azure-create-only"],
)
def test_a_taken_key_is_an_answer(server: Server, taken: Action) -> None:
    """Each cloud says it in its way; none is an error, and none is tried again."""
    server.script = [taken]

    assert grants.store(grant(server, "PUT"), [b"x"]) == "exists"

    assert len(server.requests) == 1


def test_azurites_word_counts_where_there_is_a_condition(server: Server) -> None:
    """It says the same to a grant that is worth nothing, which must not be hidden."""
    refused = error(403, "AuthorizationPermissionMismatch")
    server.script = [refused, refused]

    conditional = grant(server, "PUT", **{"if-none-match": "*"})
    assert grants.store(conditional, [b"x"]) == "exists"
    with pytest.raises(StorageError, match="403 AuthorizationPermissionMismatch"):
        grants.store(grant(server, "PUT"), [b"x"])


def test_a_conflict_is_no_answer(server: Server) -> None:
    """409 ConditionalRequestConflict: nobody has won yet; the same bytes again."""
    conflict = error(409, "ConditionalRequestConflict")
    server.script = [conflict, conflict, reply(200), conflict, reply(412)]

    assert grants.store(grant(server, "PUT"), [b"x"]) == "written"
    assert grants.store(grant(server, "PUT"), [b"y"]) == "exists"

    assert [body for *_, body in server.requests] == [b"x"] * 3 + [b"y"] * 2


def test_a_conflict_without_end_is_transient(server: Server) -> None:
    """Never `exists`: that would give up a result that nobody has stored."""
    server.script = [error(409, "ConditionalRequestConflict")] * 6

    with pytest.raises(TransientError, match="409 ConditionalRequestConflict"):
        grants.store(grant(server, "PUT"), [b"x"])


# --- what is not tried again --------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (error(404, "NoSuchKey"), KeyNotFoundError, "404 NoSuchKey"),
        (reply(404), KeyNotFoundError, "404"),
        (error(404, "NoSuchBucket"), StorageError, "404 NoSuchBucket"),
        (
            error(403, "AccessDenied"),
            grants.RefusedGrantError,
            "AccessDenied: the grant is refused",
        ),
        (
            error(403, "RequestTimeTooSkewed"),
            grants.RefusedGrantError,
            "RequestTimeTooSkewed",
        ),
        (reply(401), grants.RefusedGrantError, "refused or has expired"),
        (error(400, "ExpiredToken"), grants.RefusedGrantError, "ExpiredToken"),
        (reply(400), StorageError, "HTTP 400"),
        (reply(501), StorageError, "HTTP 501"),
        (reply(206, b"part"), StorageError, "HTTP 206"),
        (reply(307, Location=f"/other?{QUERY}"), StorageError, "redirection"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_refusal_is_final(
    server: Server, fault: Action, kind: type[StorageError], said: str
) -> None:
    """Asked once, told in the store's own word, and nothing of the rest it says."""
    server.script = [fault]

    with pytest.raises(StorageError, match=said) as caught:
        grants.fetch(grant(server))

    assert type(caught.value) is kind
    assert len(server.requests) == 1
    assert_tells_no_secret(caught.value)


def test_a_write_is_refused_in_the_same_words(server: Server) -> None:
    """A redirection is not followed either: the body would go who knows where."""
    for fault in (error(403, "AccessDenied"), reply(302, Location="/x"), reply(400)):
        server.script = [fault]
        with pytest.raises(StorageError) as caught:
            grants.store(grant(server, "PUT"), [b"x"])
        assert not isinstance(caught.value, TransientError)
        assert_tells_no_secret(caught.value)

    assert len(server.requests) == 3


def test_a_refusal_before_the_body_was_read_is_heard(server: Server) -> None:
    """The connection breaks while we still send; the answer is there nevertheless."""
    server.script = [refuse_early]

    with pytest.raises(StorageError, match="AccessDenied") as caught:
        grants.store(grant(server, "PUT"), [bytes(32 * MIB)])

    assert type(caught.value) is grants.RefusedGrantError


def test_a_success_before_the_body_was_read_is_none(server: Server) -> None:
    """Nobody can have stored what we could not send."""
    server.script = [accept_early, reply(200)]
    body = bytes(32 * MIB)

    assert grants.store(grant(server, "PUT"), [body]) == "written"

    assert server.requests[-1][3] == body


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        (f"http://127.0.0.1:PORT/a b?{QUERY}", {}),
        (f"http://127.0.0.1:PORT/a\x7f?{QUERY}", {}),
        (f"http://SECRET-USER@127.0.0.1:PORT/a b?{QUERY}", {}),
        (f"http://127.0.0.1:port/a?{QUERY}", {}),
        (f"http://[::1/a?{QUERY}", {}),
        (f"http:///a?{QUERY}", {}),
        (f"ftp://127.0.0.1/a?{QUERY}", {}),
        (f"127.0.0.1/a?{QUERY}", {}),
        (f"http://{'x' * 70}.com/a?{QUERY}", {}),
        ("http://127.0.0.1:PORT/a", {"x-token": "SECRET-HEADER\n"}),
        ("http://127.0.0.1:PORT/a", {"x-token": "SECRET-HEADER \u20ac"}),
        ("http://127.0.0.1:PORT/a", {"SECRET-HEADER\n": "x"}),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_a_malformed_grant_is_told_without_showing_it(
    server: Server, url: str, headers: dict[str, str]
) -> None:
    """At once; the standard library's own message would quote it."""
    url = url.replace("PORT", str(server.server_port))
    bad = {"method": "GET", "url": url, "headers": headers, "expires": None}

    with pytest.raises(StorageError, match="malformed") as caught:
        grants.fetch(bad)

    assert type(caught.value) is StorageError
    assert_tells_no_secret(caught.value)


def test_nothing_is_logged(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Not at any level, whatever happens."""
    server.script = [reply(500), reset, reply(200, b""), error(403, "AccessDenied")]

    with caplog.at_level(logging.DEBUG):
        grants.fetch(grant(server))
        with pytest.raises(StorageError):
            grants.fetch(grant(server))

    assert not [secret for secret in SECRETS if secret in caplog.text]


# --- certificates -------------------------------------------------------------------


def https(server: Server, host: str = "localhost") -> dict[str, Any]:
    """Return a grant for a server with a certificate."""
    url = f"https://{host}:{server.server_port}/k?{QUERY}"
    return {"method": "GET", "url": url, "headers": {}, "expires": None}


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secure(authority: trustme.CA) -> Generator[Server]:
    """A store whose certificate, for localhost, the system does not know."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate: Any = authority.issue_cert("localhost")
    certificate.configure_cert(context)
    with serving(context) as server:
        yield server


def test_an_unknown_certificate_is_refused_at_once(secure: Server) -> None:
    """Trying again would not make it better known, and no request is sent."""
    with pytest.raises(StorageError, match="certificate") as caught:
        grants.fetch(https(secure))

    assert type(caught.value) is StorageError
    assert secure.requests == []
    assert_tells_no_secret(caught.value)


def test_a_known_certificate_is_for_one_host(
    secure: Server, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepted for its own, refused for another."""
    context = ssl.create_default_context()
    cast("Any", authority).configure_trust(context)
    monkeypatch.setattr(grants, "_tls", lambda: context)
    secure.script = [reply(200, b"data")]

    assert grants.fetch(https(secure)) == b"data"
    with pytest.raises(StorageError, match="certificate"):
        grants.fetch(https(secure, "127.0.0.1"))

    assert len(secure.requests) == 1


# --- files --------------------------------------------------------------------------


def on_disk(path: Path, method: str = "GET", **headers: str) -> dict[str, Any]:
    """Return a grant for a file."""
    return {
        "method": method,
        "url": path.as_uri(),
        "headers": {name.replace("_", "-"): v for name, v in headers.items()},
        "expires": None,
    }


def test_a_mapped_file_is_private_and_stays(tmp_path: Path) -> None:
    """Changes are this process's own; the object may be replaced or deleted."""
    path = tmp_path / "é k="
    grants.store(on_disk(path, "PUT"), [b"0123", b"4567"])
    first = grants.fetch_buffer(on_disk(path))
    second = grants.fetch_buffer(on_disk(path))

    first[0] = ord("x")
    grants.store(on_disk(path, "PUT"), [b"replaced"])
    path.unlink()

    assert bytes(first) == b"x1234567"
    assert bytes(second) == b"01234567"
    with pytest.raises(KeyNotFoundError):
        grants.fetch_buffer(on_disk(path))


def test_an_empty_file_can_be_mapped(tmp_path: Path) -> None:
    """The system call refuses, we do not."""
    path = tmp_path / "k="
    grants.store(on_disk(path, "PUT"), [])

    assert bytes(grants.fetch_buffer(on_disk(path))) == b""
    assert grants.fetch(on_disk(path)) == b""


def test_a_condition_on_a_file_is_kept(tmp_path: Path) -> None:
    """However the header is written."""
    path = tmp_path / "a" / "b" / "k="
    conditional = on_disk(path, "PUT", If_None_Match="*")

    assert grants.store(conditional, [b"1"]) == "written"
    assert grants.store(conditional, [b"2"]) == "exists"
    assert grants.fetch(on_disk(path)) == b"1"
    assert grants.store(on_disk(path, "PUT"), [b"3"]) == "written"
    assert grants.fetch(on_disk(path)) == b"3"
    assert [entry.name for entry in path.parent.iterdir()] == ["k="]


def test_an_expired_file_grant_is_refused(tmp_path: Path) -> None:
    """Nobody but the holder can, where the grant is a path."""
    path = tmp_path / "k="
    past = {"expires": time.time() - 1}

    for use in (
        lambda: grants.store({**on_disk(path, "PUT"), **past}, [b""]),
        lambda: grants.fetch({**on_disk(path), **past}),
        lambda: grants.fetch_buffer({**on_disk(path), **past}),
    ):
        with pytest.raises(StorageError, match="expired"):
            use()

    assert not path.exists()
