"""The login to Entra ID: a managed identity's, with its server played here.

All else is real: Azure's identity library, and Azurite over HTTPS, which looks at the
audience, the issuer and the times of a token.
"""

from __future__ import annotations

import asyncio
import json
import math
import ssl
import time
import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import jwt
import pytest
from azure.storage.blob import UserDelegationKey

from wren import grants
from wren.config import Settings
from wren.conformance.emulators.azurite import Certificate
from wren.conformance.emulators.emulator import Emulator
from wren.errors import AccessDeniedError, StorageError, UnsupportedError
from wren.protocols import Grant
from wren.storage.azure import AzureStorage, open_storage
from wren.storage.azure_client import Client
from wren.storage.azure_grants import Signer
from wren.storage.azure_login import ENTRA, Login

# Azure's identity library makes requests of its own, before which aiohttp up to 3.13
# looks for ~/.netrc in the event loop.
pytestmark = [pytest.mark.anyio, pytest.mark.blocking]

DAY = 24 * 3600.0
CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"


@dataclass
class Identity:
    """Hands out tokens, as a virtual machine's own address does in Azure."""

    claims: dict[str, object] = field(default_factory=dict[str, object])
    """Other than those that are right."""
    asked: list[str] = field(default_factory=list[str])

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head.split(" ")[1])
        now = int(time.time())
        tenant = str(uuid.uuid4())
        claims: dict[str, object] = {
            "aud": "https://storage.azure.com",
            "iss": f"https://sts.windows.net/{tenant}/",
            "tid": tenant,
            "oid": str(uuid.uuid4()),
            "iat": now - 10,
            "nbf": now - 10,
            "exp": now + 3600,
            "ver": "1.0",
        }
        token = jwt.encode(claims | self.claims, "x" * 32, algorithm="HS256")
        answer = {
            "access_token": token,
            "expires_on": str(now + 3600),
            "resource": "https://storage.azure.com",
            "token_type": "Bearer",
        }
        body = json.dumps(answer).encode()
        lines = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + body)
        await writer.drain()
        writer.close()


@pytest.fixture
async def identity(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Identity]:
    """The server of a managed identity, which the environment names."""
    played = Identity()
    server = await asyncio.start_server(played.serve, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{port}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "secret")
    for name in ("IDENTITY_SERVER_THUMBPRINT", "AZURE_CLIENT_ID"):
        monkeypatch.delenv(name, raising=False)
    yield played
    server.close()


