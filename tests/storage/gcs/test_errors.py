"""What goes wrong with a bucket or a login is answered with what to change."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import google.auth.exceptions
import pytest
import requests
import urllib3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.api_core.exceptions import from_http_response

from wren.config import Settings
from wren.conformance.emulators.gcs import READER
from wren.conformance.fault_plan import Fault, FaultPlan
from wren.conformance.proxy import FaultProxy
from wren.errors import (
    AccessDeniedError,
    KeyNotFoundError,
    StorageError,
    TransientError,
)
from wren.protocols import Storage
from wren.storage.gcs import open_storage
from wren.storage.gcs_errors import explain
from wren.storage.gcs_faults import PreconditionError, TokenRefusedError
from wren.storage.parts import PART

ROLE = "roles/storage.objectUser"
LOGIN = "gcloud auth application-default login"


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[Storage]:
    """A store that is closed in the end."""
    store = open_storage(url, Settings())
    try:
        yield store
    finally:
        await store.aclose()


async def first_of(store: Storage) -> None:
    """Begin a listing."""
    async for _ in store.list():
        break


CALLS: dict[str, Callable[[Storage], Any]] = {
    "get": lambda store: store.get("k"),
    "head": lambda store: store.head("k"),
    "put": lambda store: store.put("k", b""),
    "large put": lambda store: store.put("k", bytes(PART + 1)),
    "conditional put": lambda store: store.put("k", b"", if_absent=True),
    "delete": lambda store: store.delete(["k"]),
    "batch delete": lambda store: store.delete(["k", "l"]),
    "list": first_of,
}


@pytest.mark.anyio
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.usefixtures("gcs_url")
async def test_missing_bucket_is_no_missing_object(name: str) -> None:
    """Whoever takes one for the other recomputes everything for ever."""
    async with opened("gs://nobody/p") as store:
        with pytest.raises(StorageError, match="there is no bucket 'nobody'") as caught:
            await CALLS[name](store)

    assert type(caught.value) is StorageError
    assert "WREN_STORAGE" in str(caught.value)
    assert "gcloud storage buckets create gs://nobody" in str(caught.value)


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["put", "large put", "delete", "batch delete"])
async def test_denied_permission_names_the_role(
    name: str, gcs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account that may only read is told what it lacks."""
    async with opened(gcs_url) as store:
        await store.put("k", b"v")
    key = Path(os.environ["GOOGLE_APPLICATION_CREDENTIALS"])
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key.parent / READER))

    async with opened(gcs_url) as store:
        assert await store.get("k") == b"v"
        with pytest.raises(AccessDeniedError, match=ROLE) as caught:
            await CALLS[name](store)
        assert await store.get("k") == b"v"

    assert "storage.objects." in str(caught.value)
    assert "gs://wren" in str(caught.value)


@pytest.mark.anyio
async def test_wrong_key_is_told_from_a_missing_one(
    gcs_url: str, change_key: Callable[..., None]
) -> None:
    """The file is there and is a key, but not the account's."""
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = other.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    change_key(private_key=pem)

    async with opened(gcs_url) as store:
        with pytest.raises(
            AccessDeniedError, match="GOOGLE_APPLICATION_CREDENTIALS"
        ) as caught:
            await store.get("k")

    assert "Signature" in str(caught.value)
    assert "PRIVATE KEY" not in str(caught.value)


