"""Grants: what a SAS allows, whoever holds it and however it is used."""

from __future__ import annotations

import http.client
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import anyio
import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from wren.config import Settings
from wren.errors import AccessDeniedError, StorageError, UnsupportedError
from wren.protocols import Grant, StorageCapabilities
from wren.storage.azure import AzureStorage, open_storage
from wren.storage.azure_login import find_login

pytestmark = pytest.mark.anyio

BLOCK_BLOB = {"x-ms-blob-type": "BlockBlob"}


def sas_of(grant: Grant) -> dict[str, str]:
    """Return the fields of a grant's signature."""
    return {
        name: value for name, [value] in parse_qs(urlsplit(grant.url).query).items()
    }


async def ask(
    grant: Grant, method: str, headers: dict[str, str], more: str = ""
) -> tuple[int, str]:
    """Make a request with a grant's URL as somebody might who does not keep to it."""

    def send() -> tuple[int, str]:
        url = urlsplit(grant.url)
        connection = http.client.HTTPConnection(url.netloc, timeout=20)
        try:
            target = f"{url.path}?{url.query}{more}"
            connection.request(method, target, b"new", headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status, answer.headers.get("x-ms-error-code", "")
        finally:
            connection.close()

    return await anyio.to_thread.run_sync(send)


async def test_a_grant_says_only_what_it_must(store: AzureStorage) -> None:
    """One blob, one letter: r to read, w to write, c to create."""
    reading = await store.grant("k", "GET", expires_in=60)
    writing = await store.grant("k", "PUT", expires_in=60)
    creating = await store.grant("k", "PUT", expires_in=60, if_absent=True)

    found = [sas_of(each) for each in (reading, writing, creating)]
    assert [each["sp"] for each in found] == ["r", "w", "c"]
    assert {each["sr"] for each in found} == {"b"}
    assert reading.headers == {}
    assert writing.headers == BLOCK_BLOB
    assert creating.headers == {**BLOCK_BLOB, "if-none-match": "*"}


async def test_the_holder_cannot_leave_the_condition_out(store: AzureStorage) -> None:
    """It is a header, which a SAS does not cover; but to create is not to overwrite."""
    await store.put("k", b"old")
    grant = await store.grant("k", "PUT", expires_in=60, if_absent=True)

    for headers in (BLOCK_BLOB, {**BLOCK_BLOB, "if-match": "*"}):
        assert (await ask(grant, "PUT", headers))[0] == 403
    status, _ = await ask(grant, "PUT", {}, "&comp=metadata")
    assert status == 403
    assert (await ask(grant, "DELETE", {}))[0] == 403

    assert await store.get("k") == b"old"


async def test_the_time_is_rounded_up(store: AzureStorage) -> None:
    """A SAS counts whole seconds; nobody gets less than was asked for."""
    before = time.time()

    grant = await store.grant("k", "GET", expires_in=0.5)

    assert before + 0.5 <= grant.expires <= time.time() + 1.5
    until = datetime.fromisoformat(sas_of(grant)["se"])
    assert until.timestamp() == grant.expires


async def test_a_grant_may_outlive_everybody(store: AzureStorage) -> None:
    """With a key there is no limit but the calendar's."""
    grant = await store.grant("k", "GET", expires_in=float("inf"))

    assert sas_of(grant)["se"].startswith("9999-")


@pytest.fixture
def sas_url(azurite_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The empty store's URL; the environment has a SAS for its container, no key."""
    return with_sas(monkeypatch, azurite_url, "racwdl")


def with_sas(monkeypatch: pytest.MonkeyPatch, url: str, letters: str) -> str:
    """Log in by a SAS for the store's container, with these permissions."""
    account, container = url.removeprefix("az://").split("/")[:2]
    login = find_login(account)
    token = generate_container_sas(
        account,
        container,
        account_key=login.key,
        permission=ContainerSasPermissions.from_string(letters),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    monkeypatch.setenv("AZURE_STORAGE_SERVICE_ENDPOINT", login.endpoint)
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", token)
    return url


async def test_a_sas_is_enough_for_all_but_grants(sas_url: str) -> None:
    """It cannot sign, so that is declared and refused."""
    store = open_storage(sas_url, Settings())

    keys = [f"k{number}" for number in range(3)]
    for key in keys:
        await store.put(key, b"v", if_absent=True)
    assert [info.key async for info in store.list()] == keys
    assert await store.get("k0", start=0, stop=9) == b"v"
    await store.delete(keys)
    assert [info.key async for info in store.list()] == []

    assert store.capabilities == StorageCapabilities(
        grants=False, conditional_grants=False
    )
    for method in ("GET", "PUT"):
        with pytest.raises(UnsupportedError, match="AZURE_STORAGE_SAS_TOKEN"):
            await store.grant("k", method, expires_in=60, if_absent=method == "PUT")
    await store.aclose()


async def test_a_sas_that_lacks_a_letter_is_told_so(
    azurite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One object or many, and with the variable to change."""
    store = open_storage(with_sas(monkeypatch, azurite_url, "rl"), Settings())

    with pytest.raises(AccessDeniedError, match=r"_SAS_TOKEN.*racwdl"):
        await store.put("k", b"v")
    for keys in (["a"], ["a", "b"]):
        with pytest.raises(AccessDeniedError, match="racwdl"):
            await store.delete(keys)

    await store.aclose()


async def test_an_expired_sas_is_refused_by_name(
    azurite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is expired is the login, not a grant."""
    with_sas(monkeypatch, azurite_url, "rl")
    for end in ("2020-01-01T00%3A00%3A00Z", "2020-01-01"):
        token = f"sv=2026-02-06&sr=c&sp=rl&sig=eA%3D%3D&se={end}"
        monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", token)
        store = open_storage(azurite_url, Settings())

        with pytest.raises(AccessDeniedError, match="_SAS_TOKEN has expired"):
            await store.get("k")

        await store.aclose()


async def test_a_wrong_key_is_refused_by_name(
    azurite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By every call."""
    login = find_login(azurite_url.split("/")[2])
    text = (
        f"AccountName={login.account};AccountKey=d3Jvbmc=;BlobEndpoint={login.endpoint}"
    )
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
    store = open_storage(azurite_url, Settings())

    for call in (
        lambda: store.get("k"),
        lambda: store.head("k"),
        lambda: store.put("k", b"v"),
        lambda: store.delete(["k"]),
        lambda: store.delete(["a", "b"]),
        lambda: anext(store.list()),
    ):
        with pytest.raises(AccessDeniedError, match="AZURE_STORAGE_CONNECTION_STRING"):
            await call()

    await store.aclose()


async def test_a_container_that_is_not_there_is_told_by_every_call(
    azurite_url: str,
) -> None:
    """With the command that makes it; never as a missing object."""
    account = azurite_url.split("/")[2]
    store = open_storage(f"az://{account}/not-there", Settings())
    command = f"create --account-name {account} --name not-there"

    for call in (
        lambda: store.get("k"),
        lambda: store.get("k", start=1, stop=1),
        lambda: store.head("k"),
        lambda: store.put("k", b"v"),
        lambda: store.put("k", b"v", if_absent=True),
        lambda: store.delete(["k"]),
        lambda: store.delete(["a", "b"]),
        lambda: anext(store.list()),
    ):
        with pytest.raises(StorageError, match=command) as caught:
            await call()
        assert type(caught.value) is StorageError

    await store.aclose()
