"""What the store does when Azure, or the way to it, misbehaves.

The server here plays a script: Azure does these things rarely, Azurite never.
"""

from __future__ import annotations

import logging
import re
import socket
import traceback
from collections.abc import AsyncGenerator, Callable
from email.utils import formatdate
from functools import partial
from time import time

import anyio
import pytest

from wren.config import Settings
from wren.conformance import scripted
from wren.conformance.scripted import CLOSE, RESET, STALL, Request, ScriptedServer
from wren.errors import (
    AccessDeniedError,
    KeyExistsError,
    KeyNotFoundError,
    StorageError,
    TransientError,
)
from wren.storage.azure import AzureStorage, open_storage
from wren.storage.azure_client import SINGLE_PUT
from wren.storage.azure_login import find_login
from wren.storage.parts import PART

pytestmark = pytest.mark.anyio

NONCE = "x-ms-meta-wren_nonce"
DATE = "Wed, 25 Nov 2026 10:00:00 GMT"
reply = partial(scripted.reply, ETag='"e"', Last_Modified=DATE)


def refusal(status: int, code: str, **headers: str) -> bytes:
    """Return an error as Azure words it, which quotes the request."""
    text = f"<Error><Code>{code}</Code><Message>you sent SECRET</Message></Error>"
    return reply(
        status,
        text.encode(),
        x_ms_error_code=code,
        Content_Type="application/xml",
        **headers,
    )


def described(nonce: str) -> bytes:
    """Return the answer to a HEAD, for an object with that nonce."""
    return reply(200).replace(b"\r\n\r\n", f"\r\n{NONCE}: {nonce}\r\n\r\n".encode())


def ranged(data: bytes, *, total: int, start: int = 0, etag: str = '"e"') -> bytes:
    """Return the answer to a GET of a range."""
    last = start + len(data) - 1
    return reply(206, data, ETag=etag, Content_Range=f"bytes {start}-{last}/{total}")


def served(data: bytes) -> Callable[[Request], bytes]:
    """Return what answers any GET of a range of this object."""

    def answer(request: Request) -> bytes:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers["x-ms-range"])
        assert found
        start, last = map(int, found.groups())
        return ranged(data[start : last + 1], total=len(data), start=start)

    return answer


def page(names: list[str], marker: str = "") -> bytes:
    """Return one page of a listing."""
    blobs = "".join(
        f"<Blob><Name>{name}</Name><Properties><Last-Modified>{DATE}</Last-Modified>"
        "<Etag>e</Etag><Content-Length>1</Content-Length></Properties></Blob>"
        for name in names
    )
    text = (
        '<?xml version="1.0" encoding="utf-8"?><EnumerationResults>'
        f"<Blobs>{blobs}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
    )
    return reply(200, b"\xef\xbb\xbf" + text.encode(), Content_Type="application/xml")


def batch(*answers: tuple[int, str]) -> bytes:
    """Return the answer to a batch of deletions, part by part."""
    parts = "".join(
        f"--b\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n"
        f"HTTP/1.1 {status} Status\r\nx-ms-error-code: {code}\r\n\r\n\r\n"
        for number, (status, code) in enumerate(answers)
    )
    kind = "multipart/mixed; boundary=b"
    return reply(202, f"{parts}--b--\r\n".encode(), Content_Type=kind)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[ScriptedServer]:
    """A server; the environment of the test leads to it."""
    monkeypatch.setattr("wren.backoff._FIRST", 0.0)  # no pauses
    async with ScriptedServer() as played:
        monkeypatch.setenv(
            "AZURE_STORAGE_CONNECTION_STRING",
            f"AccountName=acc;AccountKey=a2V5;BlobEndpoint={played.url}/acc",
        )
        yield played


@pytest.fixture
async def store(server: ScriptedServer) -> AsyncGenerator[AzureStorage]:
    """A store on the server."""
    del server  # only its environment is needed
    opened = open_storage("az://acc/box/p", Settings())
    yield opened
    await opened.aclose()


# --- conditional writes -------------------------------------------------------------


