"""Grants of those who can sign, of those who may let sign, and of all others."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import google.auth.credentials
import google.auth.transport
import pytest
import requests
from anyio import to_thread
from google.auth import compute_engine
from google.auth.exceptions import TransportError
from google.oauth2 import service_account

from wren import grants
from wren.errors import KeyNotFoundError, StorageError, UnsupportedError
from wren.protocols import Grant
from wren.storage.gcs import GcsStorage

pytestmark = pytest.mark.anyio

VALID = 120.0
SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
ONCE = "x-goog-if-generation-match"


async def fetch(grant: Grant) -> bytes:
    """Read by a grant, as a worker does."""
    return await to_thread.run_sync(grants.fetch, grants.to_json(grant))


async def store_by(grant: Grant, data: bytes) -> str:
    """Write by a grant, as a worker does."""
    return await to_thread.run_sync(grants.store, grants.to_json(grant), [data])


class Person(google.auth.credentials.Credentials):
    """Somebody who is logged in, and has no key: only tokens."""

    def __init__(self) -> None:
        super().__init__()
        path = os.environ["GOOGLE_APPLICATION_CREDENTIALS"]
        self._account = service_account.Credentials.from_service_account_file(
            path, scopes=SCOPES
        )
        self.email: str = self._account.signer_email or ""

    def refresh(self, request: google.auth.transport.Request) -> None:
        self._account.refresh(request)
        self.token, self.expiry = self._account.token, self._account.expiry


class Machine(compute_engine.Credentials):
    """A virtual machine, whose service account's key is elsewhere."""

    def __init__(self) -> None:
        super().__init__(scopes=SCOPES)
        self._person = Person()

    @property
    def universe_domain(self) -> str:
        return "googleapis.com"  # the metadata server would be asked

    @property
    def service_account_email(self) -> str:
        return self._person.email

    def refresh(self, request: google.auth.transport.Request) -> None:
        self._person.refresh(request)
        self.token, self.expiry = self._person.token, self._person.expiry


@pytest.fixture
def log_in(
    gcs_url: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[google.auth.credentials.Credentials], None]:
    """Lets the stores of this test be opened by somebody else."""
    del gcs_url
    server = os.environ["STORAGE_EMULATOR_HOST"]
    pattern = "google.auth.downscoped._STS_TOKEN_URL_PATTERN"
    monkeypatch.setattr(pattern, f"{server}/v1/token")

    def log_in(credentials: google.auth.credentials.Credentials) -> None:
        def found(scopes: Sequence[str]) -> tuple[object, str]:
            del scopes
            return credentials, "p"

        monkeypatch.setattr("google.auth.default", found)

    return log_in


@pytest.fixture
def person(store: GcsStorage, log_in: Callable[[Person], None]) -> GcsStorage:
    """The store of somebody who cannot sign."""
    log_in(Person())
    return store


async def test_condition_is_part_of_the_signature(store: GcsStorage) -> None:
    """Without the header, or with another value, the URL is worth nothing."""
    grant = await store.grant("k", "PUT", expires_in=VALID, if_absent=True)
    await store.put("k", b"old")

    assert grant.headers == {ONCE: "0"}
    assert ONCE in grant.url
    for headers in ({}, {ONCE: "1"}, {"x-goog-if-metageneration-match": "1"}):
        with pytest.raises(StorageError):
            await store_by(replace(grant, headers=headers), b"new")
    assert await store_by(grant, b"new") == "exists"
    assert await store.get("k") == b"old"


async def test_signed_url_has_a_longest_time(store: GcsStorage) -> None:
    """The service would refuse it; nobody is to find out in a worker."""
    week = 7 * 24 * 3600

    await store.grant("k", "GET", expires_in=week)
    with pytest.raises(UnsupportedError, match="seven days"):
        await store.grant("k", "GET", expires_in=week + 1)


