"""What the store does when S3, or the way to it, misbehaves.

The server here plays a script: S3 does these things rarely, and never when asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import chain, repeat

import anyio
import pytest

from wren.config import Settings
from wren.conformance import scripted
from wren.conformance.scripted import (
    CLOSE,
    RESET,
    STALL,
    Reply,
    Request,
    ScriptedServer,
)
from wren.errors import (
    AccessDeniedError,
    KeyExistsError,
    KeyNotFoundError,
    StorageError,
    TransientError,
    UnsupportedError,
)
from wren.storage import s3_client
from wren.storage.parts import PART
from wren.storage.s3 import S3Storage, open_storage

pytestmark = pytest.mark.anyio

NONCE = "x-amz-meta-wren-nonce"
DATE = "Wed, 25 Nov 2026 10:00:00 GMT"
reply = partial(scripted.reply, ETag='"e"')


def refusal(status: int, code: str, more: str = "", **headers: str) -> bytes:
    """Return an error as S3 words it."""
    text = f"<Error><Code>{code}</Code><Message>said</Message>{more}</Error>"
    return reply(status, text.encode(), **headers)


def described(request_with_nonce: Request | None = None) -> bytes:
    """Return the answer to a HEAD, for an object with the nonce of a request."""
    nonce = request_with_nonce.headers[NONCE] if request_with_nonce else "other"
    return reply(200, Last_Modified=DATE, x_amz_meta_wren_nonce=nonce)


def begun(upload: str = "u1") -> bytes:
    """Return the answer to the beginning of an upload in parts."""
    return reply(
        200,
        b"<InitiateMultipartUploadResult><UploadId>%s</UploadId>"
        b"</InitiateMultipartUploadResult>" % upload.encode(),
    )


COMPLETED = reply(
    200,
    b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>",
)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ScriptedServer]:
    """A server; the environment of the test leads to it."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDWREN")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secretwren")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setattr("wren.backoff._FIRST", 0.0)  # no pauses
    async with ScriptedServer() as played:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", played.url)
        yield played


@pytest.fixture
async def store(server: ScriptedServer) -> AsyncIterator[S3Storage]:
    """A store on the server."""
    async with _opened() as store:
        yield store


@asynccontextmanager
async def _opened() -> AsyncGenerator[S3Storage]:
    store = open_storage("s3://bucket/p", Settings())
    try:
        yield store
    finally:
        await store.aclose()


async def test_conditional_put_whose_answer_is_lost_knows_its_object(
    server: ScriptedServer, store: S3Storage
) -> None:
    """412 is about the first request's success: the nonce says so."""
    server.script = [
        CLOSE,
        CLOSE,  # the client sends a second time by itself
        refusal(412, "PreconditionFailed"),
        lambda _: described(server.requests[0]),
    ]

    await store.put("k", b"v", if_absent=True)

    puts = server.requests[:-1]
    assert server.sent() == ["PUT"] * len(puts) + ["HEAD"]
    assert {each.headers["if-none-match"] for each in puts} == {"*"}
    assert len({each.headers[NONCE] for each in puts}) == 1


async def test_conditional_put_sees_the_object_of_somebody_else(
    server: ScriptedServer, store: S3Storage
) -> None:
    """Another nonce, or none, is another writer."""
    for found in (described(), reply(200, Last_Modified=DATE)):
        server.script = [refusal(412, "PreconditionFailed"), found]

        with pytest.raises(KeyExistsError) as caught:
            await store.put("k", b"v", if_absent=True)

        assert (caught.value.store, caught.value.key) == ("s3", "k")


async def test_conditional_put_whose_rival_is_gone_has_lost_all_the_same(
    server: ScriptedServer, store: S3Storage
) -> None:
    """Somebody's object was there, and nothing shows that it was ours."""
    server.script = [
        refusal(412, "PreconditionFailed"),
        reply(404),
        reply(200),  # the bucket is there
    ]

    with pytest.raises(KeyExistsError):
        await store.put("k", b"v", if_absent=True)


async def test_each_conditional_put_has_its_own_nonce(
    server: ScriptedServer, store: S3Storage
) -> None:
    """Otherwise a writer would take its earlier object for the one it just wrote."""
    server.script = [reply(200), reply(200)]

    await store.put("a", b"v", if_absent=True)
    await store.put("b", b"v", if_absent=True)

    assert len({each.headers[NONCE] for each in server.requests}) == 2