async def test_conditional_put_whose_answer_is_lost_knows_its_object(
    server: ScriptedServer, store: AzureStorage
) -> None:
    """The refusal is about the first request's success: the nonce says so."""
    server.script = [
        CLOSE,
        CLOSE,  # the client may send a second time by itself
        refusal(409, "BlobAlreadyExists"),
        lambda _: described(server.requests[0].headers[NONCE]),
    ]

    await store.put("k", b"v", if_absent=True)

    puts = server.requests[:-1]
    assert server.sent() == ["PUT"] * len(puts) + ["HEAD"]
    assert {each.headers["if-none-match"] for each in puts} == {"*"}
    assert len({each.headers[NONCE] for each in puts}) == 1


@pytest.mark.parametrize("status", [409, 412])
async def test_conditional_put_sees_the_object_of_somebody_else(
    server: ScriptedServer, store: AzureStorage, status: int
) -> None:
    """Another nonce, none, or nothing left: it is not ours."""
    code = {409: "BlobAlreadyExists", 412: "ConditionNotMet"}[status]
    for found in (described("other"), reply(200), reply(404)):
        server.script = [refusal(status, code), found]

        with pytest.raises(KeyExistsError) as caught:
            await store.put("k", b"v", if_absent=True)

        assert (caught.value.store, caught.value.key) == ("azure", "k")


async def test_each_conditional_put_has_its_own_nonce(
    server: ScriptedServer, store: AzureStorage
) -> None:
    """Otherwise a writer would take its earlier object for the one it just wrote."""
    server.script = [reply(201), reply(201)]

    await store.put("a", b"v", if_absent=True)
    await store.put("b", b"v", if_absent=True)

    assert len({each.headers[NONCE] for each in server.requests}) == 2


async def test_names_of_metadata_are_identifiers(
    server: ScriptedServer, store: AzureStorage
) -> None:
    """Azure refuses any other, though Azurite does not."""
    server.script = [reply(201)]

    await store.put("a", b"v", if_absent=True)

    prefix = "x-ms-meta-"
    names = [name for name in server.requests[0].headers if name.startswith(prefix)]
    assert names
    assert all(name.removeprefix(prefix).isidentifier() for name in names)


async def test_a_large_conditional_put_knows_its_object_too(
    server: ScriptedServer, store: AzureStorage
) -> None:
    """What is conditional is the commit; blocks are not."""
    commits: list[Request] = []

    def answer(request: Request) -> bytes:
        if request.method == "HEAD":
            return described(commits[0].headers[NONCE])
        if "comp=blocklist" not in request.target:
            assert "if-none-match" not in request.headers
            return reply(201)
        commits.append(request)
        return CLOSE if len(commits) < 3 else refusal(409, "BlobAlreadyExists")

    server.answer = answer

    await store.put("k", bytes(SINGLE_PUT + 1), if_absent=True)

    assert {each.headers["if-none-match"] for each in commits} == {"*"}
    assert server.sent().count("HEAD") == 1


# --- what is tried again, and by whom -----------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        refusal(503, "ServerBusy"),
        refusal(500, "InternalError"),
        refusal(500, "OperationTimedOut"),
        refusal(400, "Md5Mismatch"),
        reply(429),
        reply(502, b"<html>bad gateway</html>"),
        reply(504),
        RESET,
    ],
    ids=lambda fault: fault.split(b"\r\n")[0].decode(),
)
async def test_what_passes_is_tried_again(
    server: ScriptedServer, store: AzureStorage, fault: bytes
) -> None:
    """Once for each fault: the library does not try by itself."""
    server.script = [fault, fault, reply(201)]
    if fault == RESET:
        server.script.insert(0, fault)  # aiohttp does, on a connection used before

    await store.put("k", b"v")

    assert [each.body for each in server.requests[-3:]] == [b"v"] * 3


async def test_a_lasting_fault_is_transient(
    server: ScriptedServer, store: AzureStorage
) -> None:
    """After six tries, and with the service's word for it."""
    server.answer = lambda _: refusal(503, "ServerBusy")

    with pytest.raises(TransientError, match="503 ServerBusy"):
        await store.get("k")

    assert len(server.requests) == 6


@pytest.mark.parametrize("end", [CLOSE, RESET], ids=["closed", "reset"])
async def test_a_body_cut_short_is_read_again(
    server: ScriptedServer, store: AzureStorage, end: bytes
) -> None:
    """It never comes back as it is; the library's own three tries are not used."""
    whole = ranged(b"0123456789", total=10)
    server.script = [whole[:-4] + end, whole]

    assert await store.get("k") == b"0123456789"

    assert len(server.requests) == 2


