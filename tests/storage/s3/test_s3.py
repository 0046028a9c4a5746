"""What is particular to S3: how it is opened, grants, foreign keys, and its doctor."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest

from wren.config import Settings
from wren.doctor import Diagnosable
from wren.errors import AccessDeniedError, ConfigurationError, StorageError
from wren.registry import open_storage as open_by_url
from wren.storage import s3_client
from wren.storage.location import Location
from wren.storage.parts import PART
from wren.storage.s3 import S3Storage, open_storage
from wren.storage.s3_connection import Connection
from wren.storage.s3_grants import grant as sign

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


@pytest.fixture
async def aws(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Connection]:
    """A connection to AWS itself, for what needs no request."""
    del s3_url
    for name in ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    connection = Connection(Location("my-bucket", "p/"), "us-east-1", Settings())
    yield connection
    await connection.aclose()


@pytest.fixture
async def on_aws(aws: Connection) -> AsyncIterator[S3Storage]:
    """A store there."""
    del aws  # for the environment
    store = open_storage("s3://my-bucket/p", Settings(region="us-east-1"))
    yield store
    await store.aclose()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("s3://", "s3://bucket/prefix"),
        ("s3://a", "no bucket can have the name"),
        ("s3://-bucket", "no bucket can have the name"),
        ("s3://buc$ket", "no bucket can have the name"),
        ("s3://bucket--eun1-az1--x-s3", "general purpose bucket"),
        ("s3://bucket/a/../b", "segment"),
        ("s3://user:secret@bucket", "expected"),
    ],
)
def test_a_url_that_cannot_be_is_refused(url: str, text: str) -> None:
    """When the store is opened, and without a request."""
    with pytest.raises(ConfigurationError, match=text) as caught:
        open_by_url(url, Settings())

    assert "secret" not in str(caught.value)


def test_opening_loads_no_library() -> None:
    """It takes up to a second to import, which nothing waits for but the first call."""
    code = (
        "import sys\n"
        "from wren.config import Settings\n"
        "from wren.registry import open_storage\n"
        "open_storage('s3://bucket/prefix', Settings())\n"
        "print({'aiobotocore', 'aiohttp', 'botocore'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout == "set()\n"


def test_a_missing_library_is_answered_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Although it is not imported yet."""

    def find_nothing(_: str) -> None:
        return None

    monkeypatch.setattr("wren.storage.s3.find_spec", find_nothing)

    with pytest.raises(ConfigurationError, match=r"pip install 'wren-cloud\[aws\]'"):
        open_by_url("s3://bucket", Settings())


def test_another_event_loop_is_told_so(s3_url: str) -> None:
    """The client library would fail somewhere inside."""

    async def use() -> None:
        store = open_storage(s3_url, Settings())
        with pytest.raises(ConfigurationError, match="needs asyncio"):
            await store.get("k")
        await store.aclose()

    anyio.run(use, backend="trio")


@pytest.mark.anyio
class TestOpening:
    """The client is made once, off the event loop, and goes when the store does."""

    async def test_once_for_all_first_calls(
        self, store: S3Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However many there are at the same time."""
        threads: list[threading.Thread] = []
        connect = s3_client.connect

        def connect_and_count(*arguments: Any) -> s3_client.Opened:
            threads.append(threading.current_thread())
            return connect(*arguments)

        monkeypatch.setattr("wren.storage.s3_client.connect", connect_and_count)

        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(store.put, f"k{number}", b"v")

        assert len(threads) == 1
        assert threads[0] is not threading.main_thread()

    async def test_closing_while_it_is_made_leaves_nothing(
        self, store: S3Storage
    ) -> None:
        """The call that wanted it finds the store closed, or is served before."""
        outcomes: list[object] = []

        async def use() -> None:
            try:
                await store.put("k", b"v")
            except StorageError as exc:
                outcomes.append(exc)

        async with anyio.create_task_group() as group:
            group.start_soon(use)
            await anyio.lowlevel.checkpoint()
            await store.aclose()

        with pytest.raises(StorageError, match="closed"):
            await store.get("k")
        assert all("closed" in str(each) for each in outcomes)

    async def test_many_sockets_and_kept_alive(
        self, store: S3Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A NAT gateway forgets a connection that is silent for 350 seconds."""
        made: list[socket.socket] = []
        make = s3_client.keep_alive_socket

        def make_and_keep(address: Any) -> socket.socket:
            made.append(make(address))
            return made[-1]

        monkeypatch.setattr("wren.storage.s3_client.keep_alive_socket", make_and_keep)

        async with anyio.create_task_group() as group:
            for number in range(64):
                group.start_soon(store.put, f"k{number}", bytes(100_000))

        assert len(made) > 10  # the client's own default
        for each in made:
            assert each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) < 350


