"""What users read when their credentials, their bucket or their way to it is wrong."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from wren.config import Settings
from wren.errors import (
    AccessDeniedError,
    KeyNotFoundError,
    StorageError,
    TransientError,
)
from wren.storage.location import Location
from wren.storage.s3 import S3Storage, open_storage
from wren.storage.s3_errors import explained

PLACE = Location("bucket", "p/")


@asynccontextmanager
async def _opened(url: str) -> AsyncGenerator[S3Storage]:
    store = open_storage(url, Settings())
    try:
        yield store
    finally:
        await store.aclose()


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (
            boto.NoCredentialsError(),
            AccessDeniedError,
            "AWS_PROFILE, or AWS_ACCESS_KEY",
        ),
        (
            boto.PartialCredentialsError(provider="env", cred_var="AWS_SECRET"),
            AccessDeniedError,
            "half of the credentials",
        ),
        (boto.ProfileNotFound(profile="p"), AccessDeniedError, "AWS_PROFILE"),
        (boto.UnauthorizedSSOTokenError(), AccessDeniedError, "aws sso login"),
        (
            boto.TokenRetrievalError(provider="sso", error_msg="token=s3cr3t"),
            AccessDeniedError,
            "aws sso login",
        ),
        (
            boto.CredentialRetrievalError(provider="custom", error_msg="s3cr3t"),
            AccessDeniedError,
            "cannot be had",
        ),
        (boto.NoRegionError(), StorageError, "AWS_REGION"),
        (
            boto.ConnectTimeoutError(endpoint_url="u"),
            TransientError,
            "ConnectTimeoutError",
        ),
        (
            boto.EndpointConnectionError(endpoint_url="u", error="nobody"),
            TransientError,
            "nobody",
        ),
        (
            boto.ReadTimeoutError(endpoint_url="u", error="silence"),
            TransientError,
            "silence",
        ),
        (
            boto.FlexibleChecksumError(error_msg="Expected checksum"),
            TransientError,
            "Expected checksum",
        ),
        (
            boto.IncompleteReadError(actual_bytes=1, expected_bytes=2),
            TransientError,
            "1 read",
        ),
        (ResponseParserError("no XML"), TransientError, "no XML"),
        (aiohttp.ClientPayloadError("cut"), TransientError, "cut"),
        (TimeoutError(), TransientError, "TimeoutError"),
        (boto.BotoCoreError(), StorageError, "BotoCoreError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_the_client_raises_by_itself(
    error: Exception, kind: type[StorageError], text: str
) -> None:
    """The class says what a caller can do, the text what a person can."""
    with (
        pytest.raises(StorageError, match=text) as caught,
        explained(PLACE, "us-east-1", "k"),
    ):
        raise error

    assert type(caught.value) is kind
    assert (caught.value.store, caught.value.key) == ("s3", "k")
    assert caught.value.__cause__ is error
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("operation", "permission"),
    [
        ("GetObject", r"s3:GetObject on arn:aws:s3:::bucket/p/\*, and s3:ListBucket"),
        ("PutObject", r"s3:PutObject on arn:aws:s3:::bucket/p/\*"),
        ("UploadPart", r"s3:PutObject on arn:aws:s3:::bucket/p/\*"),
        ("ListObjectsV2", "s3:ListBucket on arn:aws:s3:::bucket$"),
        ("AssumeRole", "the credentials must be allowed to AssumeRole"),
    ],
)
def test_a_denial_names_the_permission(operation: str, permission: str) -> None:
    """As it is written in a policy, with the resource."""
    response: dict[str, Any] = {
        "Error": {"Code": "AccessDenied", "Message": "no"},
        "ResponseMetadata": {"HTTPStatusCode": 403, "HTTPHeaders": {}},
    }

    with pytest.raises(AccessDeniedError, match=permission), explained(PLACE):
        raise boto.ClientError(response, operation)


def test_bugs_pass_as_they_are() -> None:
    """A store that hides its own mistakes cannot be mended."""
    with pytest.raises(KeyError), explained(PLACE):
        raise KeyError


@pytest.mark.anyio
@pytest.mark.blocking  # credentials are looked for on a loop of its own, in a thread
@pytest.mark.usefixtures("s3_url")
class TestOnAServer:
    """The same mistakes, made against a server."""

    async def test_an_absent_bucket(self) -> None:
        """Every method says so, and none says that the key is absent."""
        async with _opened("s3://wren-no-such-bucket") as store:
            calls: list[Callable[[], Any]] = [
                lambda: store.get("k"),
                lambda: store.head("k"),
                lambda: store.put("k", b""),
                lambda: store.put("k", b"", if_absent=True),
                lambda: store.put("k", bytes(17 * 1024 * 1024)),
                lambda: store.delete(["k"]),
                lambda: anext(store.list()),
            ]
            for call in calls:
                with pytest.raises(StorageError, match="create the bucket") as caught:
                    await call()
                assert not isinstance(caught.value, KeyNotFoundError)

    async def test_a_wrong_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The access key is looked up first."""
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDNOBODY")
        async with _opened("s3://wren") as store:
            with pytest.raises(AccessDeniedError, match="AWS_ACCESS_KEY_ID"):
                await store.get("k")

    async def test_no_credentials(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The chain ends without any."""
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        async with _opened("s3://wren") as store:
            with pytest.raises(AccessDeniedError, match="no credentials found"):
                await store.get("k")
            with pytest.raises(AccessDeniedError, match="no credentials found"):
                await store.grant("k", "GET", expires_in=60)

    async def test_half_of_the_credentials(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Found when the client is made."""
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        async with _opened("s3://wren") as store:
            with pytest.raises(AccessDeniedError, match="half of the credentials"):
                await store.get("k")

    async def test_an_unknown_profile(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Found when the configuration is read."""
        config = tmp_path / "config"
        config.write_text("[profile other]\nregion = eu-north-1\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
        monkeypatch.setenv("AWS_PROFILE", "mine")
        async with _opened("s3://wren") as store:
            with pytest.raises(AccessDeniedError, match="AWS_PROFILE"):
                await store.get("k")

    async def test_an_endpoint_that_is_no_url(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is the variable that is wrong, not the key."""
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "localhost 9000")
        async with _opened("s3://wren") as store:
            with pytest.raises(StorageError, match="AWS_ENDPOINT_URL_S3"):
                await store.get("k")

    async def test_an_endpoint_where_nobody_listens(
        self, monkeypatch: pytest.MonkeyPatch, unused_endpoint: str
    ) -> None:
        """It may be starting; the address is in the message."""
        monkeypatch.setattr("wren.backoff._FIRST", 0.0)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", unused_endpoint)
        async with _opened("s3://wren") as store:
            with pytest.raises(TransientError, match=r"127\.0\.0\.1"):
                await store.get("k")
