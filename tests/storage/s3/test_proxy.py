"""The way to a real server goes wrong: what was stored, and what was asked for."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from wren.config import Settings
from wren.conformance.fault_plan import Fault, FaultPlan
from wren.conformance.proxy import FaultProxy
from wren.errors import KeyExistsError, StorageError, TransientError
from wren.storage import s3_client
from wren.storage.parts import PART
from wren.storage.s3 import S3Storage, open_storage

pytestmark = pytest.mark.anyio

LONG = bytes(range(256)) * (2 * PART // 256) + b"end"


@pytest.fixture
async def proxy(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FaultProxy]:
    """Stands between the store and the server."""
    del s3_url  # for the environment
    monkeypatch.setattr("wren.backoff._FIRST", 0.0)
    monkeypatch.setattr(s3_client, "IDLE_SECONDS", 2.0)
    async with FaultProxy(os.environ["AWS_ENDPOINT_URL_S3"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        yield proxy


@pytest.fixture
async def store(s3_url: str, proxy: FaultProxy) -> AsyncIterator[S3Storage]:
    """A store behind the proxy."""
    del proxy  # for the environment
    store = open_storage(s3_url, Settings())
    yield store
    await store.aclose()


@pytest.mark.parametrize(
    "data", [b"v", bytes(2 * 1024 * 1024)], ids=["short", "sent in pieces"]
)
@pytest.mark.parametrize("times", [1, 2])
async def test_lost_answer_to_a_conditional_put_is_no_loss(
    store: S3Storage, proxy: FaultProxy, data: bytes, times: int
) -> None:
    """The object is the writer's own, however often it was told that it exists."""
    with FaultPlan(Fault("PUT", "lose", times=times)) as plan:
        proxy.play(plan)
        await store.put("k", data, if_absent=True)

    same = await store.get("k") == data
    assert same
    with pytest.raises(KeyExistsError):
        await store.put("k", b"other", if_absent=True)


async def test_doubled_conditional_put_is_no_loss(
    store: S3Storage, proxy: FaultProxy
) -> None:
    """As a proxy or a library may do that sends a request again by itself."""
    with FaultPlan(Fault("PUT", "duplicate")) as plan:
        proxy.play(plan)
        await store.put("k", b"v", if_absent=True)

    assert await store.get("k") == b"v"


async def test_lost_answer_to_a_completion_is_no_loss(
    store: S3Storage,
    proxy: FaultProxy,
    uploads_left: Callable[[], Awaitable[int]],
) -> None:
    """Nor does it leave parts behind."""
    with FaultPlan(Fault("POST", "lose", key="*uploadId=*")) as plan:
        proxy.play(plan)
        await store.put("k", LONG, if_absent=True)

    same = await store.get("k") == LONG
    assert same
    assert await uploads_left() == 0


@pytest.mark.parametrize("action", ["refuse", "lose", "status"])
async def test_parts_are_sent_again_one_by_one(
    store: S3Storage, proxy: FaultProxy, action: str
) -> None:
    """What has arrived is not sent twice."""
    with FaultPlan(Fault("PUT", action, key="*partNumber=2*")) as plan:
        proxy.play(plan)
        await store.put("k", LONG)

    same = await store.get("k") == LONG
    assert same
    assert proxy.count("PUT", "*partNumber=1*") == 1
    assert proxy.count("PUT", "*partNumber=3*") == 1


async def test_failed_upload_leaves_nothing(
    store: S3Storage,
    proxy: FaultProxy,
    uploads_left: Callable[[], Awaitable[int]],
) -> None:
    """The other parts are removed."""
    proxy.play(FaultPlan(Fault("PUT", "status", key="*partNumber=2*", times=99)))

    with pytest.raises(TransientError):
        await store.put("k", LONG)

    assert await uploads_left() == 0
    with pytest.raises(KeyError):
        await store.head("k")


@pytest.mark.parametrize("action", ["truncate", "cut", "stall"])
@pytest.mark.parametrize("data", [b"short", LONG], ids=["short", "long"])
async def test_interrupted_body_is_read_again(
    store: S3Storage, proxy: FaultProxy, action: str, data: bytes
) -> None:
    """By the range that is missing, and never returned as it is."""
    await store.put("k", data)

    key = "*" if len(data) <= PART else "*/k"
    first = 1 if len(data) <= PART else 3
    with FaultPlan(Fault("GET", action, key=key, first=first)) as plan:
        proxy.play(plan)
        found = await store.get("k")

    same = found == data
    assert same


async def test_denial_is_not_asked_again(store: S3Storage, proxy: FaultProxy) -> None:
    """It would be denied again, and may lock somebody out."""
    body = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
    proxy.play(FaultPlan(Fault("GET", "status", status=403, body=body, times=9)))

    with pytest.raises(StorageError, match="s3:GetObject"):
        await store.get("k")

    assert proxy.count("GET") == 1


async def test_one_request_for_each_short_object(
    store: S3Storage, proxy: FaultProxy
) -> None:
    """Each is paid for; only a conflict costs another."""
    await store.put("a", b"v")
    await store.put("b", bytes(PART), if_absent=True)
    await store.get("a")
    await store.get("b")
    await store.head("a")
    [info async for info in store.list()]
    await store.grant("a", "GET", expires_in=60)
    await store.delete(["a", "b"])

    methods = [request.method for request in proxy.requests]
    assert methods == ["PUT", "PUT", "GET", "GET", "HEAD", "GET", "POST"]