async def test_token_reads_one_object(person: GcsStorage) -> None:
    """And tells that it is valid for less than was asked for."""
    await person.put("d/k é'\\", b"v")
    await person.put("e", b"other")

    grant = await person.grant("d/k é'\\", "GET", expires_in=12 * 3600)

    assert await fetch(grant) == b"v"
    assert time.time() + 3000 < grant.expires < time.time() + 3700
    assert "Authorization" in grant.headers
    assert grant.headers["Authorization"] not in repr(grant)
    with pytest.raises(StorageError, match="refused"):
        await store_by(replace(grant, method="PUT"), b"new")
    with pytest.raises(StorageError, match="refused"):
        await fetch(replace(grant, url=_sibling(grant.url, "e")))
    await person.delete(["d/k é'\\"])
    with pytest.raises(KeyNotFoundError):
        await fetch(grant)


async def test_token_writes_one_object(person: GcsStorage) -> None:
    """As often as it likes."""
    grant = await person.grant("d/k", "PUT", expires_in=VALID)

    assert await store_by(grant, b"1") == "written"
    assert await store_by(grant, b"2") == "written"
    assert await person.get("d/k") == b"2"
    with pytest.raises(StorageError, match="refused"):
        await store_by(replace(grant, url=_sibling(grant.url, "e")), b"3")


async def test_token_keeps_the_condition(person: GcsStorage) -> None:
    """Whoever leaves the header out may still not replace an object."""
    grant = await person.grant("k", "PUT", expires_in=VALID, if_absent=True)

    assert grant.headers[ONCE] == "0"
    assert await store_by(grant, b"1") == "written"
    assert await store_by(grant, b"2") == "exists"
    bare = replace(grant, headers={"Authorization": grant.headers["Authorization"]})
    with pytest.raises(StorageError, match="refused"):
        await store_by(bare, b"3")
    with pytest.raises(StorageError, match="refused"):
        await fetch(replace(bare, method="GET"))
    assert await person.get("k") == b"1"


async def test_machine_lets_its_service_account_sign(
    store: GcsStorage,
    log_in: Callable[[Machine], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a request for each grant, with the machine's own token."""
    log_in(Machine())
    server = os.environ["STORAGE_EMULATOR_HOST"]

    def sign(message: str, token: str, email: str, *_: Any) -> str:
        answer = requests.post(
            f"{server}/v1/projects/-/serviceAccounts/{email}:signBlob",
            headers={"Authorization": f"Bearer {token}"},
            data=json.dumps({"payload": _base64(message)}),
            timeout=10,
        )
        signed: str = answer.json()["signedBlob"]
        return signed

    monkeypatch.setattr("google.cloud.storage._signing._sign_message", sign)
    grant = await store.grant("k", "PUT", expires_in=VALID, if_absent=True)

    assert "X-Goog-Signature" in grant.url
    assert await store_by(grant, b"1") == "written"
    assert await store_by(grant, b"2") == "exists"


async def test_machine_that_may_not_sign_grants_by_token(
    store: GcsStorage,
    log_in: Callable[[Machine], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is refused once, and does not ask again."""
    log_in(Machine())
    asked: list[str] = []

    def refuse(message: str, *_: Any) -> str:
        asked.append(message)
        raise TransportError("Error calling the IAM signBytes API: b'denied'")

    monkeypatch.setattr("google.cloud.storage._signing._sign_message", refuse)
    await store.put("k", b"v")

    for _ in range(2):
        grant = await store.grant("k", "GET", expires_in=VALID)
        assert await fetch(grant) == b"v"
        assert "X-Goog-Signature" not in grant.url
    assert len(asked) == 1


def _sibling(url: str, name: str) -> str:
    """Return the address of another object of the same store."""
    bucket, prefix = urlsplit(url).path.split("/")[1:3]
    return f"{os.environ['STORAGE_EMULATOR_HOST']}/{bucket}/{prefix}/{name}"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