@pytest.fixture
def trust(certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the authority of Azurite's certificate, in the store and in a worker.

    Both look for authorities once in a process, so a variable would come too late.
    """
    context = ssl.create_default_context(cafile=certificate.authority)
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", context)
    monkeypatch.setattr(grants, "_tls", lambda: context)


@pytest.fixture
def keys_asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[datetime, datetime]]:
    """The periods for which user delegation keys were asked for."""
    asked: list[tuple[datetime, datetime]] = []
    ask: Any = Client.delegation_key

    def note(client: Client, start: datetime, end: datetime) -> Any:
        asked.append((start, end))
        return ask(client, start, end)

    monkeypatch.setattr(Client, "delegation_key", note)
    return asked


@pytest.fixture
async def store(
    azurite_oauth_server: Emulator,
    identity: Identity,
    trust: None,
    keys_asked: list[tuple[datetime, datetime]],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncGenerator[AzureStorage]:
    """An empty store; the environment has an address and no key."""
    del identity, trust, keys_asked  # they have set the stage
    for name in azurite_oauth_server.unset:
        monkeypatch.delenv(name, raising=False)
    given = azurite_oauth_server.environment[CONNECTION_STRING].split(";")
    address = [part for part in given if not part.startswith("AccountKey")]
    monkeypatch.setenv(CONNECTION_STRING, ";".join(address))
    url = f"{azurite_oauth_server.url}/{uuid.uuid4().hex}"
    opened = open_storage(url, Settings())
    yield opened
    await opened.aclose()


async def fetch(grant: Grant) -> bytes:
    """Use a GET grant as its holder does, off the event loop."""
    return await anyio.to_thread.run_sync(grants.fetch, grants.to_json(grant))


async def store_by(grant: Grant, data: bytes) -> str:
    """Use a PUT grant as its holder does, off the event loop."""
    return await anyio.to_thread.run_sync(grants.store, grants.to_json(grant), [data])


async def test_a_token_is_enough_for_everything(
    store: AzureStorage, identity: Identity
) -> None:
    """It is asked for once, for storage alone."""
    keys = [f"k{number}" for number in range(3)]
    for key in keys:
        await store.put(key, b"v", if_absent=True)

    assert [info.key async for info in store.list()] == keys
    assert await store.get("k0") == b"v"
    assert (await store.head("k1")).size == 1
    await store.delete(keys)
    assert [info.key async for info in store.list()] == []

    assert len(identity.asked) == 1
    query = parse_qs(urlsplit(identity.asked[0]).query)
    assert query["resource"] == ["https://storage.azure.com"]


async def test_grants_are_signed_with_a_key_that_is_asked_for(
    store: AzureStorage, keys_asked: list[tuple[datetime, datetime]]
) -> None:
    """Once for many: asking is a request, and signing is none."""
    writing = await store.grant("k", "PUT", expires_in=60)
    assert await store_by(writing, b"v") == "written"
    reading = await store.grant("k", "GET", expires_in=60)
    assert await fetch(reading) == b"v"
    creating = await store.grant("new", "PUT", expires_in=60, if_absent=True)
    assert await store_by(creating, b"1") == "written"
    with pytest.raises(StorageError, match="403"):  # as Azurite says "exists" to HTTPS
        await store_by(creating, b"2")

    assert await store.get("new") == b"1"
    assert len(keys_asked) == 1
    for grant in (writing, reading, creating):
        query = parse_qs(urlsplit(grant.url).query)
        assert "skoid" in query
        assert query["spr"] == ["https"]


async def test_many_grants_at_once_ask_for_one_key(
    store: AzureStorage, keys_asked: list[tuple[datetime, datetime]]
) -> None:
    """A job begins with thousands."""
    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(
                lambda key: store.grant(key, "GET", expires_in=60), f"{number}"
            )

    assert len(keys_asked) == 1


async def test_a_key_is_renewed_before_a_grant_outlives_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A grant is worth nothing once the key that signed it has expired."""
    lives: list[tuple[float, float]] = []
    now = time.time()

    async def ask(start: datetime, end: datetime) -> UserDelegationKey:
        lives.append((start.timestamp(), end.timestamp()))
        make: Any = UserDelegationKey  # not typed
        key: UserDelegationKey = make()
        key.value = "a2V5"
        return key

    entra = Login(account="acc", endpoint="https://acc", source=ENTRA)
    signer = Signer(entra, "box", ask)

    async def sign(seconds: float) -> None:
        until = math.ceil(time.time() + seconds)
        await signer.sign("k", "GET", expires=until, if_absent=False)
        assert lives[-1][0] < time.time() < until <= lives[-1][1]

    await sign(DAY / 2)
    await sign(DAY / 2)
    await sign(DAY * 3)
    assert len(lives) == 2
    monkeypatch.setattr(time, "time", lambda: now + DAY * 2.9)
    await sign(DAY / 2)

    assert len(lives) == 3
    assert all(end - start <= 7 * DAY for start, end in lives)


async def test_a_grant_cannot_outlive_any_key(
    store: AzureStorage, keys_asked: list[tuple[datetime, datetime]]
) -> None:
    """Azure's limit is seven days, less what clocks may differ."""
    with pytest.raises(UnsupportedError, match="seven days"):
        await store.grant("k", "GET", expires_in=7 * DAY)

    await store.grant("k", "GET", expires_in=6.9 * DAY)
    assert len(keys_asked) == 1


@pytest.mark.parametrize(
    "claims",
    [{"aud": "https://management.azure.com"}, {"exp": 1}],
    ids=["audience", "expired"],
)
async def test_a_token_that_is_refused_is_told_so(
    store: AzureStorage, identity: Identity, claims: dict[str, object]
) -> None:
    """The login is to be mended, not a variable."""
    identity.claims = claims

    with pytest.raises(
        AccessDeniedError, match="the login to Entra ID is not accepted"
    ):
        await store.get("k")
    with pytest.raises(AccessDeniedError):
        await store.grant("k", "GET", expires_in=60)


async def test_no_login_at_all_is_told_so(
    store: AzureStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where none is configured, one error says what to do."""
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name, raising=False)

    with pytest.raises(AccessDeniedError, match="az login"):
        await store.get("k")