@pytest.mark.anyio
async def test_unusable_key_file_is_answered_with_the_login(
    gcs_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is absent, and one that is no key."""
    path = tmp_path / "key.json"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))

    async with opened(gcs_url) as store:
        with pytest.raises(AccessDeniedError, match=LOGIN):
            await store.get("k")
        path.write_text("{}")
        with pytest.raises(AccessDeniedError, match=LOGIN):
            await store.get("k")


@pytest.mark.anyio
async def test_without_a_login_nothing_is_granted(
    gcs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An emulator may let anybody in; this one does not."""
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")

    async with opened(gcs_url) as store:
        with pytest.raises(AccessDeniedError, match=LOGIN):
            await store.get("k")
        with pytest.raises(AccessDeniedError, match="GOOGLE_APPLICATION_CREDENTIALS"):
            await store.grant("k", "GET", expires_in=60)


@pytest.mark.anyio
async def test_wrong_clock_is_named(
    gcs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else in the answer tells that it is not the key."""
    now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    ahead = now + dt.timedelta(hours=3)
    monkeypatch.setattr("google.auth._helpers.utcnow", lambda: ahead)

    async with opened(gcs_url) as store:
        with pytest.raises(AccessDeniedError, match="clock is wrong"):
            await store.get("k")


@pytest.mark.anyio
async def test_emulator_without_a_scheme_is_named(
    gcs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Google's library wants a URL, in spite of the variable's name."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:9")

    async with opened(gcs_url) as store:
        with pytest.raises(StorageError, match="STORAGE_EMULATOR_HOST"):
            await store.get("k")


@pytest.mark.anyio
async def test_token_is_renewed_by_one_of_all_threads(
    gcs_url: str, proxy: FaultProxy, change_key: Callable[..., None]
) -> None:
    """64 calls at once are one request for a token, not 64."""
    change_key(token_uri=f"{proxy.url}/token")
    data = bytes(9 * PART)

    async with opened(gcs_url) as store:
        await store.put("k", data)
        assert await store.get("k") == data
        assert proxy.count("POST", "/token") == 1


@pytest.mark.anyio
async def test_refused_token_is_renewed_once(
    gcs_url: str, change_key: Callable[..., None], proxy: FaultProxy
) -> None:
    """It may be revoked before its time."""
    change_key(token_uri=f"{proxy.url}/token")
    proxy.plan = FaultPlan(
        Fault("GET", "status", key="/download/*", status=401),
        Fault("GET", "status", key="/download/*k2*", status=401, times=2),
    )

    async with opened(gcs_url) as store:
        await store.put("k1", b"v")
        assert await store.get("k1") == b"v"
        assert proxy.count("POST", "/token") == 2
        with pytest.raises(AccessDeniedError):
            await store.get("k2")
        assert proxy.count("POST", "/token") == 3


def answered(status: int, message: str = "said", reason: str = "") -> Exception:
    """What the client raises for an answer of the service."""
    error = {"code": status, "message": message, "errors": [{"reason": reason}]}
    response = requests.Response()
    response.status_code = status
    response._content = json.dumps({"error": error}).encode()
    response.request = requests.Request("PUT", "http://h/p?upload_id=secret").prepare()
    return from_http_response(response)


RefreshError = google.auth.exceptions.RefreshError


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (answered(400), StorageError),
        (answered(400, "Provided CRC32C doesn't match calculated"), TransientError),
        (answered(401), TokenRefusedError),
        (answered(403), AccessDeniedError),
        (answered(403, reason="rateLimitExceeded"), TransientError),
        (answered(404, "No such object: b/k"), KeyNotFoundError),
        (answered(404, "The specified bucket does not exist."), StorageError),
        (answered(408), TransientError),
        (answered(412), PreconditionError),
        (answered(429), TransientError),
        (answered(500), TransientError),
        (answered(501), StorageError),
        (answered(502), TransientError),
        (answered(503), TransientError),
        (answered(504), TransientError),
        (RefreshError("busy", retryable=True), TransientError),
        (RefreshError("invalid_grant: revoked", {}), AccessDeniedError),
        (google.auth.exceptions.OAuthError("invalid_scope"), AccessDeniedError),
        (google.auth.exceptions.TransportError("no route"), TransientError),
        (
            google.auth.exceptions.TransportError("Error calling the IAM signBlob"),
            AccessDeniedError,
        ),
        (requests.ConnectionError("reset"), TransientError),
        (requests.Timeout("silent"), TransientError),
        (requests.exceptions.ChunkedEncodingError("short"), TransientError),
        (requests.exceptions.SSLError("certificate"), StorageError),
        (urllib3.exceptions.ProtocolError("short"), TransientError),
        (urllib3.exceptions.IncompleteRead(1, 2), TransientError),
    ],
    ids=lambda each: repr(each)[:60],
)
def test_each_failure_has_its_class(exc: Exception, kind: type[StorageError]) -> None:
    """The class says what the caller can do, and the text holds no secret."""
    error = explain(exc, "b", "k")

    assert type(error) is kind
    assert (error.store, error.key) == ("gcs", "k")
    assert "secret" not in str(error)


def test_page_of_a_proxy_is_no_answer_of_the_service() -> None:
    """Something in between may answer with HTML."""
    response = requests.Response()
    response.status_code = 502
    response._content = b"<html>"
    response.request = requests.Request("GET", "http://h/").prepare()

    assert str(explain(from_http_response(response), "b", "k")) == "gcs:k: HTTP 502"