@pytest.mark.anyio
class TestGrants:
    """A presigned URL, as AWS wants it."""

    async def test_the_host_is_the_buckets_own_in_its_region(
        self, on_aws: S3Storage
    ) -> None:
        """The global one redirects, which a worker does not follow."""
        grant = await on_aws.grant("a/é +", "GET", expires_in=60)

        url = urlsplit(grant.url)
        assert url.scheme == "https"
        assert url.netloc == "my-bucket.s3.us-east-1.amazonaws.com"
        assert url.path == "/p/a/%C3%A9%20%2B"

    @pytest.mark.parametrize(
        ("method", "if_absent", "signed"),
        [("GET", False, "host"), ("PUT", False, "host"),
         ("PUT", True, "host;if-none-match")],
    )  # fmt: skip
    async def test_the_condition_is_signed_and_nothing_else(
        self, on_aws: S3Storage, method: Any, if_absent: bool, signed: str
    ) -> None:
        """SigV2, botocore's default here, would leave the condition out."""
        grant = await on_aws.grant("k", method, expires_in=60, if_absent=if_absent)

        query = parse_qs(urlsplit(grant.url).query)
        assert query["X-Amz-SignedHeaders"] == [signed]
        assert dict(grant.headers) == ({"If-None-Match": "*"} if if_absent else {})

    async def test_no_grant_outlives_a_week(self, on_aws: S3Storage) -> None:
        """AWS refuses a longer one; ``expires`` tells the truth."""
        before = time.time()
        grant = await on_aws.grant("k", "GET", expires_in=1e9)

        week = 7 * 24 * 3600
        query = parse_qs(urlsplit(grant.url).query)
        assert query["X-Amz-Expires"] == [str(week)]
        assert before - 1 <= grant.expires - week <= time.time()

    async def test_a_short_grant_lasts_a_second(self, on_aws: S3Storage) -> None:
        """Signatures count in whole seconds."""
        grant = await on_aws.grant("k", "GET", expires_in=0.1)

        assert parse_qs(urlsplit(grant.url).query)["X-Amz-Expires"] == ["1"]

    @pytest.mark.parametrize(("left", "fails"), [(900, False), (0, True)])
    async def test_no_grant_outlives_its_credentials(
        self, aws: Connection, left: float, fails: bool
    ) -> None:
        """It would be refused although its own time has not passed."""
        opened = await aws.open()
        opened.credentials._expiry_time = datetime.now(UTC) + timedelta(seconds=left)

        if fails:
            with pytest.raises(AccessDeniedError, match="expired"):
                await sign(aws, "k", "GET", expires_in=3600, if_absent=False)
        else:
            grant = await sign(aws, "k", "GET", expires_in=3600, if_absent=False)
            assert grant.expires <= time.time() + left


@pytest.mark.anyio
async def test_on_aws_everything_is_checksummed(aws: Connection) -> None:
    """Elsewhere, servers exist that fail on it."""
    assert (await aws.open()).checksums


