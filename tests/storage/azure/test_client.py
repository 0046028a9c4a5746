"""The client behind the store: opened late, closed whole, asyncio's alone."""

from __future__ import annotations

import anyio
import pytest
import trio

from wren.config import Settings
from wren.errors import ConfigurationError, StorageError
from wren.storage.azure import AzureStorage, open_storage
from wren.storage.azure_client import Client
from wren.storage.azure_login import Credential, Login

LOGIN = Login(account="acc", endpoint="http://127.0.0.1:1/acc", source="x", key="a2V5")


def test_another_event_loop_is_refused(azurite_url: str) -> None:
    """In one clear error, by the first call."""
    store = open_storage(azurite_url, Settings())

    async def use() -> None:
        with pytest.raises(ConfigurationError, match="asyncio"):
            await store.get("k")
        with pytest.raises(ConfigurationError, match="asyncio"):
            await anext(store.list())
        await store.aclose()

    trio.run(use)


@pytest.mark.anyio
async def test_it_is_opened_once() -> None:
    """However many calls come first."""
    client = Client(LOGIN, "box", 1)
    opened: set[int] = set()

    async def open_it() -> None:
        opened.add(id(await client.container()))

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(open_it)

    assert len(opened) == 1
    await client.aclose()


@pytest.mark.anyio
async def test_a_login_that_fails_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An unclosed session would warn, and that fails this test."""

    def fail(login: Login) -> Credential:
        del login
        raise ConfigurationError("no login")

    monkeypatch.setattr(Login, "credential", fail)
    client = Client(LOGIN, "box", 1)

    for _ in range(2):
        with pytest.raises(ConfigurationError, match="no login"):
            await client.container()

    await client.aclose()


@pytest.mark.anyio
async def test_closing_ends_what_is_under_way(store: AzureStorage) -> None:
    """A call that was begun fails soon, as one made later does."""
    await store.put("k", bytes(1024))
    ended: list[str] = []

    async def use() -> None:
        try:
            while True:
                await store.get("k")
        except StorageError as exc:
            ended.append(str(exc))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(use)
            await store.get("k")
            await store.aclose()

    assert len(ended) == 4
    assert all("closed" in each for each in ended)


@pytest.mark.anyio
async def test_the_environments_proxy_is_asked(
    azurite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it excepts the address."""
    monkeypatch.setattr("wren.storage.requests._TRIES", 1)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    store = open_storage(azurite_url, Settings())
    with pytest.raises(StorageError, match="ClientProxyConnectionError"):
        await store.put("k", b"v")
    await store.aclose()

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    store = open_storage(azurite_url, Settings())
    await store.put("k", b"v")
    await store.aclose()