@pytest.mark.parametrize(
    "fault",
    [
        refusal(503, "SlowDown"),
        refusal(500, "InternalError"),
        refusal(409, "ConditionalRequestConflict"),
        refusal(409, "OperationAborted"),
        refusal(400, "RequestTimeout"),
        refusal(400, "IncompleteBody"),
        refusal(429, "TooManyRequests"),
        reply(502, b"<html>bad gateway</html>"),
        reply(504),
        RESET,
    ],
)
async def test_what_passes_is_tried_again(
    server: ScriptedServer, store: S3Storage, fault: bytes
) -> None:
    """The same bytes under the same condition."""
    # A reset is answered by the HTTP library with one more request of its own.
    faults = 4 if fault == RESET else 2
    server.script = [*repeat(fault, faults), reply(200)]

    await store.put("k", b"v", if_absent=True)

    assert [each.body for each in server.requests] == [b"v"] * (faults + 1)
    assert {each.headers["if-none-match"] for each in server.requests} == {"*"}


async def test_what_does_not_pass_ends_as_transient(
    server: ScriptedServer, store: S3Storage
) -> None:
    """Six tries; the library does not add its own."""
    server.answer = lambda _: refusal(503, "SlowDown")

    with pytest.raises(TransientError, match="SlowDown"):
        await store.put("k", b"v")

    assert len(server.requests) == 6


@pytest.mark.parametrize(
    ("status", "code", "kind", "text"),
    [
        (403, "AccessDenied", AccessDeniedError, "allow s3:GetObject on .*bucket/p/"),
        (403, "InvalidAccessKeyId", AccessDeniedError, "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", AccessDeniedError, "AWS_SECRET_ACCESS_KEY"),
        (400, "ExpiredToken", AccessDeniedError, "log in again"),
        (403, "RequestTimeTooSkewed", AccessDeniedError, "clock"),
        (403, "AnythingElse", AccessDeniedError, "allow s3:GetObject"),
        (404, "NoSuchBucket", StorageError, "create the bucket or change WREN_STORAGE"),
        (501, "NotImplemented", UnsupportedError, "NotImplemented"),
        (400, "InvalidArgument", StorageError, "InvalidArgument said"),
    ],
)
async def test_what_stays_is_told_at_once(
    server: ScriptedServer,
    store: S3Storage,
    status: int,
    code: str,
    kind: type,
    text: str,
) -> None:
    """One request, the class that fits, and what to change; never "not found"."""
    server.script = [refusal(status, code)]

    with pytest.raises(StorageError, match=text) as caught:
        await store.get("k")

    assert type(caught.value) is kind
    assert (caught.value.store, caught.value.key) == ("s3", "k")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        refusal(301, "PermanentRedirect", x_amz_bucket_region="eu-north-1"),
        refusal(
            400, "AuthorizationHeaderMalformed", more="<Region>eu-north-1</Region>"
        ),
        refusal(
            400, "IllegalLocationConstraintException", x_amz_bucket_region="eu-north-1"
        ),
    ],
)
async def test_another_region_is_named_and_not_followed(
    server: ScriptedServer, store: S3Storage, answer: bytes
) -> None:
    """Grants would still lead to the wrong one, so it is better to say so at once."""
    server.script = [answer]

    with pytest.raises(StorageError, match="set AWS_REGION to eu-north-1"):
        await store.put("k", b"")

    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (reply(403), AccessDeniedError, "s3:GetObject"),
        (reply(400), AccessDeniedError, "session has expired"),
        (
            reply(400, x_amz_bucket_region="eu-north-1"),
            StorageError,
            "set AWS_REGION to eu-north-1",
        ),
        (
            reply(301, x_amz_bucket_region="eu-north-1"),
            StorageError,
            "set AWS_REGION to eu-north-1",
        ),
    ],
)
async def test_a_head_without_a_reason_gets_one(
    server: ScriptedServer, store: S3Storage, answer: bytes, kind: type, text: str
) -> None:
    """Its answer has no body: the status and the headers must do."""
    server.script = [answer]

    with pytest.raises(StorageError, match=text) as caught:
        await store.head("k")

    assert type(caught.value) is kind


async def test_an_absent_bucket_is_not_an_absent_key(
    server: ScriptedServer, store: S3Storage
) -> None:
    """A HEAD is answered alike by both, so the bucket is asked for, once."""
    server.script = [reply(404), reply(404)]
    with pytest.raises(StorageError, match="create the bucket") as caught:
        await store.head("k")
    assert not isinstance(caught.value, KeyNotFoundError)

    server.script = [reply(404), reply(200), reply(404)]
    for _ in range(2):
        with pytest.raises(KeyNotFoundError):
            await store.head("k")