async def test_an_answer_of_another_length_is_read_again(
    server: ScriptedServer, store: AzureStorage
) -> None:
    """Than its own range: so a broken cache would answer."""
    lying = reply(206, b"0123456789", Content_Range="bytes 0-3/4")
    server.script = [lying, ranged(b"0123456789", total=10)]

    assert await store.get("k") == b"0123456789"


async def test_silence_ends_a_try(
    server: ScriptedServer, store: AzureStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is open and dead must not hang the job."""
    monkeypatch.setattr("wren.storage.azure_transport.IDLE_SECONDS", 0.2)
    server.script = [STALL, ranged(b"v", total=1)]

    assert await store.get("k") == b"v"


@pytest.mark.parametrize("size", [100 * 1024, SINGLE_PUT])
async def test_a_server_that_takes_nothing_ends_a_try(
    server: ScriptedServer,
    store: AzureStorage,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    """The limit on silence holds while a body is sent, too."""
    monkeypatch.setattr("wren.storage.azure_transport.IDLE_SECONDS", 0.2)
    monkeypatch.setattr("wren.storage.requests._TRIES", 1)
    server.reading.clear()

    with anyio.fail_after(20):
        with pytest.raises(TransientError):
            await store.put("k", bytes(size))

    assert not server.requests


async def test_a_slow_line_is_not_silent(
    server: ScriptedServer, store: AzureStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A body may take many times as long as the longest silence."""
    monkeypatch.setattr("wren.storage.azure_transport.IDLE_SECONDS", 1.0)
    server.pause = 0.04
    server.script = [reply(201)]

    await store.put("k", bytes(12 * 1024 * 1024))  # in two seconds

    assert len(server.requests) == 1


# --- large objects ------------------------------------------------------------------


async def test_ranges_are_of_one_version(
    server: ScriptedServer, store: AzureStorage
) -> None:
    """What was replaced in between is read from its beginning again."""
    old, new = bytes(2 * PART + 1), b"\x01" * (PART + 1)
    replaced = False

    def answer(request: Request) -> bytes:
        nonlocal replaced
        if "if-match" not in request.headers:
            return served(new if replaced else old)(request)
        assert request.headers["if-match"] == '"e"'
        if not replaced:
            replaced = True
            return refusal(412, "ConditionNotMet")
        return served(new)(request)

    server.answer = answer

    same = await store.get("k") == new

    assert same


async def test_an_object_that_never_rests_is_transient(
    server: ScriptedServer, store: AzureStorage
) -> None:
    """Six beginnings are enough."""
    server.answer = lambda request: (
        refusal(412, "ConditionNotMet")
        if "if-match" in request.headers
        else served(bytes(PART + 1))(request)
    )

    with pytest.raises(TransientError, match="6 times") as caught:
        await store.get("k")

    assert caught.value.key == "k"
    assert len(server.requests) == 12


async def test_blocks_that_another_commit_dropped_are_sent_again(
    server: ScriptedServer, store: AzureStorage
) -> None:
    """Under new names, so that nobody's blocks are taken for them."""
    lists: list[bytes] = []
    blocks: list[str] = []

    def answer(request: Request) -> bytes:
        if "comp=blocklist" not in request.target:
            blocks.append(request.target)
            return reply(201)
        lists.append(request.body)
        return reply(201) if len(lists) == 2 else refusal(400, "InvalidBlockList")

    server.answer = answer

    await store.put("k", bytes(SINGLE_PUT + 1))

    assert len(set(blocks)) == 6
    assert lists[0] != lists[1]
    assert [each.count(b"<Latest>") for each in lists] == [3, 3]


async def test_cancelled_upload_commits_nothing(
    server: ScriptedServer, store: AzureStorage
) -> None:
    """Blocks alone are invisible; the service drops them."""
    server.answer = lambda _: STALL

    async with anyio.create_task_group() as group:
        group.start_soon(store.put, "k", bytes(SINGLE_PUT + 1))
        await server.arrived.wait()
        group.cancel_scope.cancel()
    server.answer = lambda _: reply(201)
    await store.put("other", b"")

    assert not any("comp=blocklist" in each.target for each in server.requests)


# --- deletions ----------------------------------------------------------------------


async def test_each_item_of_a_batch_is_looked_at(
    server: ScriptedServer, store: AzureStorage
) -> None:
    """A batch succeeds as a whole even if nothing in it does."""
    server.script = [batch((202, ""), (403, "AuthorizationPermissionMismatch"))]

    with pytest.raises(AccessDeniedError, match="racwdl"):
        await store.delete(["a", "b"])


async def test_an_item_that_is_not_there_is_no_failure(
    server: ScriptedServer, store: AzureStorage
) -> None:
    """But a container that is not there is one."""
    server.script = [
        batch((404, "BlobNotFound"), (202, "")),
        batch((404, "ContainerNotFound"), (404, "ContainerNotFound")),
    ]

    await store.delete(["a", "b"])
    with pytest.raises(StorageError, match="az storage container create"):
        await store.delete(["a", "b"])


async def test_a_busy_item_of_a_batch_is_tried_again(
    server: ScriptedServer, store: AzureStorage
) -> None:
    """With the whole batch: those that are gone are no failure then."""
    server.script = [
        batch((202, ""), (503, "ServerBusy")),
        batch((404, "BlobNotFound"), (202, "")),
    ]

    await store.delete(["a", "b"])

    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "refused",
    [refusal(400, "InvalidInput"), refusal(501, "NotImplemented"), batch((400, ""))],
    ids=["400", "501", "one-for-all"],
)
async def test_where_batches_are_refused_items_go_one_by_one(
    server: ScriptedServer, store: AzureStorage, refused: bytes
) -> None:
    """And batches are not tried again."""
    server.answer = lambda request: refused if request.method == "POST" else reply(202)

    await store.delete(["a", "b"])
    await store.delete(["a", "b"])

    assert sorted(server.sent()) == ["DELETE"] * 4 + ["POST"]


