"""What `wren doctor` says about a store in Azure."""

from __future__ import annotations

import pytest

from wren.config import Settings
from wren.doctor import Diagnosable, Result
from wren.storage.azure import AzureStorage, open_storage
from wren.storage.azure_client import Client

pytestmark = pytest.mark.anyio


async def results(store: AzureStorage) -> dict[str, Result]:
    """Return all results by their names."""
    return {result.name: result async for result in store.diagnose()}


async def test_all_is_well(store: AzureStorage) -> None:
    """The login is named, since which of many was found is the first question."""
    assert isinstance(store, Diagnosable)

    found = await results(store)

    assert list(found) == ["azure: login", "azure: container"]
    assert all(result.ok for result in found.values())
    told = found["azure: login"].detail
    assert told.endswith("with a key, from AZURE_STORAGE_CONNECTION_STRING")


async def test_a_container_that_is_not_there(azurite_url: str) -> None:
    """A failure is a result, with the command that mends it."""
    account = azurite_url.split("/")[2]
    store = open_storage(f"az://{account}/not-there", Settings())

    found = (await results(store))["azure: container"]

    assert not found.ok
    assert "az storage container create" in found.detail
    await store.aclose()


async def test_a_sas_is_asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for a container may not look at the container itself, and is well."""
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING", raising=False)
    monkeypatch.delenv("AZURE_STORAGE_KEY", raising=False)
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=2026-02-06&sig=eA%3D%3D")
    store = open_storage("az://acc/box", Settings())

    found = await results(store)

    assert list(found) == ["azure: login"]
    assert found["azure: login"].ok
    await store.aclose()


async def test_a_hierarchical_namespace_is_no_place(
    store: AzureStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directories would be listed, in another order; Azurite has no such accounts."""

    async def answer(client: Client, call: object, key: str = "") -> dict[str, bool]:
        del client, call, key
        return {"is_hns_enabled": True}

    monkeypatch.setattr(Client, "send", answer)

    found = (await results(store))["azure: account"]

    assert not found.ok
    assert "without a hierarchical namespace" in found.fix