@pytest.mark.parametrize(
    "fault",
    [
        reply(200, b"part", Content_Length="5") + RESET,
        reply(200, b"part", Content_Length="5") + CLOSE,
        reply(200, b"whole").replace(b"Content-Length", b"X-Nothing") + CLOSE,
        reply(200, b"<html>").replace(b"ETag", b"X-Nothing"),
        reply(200, b"").replace(b"ETag", b"X-Nothing"),
    ],
    ids=["reset", "short", "without length", "foreign", "empty"],
)
async def test_a_body_that_may_be_incomplete_is_read_again(
    server: ScriptedServer, store: S3Storage, fault: bytes
) -> None:
    """Short data are never returned."""

    def answer(_: Request) -> bytes:
        return reply(200, b"whole") if len(server.requests) > 2 else fault

    server.answer = answer

    assert await store.get("k") == b"whole"

    assert len(server.requests) >= 3


async def test_a_body_in_chunks_ends_where_it_says(
    server: ScriptedServer, store: S3Storage
) -> None:
    """A length is not needed then."""
    body = b"5\r\nwhole\r\n0\r\n\r\n"
    answer = reply(200, body, Transfer_Encoding="chunked")
    server.script = [answer.replace(b"Content-Length: 15\r\n", b"")]

    assert await store.get("k") == b"whole"


async def test_another_range_than_was_asked_for_is_refused(
    server: ScriptedServer, store: S3Storage
) -> None:
    """A server that ignores ranges would give the wrong bytes."""
    server.script = [
        reply(200, b"whole"),
        reply(206, b"ho", Content_Range="bytes 0-1/5"),
    ]

    for _ in range(2):
        with pytest.raises(StorageError, match="ignores ranges"):
            await store.get("k", start=1, stop=3)


