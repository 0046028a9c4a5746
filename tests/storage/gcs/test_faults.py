"""What the store does when GCS, or the way to it, misbehaves."""

from __future__ import annotations

import json
from functools import partial
from urllib.parse import quote

import anyio
import pytest
from anyio import from_thread

from wren.conformance.fault_plan import Fault, FaultPlan
from wren.conformance.proxy import FaultProxy
from wren.errors import KeyExistsError, KeyNotFoundError, StorageError, TransientError
from wren.storage.gcs import GcsStorage
from wren.storage.parts import PART

pytestmark = pytest.mark.anyio

UPLOAD = "/upload/*uploadType=multipart*"
CHUNKS = "/upload/*upload_id=*"
DOWNLOAD = "/download/*"
CHUNK = 4 * 1024 * 1024
LARGE = bytes(range(256)) * (2 * CHUNK // 256) + b"end"  # three of them


@pytest.fixture
def store(
    proxy: FaultProxy, store: GcsStorage, monkeypatch: pytest.MonkeyPatch
) -> GcsStorage:
    """Sends all through the proxy: it was opened and has not connected yet."""
    assert proxy.url
    monkeypatch.setattr("wren.storage.gcs_uploads.CHUNK", CHUNK)
    return store


async def test_small_object_is_one_request_each_way(
    proxy: FaultProxy, store: GcsStorage
) -> None:
    """Not one to look and one to read: each costs money and a round trip."""
    await store.put("k", b"v")
    assert await store.get("k") == b"v"
    assert await store.get("k", start=1) == b""
    await store.put("l", bytes(PART))
    assert len(await store.get("l")) == PART

    assert proxy.count("POST", UPLOAD) == 2
    assert proxy.count("GET", DOWNLOAD) == 3
    assert len(proxy.requests) == 5


async def test_many_deletes_are_few_requests(
    proxy: FaultProxy, store: GcsStorage
) -> None:
    """100 in each, whether or not the objects exist."""
    await store.delete(f"k{number}" for number in range(201))

    assert proxy.count("POST", "/batch/*") == 2
    assert proxy.count("DELETE") == 1
    assert len(proxy.requests) == 3


async def test_conditional_put_whose_answer_is_lost_knows_its_object(
    proxy: FaultProxy, store: GcsStorage
) -> None:
    """412 is about the first request's success: the nonce says so."""
    proxy.plan = FaultPlan(Fault("POST", "lose", key=UPLOAD))

    await store.put("k", b"v", if_absent=True)

    assert await store.get("k") == b"v"
    assert proxy.count("POST", UPLOAD) == 2


async def test_conditional_put_sees_the_object_of_somebody_else(
    proxy: FaultProxy, store: GcsStorage
) -> None:
    """The answer is lost, and it was one of failure."""
    await store.put("k", b"theirs", if_absent=True)
    proxy.plan = FaultPlan(Fault("POST", "lose", key=UPLOAD))

    with pytest.raises(KeyExistsError) as caught:
        await store.put("k", b"v", if_absent=True)

    assert caught.value.key == "k"
    assert await store.get("k") == b"theirs"


async def test_conditional_put_begins_again_when_what_was_in_the_way_is_gone(
    proxy: FaultProxy, store: GcsStorage
) -> None:
    """Deleted between the refusal and the look at the nonce."""
    refusal = b'{"error": {"message": "said", "errors": []}}'
    proxy.plan = FaultPlan(
        Fault("POST", "status", key=UPLOAD, status=412, body=refusal)
    )

    await store.put("k", b"v", if_absent=True)

    assert await store.get("k") == b"v"
    assert proxy.count("POST", UPLOAD) == 2


async def test_large_conditional_put_whose_answer_is_lost_knows_its_object(
    proxy: FaultProxy, store: GcsStorage
) -> None:
    """The session that has ended is asked, and says that the object is there."""
    proxy.plan = FaultPlan(Fault("PUT", "lose", key=CHUNKS, first=3))

    await store.put("k", LARGE, if_absent=True)
    with pytest.raises(KeyExistsError):
        await store.put("k", LARGE, if_absent=True)

    assert await store.get("k") == LARGE


@pytest.mark.parametrize("action", ["refuse", "lose", "truncate"])
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_large_put_goes_on_where_it_was(
    action: str, number: int, proxy: FaultProxy, store: GcsStorage
) -> None:
    """Whether or not a chunk has arrived, it is there once."""
    proxy.plan = FaultPlan(Fault("PUT", action, key=CHUNKS, first=number))

    await store.put("k", LARGE)

    same = await store.get("k") == LARGE
    assert same
    assert proxy.plan.fired
    assert proxy.count("POST", "/upload/*uploadType=resumable*") == 1


async def test_cancelled_large_put_ends_its_session(
    proxy: FaultProxy, store: GcsStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent would be kept for a week, and might be finished by a request."""
    pieces = 0
    check_cancelled = from_thread.check_cancelled

    async with anyio.create_task_group() as group:

        def check() -> None:
            nonlocal pieces
            pieces += 1
            if pieces == 6:  # in the middle of the second chunk
                from_thread.run_sync(group.cancel_scope.cancel)
            check_cancelled()

        monkeypatch.setattr(from_thread, "check_cancelled", check)
        group.start_soon(partial(store.put, "k", LARGE))

    assert pieces == 6
    assert proxy.count("PUT", CHUNKS) == 2
    assert proxy.count("DELETE", CHUNKS) == 1
    with pytest.raises(KeyNotFoundError):
        await store.head("k")


async def test_failed_large_put_ends_its_session(
    proxy: FaultProxy, store: GcsStorage
) -> None:
    """Also when the service gives it up."""
    proxy.plan = FaultPlan(Fault("PUT", "status", key=CHUNKS, status=410))

    with pytest.raises(StorageError, match="session has ended"):
        await store.put("k", LARGE)

    assert proxy.count("DELETE", CHUNKS) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_busy_service_is_asked_again(
    status: int, proxy: FaultProxy, store: GcsStorage
) -> None:
    """Whatever the call was."""
    page = b"<html>busy</html>"
    proxy.plan = FaultPlan(
        Fault("POST", "status", key=UPLOAD, status=status, body=page),
        Fault("GET", "status", key=DOWNLOAD, status=status, body=page),
        Fault("GET", "status", key="/storage/v1/b/wren/o/*", status=status),
        Fault("GET", "status", key="/storage/v1/b/wren/o[?]*", status=status),
        Fault("POST", "status", key="/batch/*", status=status),
        Fault("DELETE", "status", status=status),
    )

    with proxy.plan:
        await store.put("k", b"v")
        assert await store.get("k") == b"v"
        assert (await store.head("k")).size == 1
        assert [info.key async for info in store.list()] == ["k"]
        await store.delete(["k", "l"])
        await store.delete(["k"])


async def test_service_that_stays_busy_is_a_transient_error(
    proxy: FaultProxy, store: GcsStorage
) -> None:
    """After six tries."""
    proxy.plan = FaultPlan(Fault("GET", "status", times=20))

    with pytest.raises(TransientError, match="503") as caught:
        await store.get("k")

    assert caught.value.key == "k"
    assert proxy.count("GET") == 6


@pytest.mark.parametrize(
    "action", ["refuse", "lose", "truncate", "cut", "flip", "empty", "shorten"]
)
@pytest.mark.parametrize("size", [1000, 2 * PART + 5])
async def test_damaged_content_is_read_again(
    action: str, size: int, proxy: FaultProxy, store: GcsStorage
) -> None:
    """A short or altered body is never handed out, in one request or in several."""
    data = bytes(number % 251 for number in range(size))
    await store.put("k", data)
    proxy.plan = FaultPlan(Fault("GET", action, key=DOWNLOAD, times=2))

    with proxy.plan:
        same = await store.get("k") == data

    assert same


async def test_object_that_is_replaced_while_it_is_read_is_read_again(
    proxy: FaultProxy, store: GcsStorage
) -> None:
    """Ranges of two objects must not be put together."""
    await store.put("k", bytes(2 * PART))
    refusal = b'{"error": {"message": "said", "errors": []}}'
    pinned = "/download/*ifGenerationMatch*"
    proxy.plan = FaultPlan(Fault("GET", "status", key=pinned, status=412, body=refusal))

    assert await store.get("k") == bytes(2 * PART)

    assert proxy.count("GET", DOWNLOAD) == 4


async def test_listing_goes_on_after_a_cancelled_page(
    proxy: FaultProxy, store: GcsStorage
) -> None:
    """What the thread that was left reads later must not count as read."""
    for key in ("a", "b"):
        await store.put(key, b"")
    proxy.plan = FaultPlan(Fault("GET", "delay", key="*/o[?]*", seconds=0.3))
    listing = store.list()

    async with anyio.create_task_group() as group:
        group.start_soon(anext, listing)
        while not proxy.count("GET"):  # noqa: ASYNC110  # in another thread
            await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    while proxy.forwarded < 3:  # noqa: ASYNC110
        await anyio.sleep(0.01)
    await anyio.sleep(0.1)  # and its answer comes

    assert [info.key async for info in listing] == ["a", "b"]


async def test_batch_tries_again_what_was_refused_in_it(
    proxy: FaultProxy, store: GcsStorage
) -> None:
    """One call of a batch may fail, and the batch succeed."""
    for key in ("a", "b", "c"):
        await store.put(key, b"")
    parts = [(204, ""), (503, '{"error": {}}'), (404, _said("No such object"))]
    answer = "".join(
        "--x\r\nContent-Type: application/http\r\n\r\n"
        f"HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\n\r\n{body}\r\n"
        for status, body in parts
    )
    proxy.plan = FaultPlan(
        Fault(
            "POST",
            "status",
            key="/batch/*",
            status=200,
            headers={"Content-Type": "multipart/mixed; boundary=x"},
            body=f"{answer}--x--\r\n".encode(),
        )
    )

    await store.delete(["a", "b", "c"])

    assert proxy.count("DELETE", f"*{quote('/b', safe='')}*") == 1
    assert [info.key async for info in store.list()] == ["a", "c"]


def _said(message: str) -> str:
    return json.dumps({"error": {"message": message}})