# --- listings -----------------------------------------------------------------------


async def test_a_page_that_failed_is_asked_for_again(
    server: ScriptedServer, store: AzureStorage
) -> None:
    """The same one: nothing is left out, and nothing comes twice."""
    server.script = [
        page(["p/a"], "2"),
        refusal(500, "InternalError"),
        page([], "3"),  # Azure may do that
        page(["p/b"]),
    ]

    assert [info.key async for info in store.list()] == ["a", "b"]

    asked = ["marker" in each.target for each in server.requests]
    assert asked == [False, True, True, True]
    assert "marker=2" in server.requests[2].target


async def test_an_object_overwritten_between_pages_comes_once(
    server: ScriptedServer, store: AzureStorage
) -> None:
    """Azure may begin a page with what ended the one before."""
    server.script = [page(["p/a", "p/b"], "2"), page(["p/b", "p/c"])]

    assert [info.key async for info in store.list()] == ["a", "b", "c"]


async def test_another_order_is_an_error(
    server: ScriptedServer, store: AzureStorage
) -> None:
    """As of accounts with a hierarchical namespace: no listing would be right."""
    server.script = [page(["p/a/b", "p/a-b"])]

    with pytest.raises(StorageError, match="hierarchical"):
        async for _ in store.list():
            pass


async def test_names_that_are_no_keys_are_left_out(
    server: ScriptedServer, store: AzureStorage
) -> None:
    """Somebody else wrote them, and no call could reach them."""
    names = ["p/", "p/a//b", "p/a/", "p/a[2", "p/b[0c", "p/b\\"]
    server.script = [page(names)]

    assert [info.key async for info in store.list()] == ["b[c"]


async def test_a_name_that_xml_cannot_hold_is_decoded(
    server: ScriptedServer, store: AzureStorage
) -> None:
    """Azure marks it, and quotes it as in a URL."""
    answer = page(["p/a%EF%BF%BE"]).replace(b"<Name>", b'<Name Encoded="true">')
    body = answer.partition(b"\r\n\r\n")[2]
    server.script = [reply(200, body, Content_Type="application/xml")]

    assert [info.key async for info in store.list()] == ["a\ufffe"]