async def test_a_silent_server_is_given_up(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence on an open connection is bounded, for the answer and for its body."""
    monkeypatch.setattr(s3_client, "IDLE_SECONDS", 0.05)
    half = reply(200, b"half", Content_Length="8")
    server.script = [STALL, half + STALL, reply(200, b"whole")]

    def answer(_: Request) -> Reply:
        return server.script.pop(0)

    server.answer = answer
    async with _opened() as store:
        assert await store.get("k") == b"whole"


async def test_an_overwritten_object_is_read_anew(
    server: ScriptedServer, store: S3Storage
) -> None:
    """Parts of two versions would make an object that never was."""
    size = PART + 2
    etag = '"old"'

    def answer(request: Request) -> bytes:
        nonlocal etag
        wanted = request.headers.get("range")
        if wanted is None:
            return reply(200, bytes(size), ETag=etag)
        if request.headers["if-match"] == '"old"':
            etag = '"new"'
            return refusal(412, "PreconditionFailed")
        first, last = map(int, wanted.removeprefix("bytes=").split("-"))
        body = bytes(last - first + 1)
        between = f"bytes {first}-{last}/{size}"
        return reply(206, body, Content_Range=between, ETag=etag)

    server.answer = answer

    same = await store.get("k") == bytes(size)

    assert same
    assert sum("range" not in each.headers for each in server.requests) == 2


class Uploads:
    """Plays S3 for uploads in parts."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.ids = chain(["u1", "u2", "u3", "u4"])
        self.open: set[str] = set()
        self.completing: Iterator[Reply] = repeat(COMPLETED)
        self.part: Reply = reply(200, ETag='"p"')
        server.answer = self.answer

    def answer(self, request: Request) -> Reply:
        _, _, query = request.target.partition("?")
        if request.method == "POST" and query.startswith("uploads"):
            upload = next(self.ids)
            self.open.add(upload)
            return begun(upload)
        if request.method == "PUT":
            return self.part
        if request.method == "DELETE":
            self.open.discard(query.partition("uploadId=")[2])
            return reply(204)
        if request.method == "POST":
            answer = next(self.completing)
            if answer == COMPLETED:
                self.open.discard(query.partition("uploadId=")[2])
            return answer
        return described(self.server.requests[0])


LONG = bytes(2 * PART + 1)


async def test_a_long_object_goes_in_parts(
    server: ScriptedServer, store: S3Storage
) -> None:
    """Each once, and put together in order."""
    uploads = Uploads(server)

    await store.put("k", LONG)

    assert sorted(server.sent()) == ["POST", "POST", "PUT", "PUT", "PUT"]
    order = server.requests[-1].body
    numbers = [order.index(b"<PartNumber>%d<" % n) for n in (1, 2, 3)]
    assert numbers == sorted(numbers)
    assert not uploads.open


async def test_a_failed_part_leaves_no_upload(
    server: ScriptedServer, store: S3Storage
) -> None:
    """Parts without an object cost money until somebody finds them."""
    uploads = Uploads(server)
    uploads.part = refusal(403, "AccessDenied")

    with pytest.raises(AccessDeniedError, match="s3:PutObject"):
        await store.put("k", LONG)

    assert server.sent()[-1] == "DELETE"
    assert not uploads.open


async def test_a_cancelled_upload_leaves_nothing(
    server: ScriptedServer, store: S3Storage
) -> None:
    """However it is cancelled: by a scope, or as asyncio's own timeouts do."""
    uploads = Uploads(server)
    uploads.part = STALL

    async with anyio.create_task_group() as group:
        group.start_soon(store.put, "k", LONG)
        await _until(lambda: "PUT" in server.sent())
        group.cancel_scope.cancel()
    assert not uploads.open

    task = asyncio.create_task(store.put("k", LONG))
    await _until(lambda: server.sent()[-1] == "PUT")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not uploads.open


async def test_an_upload_cancelled_at_its_beginning_leaves_nothing(
    server: ScriptedServer, store: S3Storage
) -> None:
    """Its name is waited for, or nobody could remove it."""
    uploads = Uploads(server)
    began = uploads.answer

    def cancelling(request: Request) -> Reply:
        if request.method == "POST":
            task.cancel()
        return began(request)

    server.answer = cancelling
    task = asyncio.create_task(store.put("k", LONG))
    with pytest.raises(asyncio.CancelledError):
        await task

    assert server.sent()[-2:] == ["POST", "DELETE"]
    assert not uploads.open


async def test_a_completion_whose_answer_is_lost_knows_its_object(
    server: ScriptedServer, store: S3Storage
) -> None:
    """Whether S3 says that the upload is gone, or that the key is taken."""
    for code, status in (("NoSuchUpload", 404), ("PreconditionFailed", 412)):
        server.requests.clear()
        uploads = Uploads(server)
        uploads.completing = iter([CLOSE, refusal(status, code)])

        await store.put("k", LONG, if_absent=True)

        heads = [each for each in server.requests if each.method == "HEAD"]
        assert len(heads) == 1


async def test_a_conflict_at_the_completion_begins_again(
    server: ScriptedServer, store: S3Storage
) -> None:
    """S3 says that the parts are then to be sent once more."""
    uploads = Uploads(server)
    uploads.completing = iter([refusal(409, "ConditionalRequestConflict"), COMPLETED])

    await store.put("k", LONG, if_absent=True)

    assert server.sent().count("POST") == 4
    assert not uploads.open


async def test_an_error_inside_of_a_success_is_one(
    server: ScriptedServer, store: S3Storage
) -> None:
    """S3 begins to answer a completion before it knows how it ends."""
    uploads = Uploads(server)
    uploads.completing = iter([refusal(200, "InternalError"), COMPLETED])

    await store.put("k", LONG)

    assert server.sent().count("POST") == 3
    assert not uploads.open


async def test_objects_that_were_not_deleted_are_tried_again(
    server: ScriptedServer, store: S3Storage
) -> None:
    """S3 answers 200 all the same, and lists what it could not do."""
    item = "<Error><Key>p/{}</Key><Code>{}</Code><Message>said</Message></Error>"
    first = item.format("b", "InternalError") + item.format("c", "NoSuchKey")
    server.script = [
        reply(200, f"<DeleteResult>{first}</DeleteResult>".encode()),
        reply(200, b"<DeleteResult></DeleteResult>"),
    ]

    await store.delete(["a", "b", "c"])

    keys = [each.body.count(b"<Key>") for each in server.requests]
    assert keys == [3, 1]
    assert b"<Key>p/b</Key>" in server.requests[1].body


async def test_an_object_that_may_not_be_deleted_is_named(
    server: ScriptedServer, store: S3Storage
) -> None:
    """Success would be a lie."""
    denied = "<Error><Key>p/b</Key><Code>AccessDenied</Code></Error>"
    server.script = [reply(200, f"<DeleteResult>{denied}</DeleteResult>".encode())]

    with pytest.raises(AccessDeniedError, match="s3:DeleteObject") as caught:
        await store.delete(["a", "b"])

    assert caught.value.key == "b"


async def test_errors_show_no_secret(server: ScriptedServer, store: S3Storage) -> None:
    """Whatever S3 quotes from the request that it refuses."""
    quoted = "<StringToSign>AWS4 stuff</StringToSign><SignatureProvided>abc123"
    server.script = [
        refusal(403, "SignatureDoesNotMatch", more=f"{quoted}</SignatureProvided>")
    ]

    with pytest.raises(StorageError) as caught:
        await store.get("k")

    text = f"{caught.value} {caught.value!r} {caught.value.__cause__}"
    for secret in ("secretwren", "AWS4", "abc123"):
        assert secret not in text


async def _until(condition: Callable[[], bool]) -> None:
    """Wait for something that the server sees."""
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110  # nothing tells
            await anyio.sleep(0.001)