@pytest.mark.anyio
async def test_checksums_go_with_objects_and_with_parts(
    s3_url: str,
    bucket: Callable[..., Awaitable[Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on AWS: both are verified on arrival, and again when they are read."""
    monkeypatch.setattr("wren.storage.s3_client._AWS", re.compile(""))
    prefix = s3_url.partition("s3://wren/")[2]
    store = open_storage(s3_url, Settings())
    objects = {"whole": b"v", "parts": bytes(2 * PART + 1)}

    for key, data in objects.items():
        await store.put(key, data, if_absent=True)

        same = await store.get(key) == data
        assert same
        found = await bucket(
            "head_object", Key=f"{prefix}/{key}", ChecksumMode="ENABLED"
        )
        assert found["ChecksumCRC32"]
    await store.delete(objects)
    await store.aclose()


@pytest.mark.anyio
async def test_region_comes_from_the_setting_first(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then from AWS_REGION, which botocore does not read."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-2")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    regions: list[str] = []
    for settings in (Settings(region="eu-south-1"), Settings()):
        store = open_storage(s3_url, settings)
        grant = await store.grant("k", "GET", expires_in=60)
        credential = parse_qs(urlsplit(grant.url).query)["X-Amz-Credential"][0]
        regions.append(credential.split("/")[2])
        await store.aclose()

    assert regions == ["eu-south-1", "eu-north-1"]


@pytest.mark.anyio
async def test_long_object_by_concurrent_ranges(store: S3Storage) -> None:
    """Any part of it, across the borders of the ranges."""
    data = bytes(range(256)) * (3 * PART // 256) + b"end"
    await store.put("k", data)

    for start, stop in ((0, None), (5, None), (PART - 1, 2 * PART + 1), (7, len(data))):
        same = await store.get("k", start=start, stop=stop) == data[start:stop]
        assert same


@pytest.mark.anyio
async def test_what_wren_would_not_write_is_not_listed(
    s3_url: str, store: S3Storage, bucket: Callable[..., Awaitable[Any]]
) -> None:
    """S3's console makes such objects, and no method here could delete them."""
    prefix = s3_url.partition("s3://wren/")[2]
    for name in (f"{prefix}/", f"{prefix}/folder/", f"{prefix}/a//b", f"{prefix}x"):
        await bucket("put_object", Key=name, Body=b"")
    await store.put("folder/k", b"")

    assert [info.key async for info in store.list()] == ["folder/k"]


@pytest.mark.anyio
async def test_keys_that_xml_cannot_hold_are_deleted_too(store: S3Storage) -> None:
    """S3's document of what to delete would be malformed."""
    keys = ["a\ufffe", "b\uffff", "c"]
    for key in keys:
        await store.put(key, b"")

    await store.delete(keys)

    for key in keys:
        with pytest.raises(KeyError):
            await store.head(key)


@pytest.mark.anyio
async def test_diagnosis_of_a_bucket(s3_url: str) -> None:
    """Where it is, and what becomes of uploads that a crash has interrupted."""
    store = open_storage(s3_url, Settings())
    assert isinstance(store, Diagnosable)

    results = [result async for result in store.diagnose()]

    assert [(each.name, each.ok) for each in results] == [
        ("s3: bucket", True),
        ("s3: unfinished uploads", True),
    ]
    assert "us-east-1" in results[0].detail
    assert "AbortIncompleteMultipartUpload" in results[1].detail
    await store.aclose()


@pytest.mark.anyio
async def test_diagnosis_finds_the_lifecycle_rule(
    store: S3Storage, bucket: Callable[..., Awaitable[Any]]
) -> None:
    """Whoever has it need not be told to make it."""
    rule = {
        "ID": "parts",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3},
    }
    await bucket(
        "put_bucket_lifecycle_configuration", LifecycleConfiguration={"Rules": [rule]}
    )
    try:
        results = [result async for result in store.diagnose()]
    finally:
        await bucket("delete_bucket_lifecycle")

    assert results[1].detail == "a lifecycle rule, after 3 days"


@pytest.mark.anyio
@pytest.mark.usefixtures("s3_url")
async def test_diagnosis_of_an_absent_bucket() -> None:
    """A failure is a result, not an exception."""
    store = open_storage("s3://wren-no-such-bucket", Settings())

    (result,) = [result async for result in store.diagnose()]

    assert not result.ok
    assert "create the bucket" in result.detail
    assert result.fix
    await store.aclose()


@pytest.mark.anyio
async def test_two_loops_want_two_stores(s3_url: str) -> None:
    """A store belongs to the loop of its first call; each may have its own."""

    found: list[bytes] = []

    def use(key: str) -> None:
        async def once() -> None:
            store = open_storage(s3_url, Settings())
            await store.put(key, key.encode())
            found.append(await store.get(key))
            await store.aclose()

        asyncio.run(once())

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, use, "one")
        group.start_soon(anyio.to_thread.run_sync, use, "two")

    assert sorted(found) == [b"one", b"two"]