# --- refusals -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "kind", "said"),
    [
        (404, "BlobNotFound", KeyNotFoundError, "404 BlobNotFound"),
        (404, "", KeyNotFoundError, "404"),
        (404, "ContainerNotFound", StorageError, "--account-name acc --name box"),
        (409, "ContainerBeingDeleted", StorageError, "WREN_STORAGE"),
        (400, "InvalidResourceName", StorageError, "WREN_STORAGE.*box"),
        (403, "AuthenticationFailed", AccessDeniedError, "_CONNECTION_STRING is not"),
        (401, "InvalidAuthenticationInfo", AccessDeniedError, "is not accepted"),
        (403, "AuthorizationPermissionMismatch", AccessDeniedError, "Contributor.*acc"),
        (403, "AuthorizationFailure", AccessDeniedError, "Contributor.*network"),
        (403, "KeyBasedAuthenticationNotPermitted", AccessDeniedError, "az login"),
        (403, "AccountIsDisabled", AccessDeniedError, "acc is disabled"),
        (403, "NeverHeardOf", AccessDeniedError, "NeverHeardOf.*_CONNECTION_STRING"),
        (403, "", AccessDeniedError, "HTTP 403"),
        (400, "InvalidHeaderValue", StorageError, "skipApiVersionCheck"),
        (409, "BlobArchived", StorageError, "archive"),
        (418, "", StorageError, "HTTP 418"),
    ],
)
async def test_a_refusal_says_what_to_change(
    server: ScriptedServer,
    store: AzureStorage,
    status: int,
    code: str,
    kind: type[StorageError],
    said: str,
) -> None:
    """Asked once; of what the service says only its code is repeated."""
    server.script = [refusal(status, code) if code else reply(status)]

    with pytest.raises(StorageError, match=said) as caught:
        await store.get("k")

    assert type(caught.value) is kind
    assert (caught.value.store, caught.value.key) == ("azure", "k")
    assert caught.value.__cause__ is not None
    assert "SECRET" not in str(caught.value)
    assert len(server.requests) == 1


async def test_a_head_is_refused_in_the_same_words(
    server: ScriptedServer, store: AzureStorage
) -> None:
    """Its answer has no body, but a header."""
    lost = reply(404, x_ms_error_code="ContainerNotFound")
    server.script = [lost, lost, reply(404, x_ms_error_code="BlobNotFound")]

    with pytest.raises(StorageError, match="az storage container create"):
        await store.head("k")
    with pytest.raises(StorageError, match="az storage container create"):
        await store.get("k", start=3, stop=3)
    with pytest.raises(KeyNotFoundError):
        await store.head("k")


@pytest.mark.parametrize(("ahead", "said"), [(1000, "slow"), (-1000, "fast")])
async def test_a_wrong_clock_is_blamed(
    server: ScriptedServer, store: AzureStorage, ahead: float, said: str
) -> None:
    """Azure says the same about a wrong key, so its own clock is compared."""
    date = formatdate(time() + ahead, usegmt=True)
    server.script = [refusal(403, "AuthenticationFailed", Date=date)]

    with pytest.raises(AccessDeniedError, match=f"clock is .* s {said}: set it"):
        await store.get("k")


async def test_nobody_there_is_transient(
    monkeypatch: pytest.MonkeyPatch, server: ScriptedServer
) -> None:
    """A refused connection is worth six tries; the error says where to."""
    del server  # only its lack of pauses is needed
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        monkeypatch.setenv(
            "AZURE_STORAGE_CONNECTION_STRING",
            f"AccountName=acc;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:{port}/acc",
        )
        store = open_storage("az://acc/box", Settings())

        with pytest.raises(TransientError, match=f"127.0.0.1:{port}.*Connect"):
            await store.get("k")

        await store.aclose()


async def test_no_secret_is_told(
    monkeypatch: pytest.MonkeyPatch,
    server: ScriptedServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither in errors, with all their causes, nor in the library's own log."""
    given = "sv=2026-02-06&sp=rl&sig=CANARYSIG%3D"
    caplog.set_level(logging.DEBUG)
    endpoint = f"BlobEndpoint={server.url}/acc"
    connection = f"AccountName=acc;{endpoint};SharedAccessSignature={given}"
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
    store = open_storage("az://acc/box", Settings())
    server.answer = lambda _: refusal(403, "AuthenticationFailed")

    with pytest.raises(AccessDeniedError) as caught:
        await store.get("k")
    with pytest.raises(AccessDeniedError):
        await store.delete(["a", "b"])
    await store.aclose()

    assert "CANARYSIG" in server.requests[0].target
    shown = "".join(traceback.format_exception(caught.value))
    assert "CANARYSIG" not in shown + repr(vars(caught.value)) + caplog.text
    assert "CANARYSIG" not in repr(find_login("acc"))
