"""Listings: their order, where they begin, and that no page is lost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wren.config import Settings
from wren.errors import StorageError
from wren.protocols import ObjectInfo
from wren.storage.azure import AzureStorage, open_storage
from wren.storage.azure_client import Client
from wren.storage.azure_list import ByteOrder

NOW = datetime(2026, 11, 25, tzinfo=UTC)

# What UTF-16 orders otherwise, and what lies on both sides of it.
KEYS = st.text("a\ud7ff\ue000\uffee\U00010000\U0010ffff/", min_size=1, max_size=4)


def infos(keys: list[str]) -> list[ObjectInfo]:
    """Return objects with these keys."""
    return [ObjectInfo(key=key, size=0, modified=NOW, etag="e") for key in keys]


def utf16(key: str) -> bytes:
    """Return what JavaScript compares."""
    return key.encode("utf-16-be")


@given(st.sets(KEYS), st.booleans(), st.integers(1, 4))
def test_keys_come_in_the_order_of_their_bytes(
    keys: set[str], javascript: bool, size: int
) -> None:
    """Whichever order the service has, and wherever its pages end."""
    came = sorted(keys, key=utf16 if javascript else str.encode)
    order = ByteOrder()
    settled: list[str] = []

    for start in range(0, len(came), size):
        page = infos(came[start : start + size])
        settled += [info.key for info in order.settle(page, last=False)]
    settled += [info.key for info in order.settle([], last=True)]

    assert settled == sorted(keys, key=str.encode)


def test_ordinary_keys_are_not_held_back() -> None:
    """A listing shall be read as it goes, not to its end first."""
    order = ByteOrder()
    page = infos(["a", "a/\U0001f426/x", "a/\U0001f427", "b", "é"])

    assert order.settle(page, last=False) == page


def test_another_order_is_refused() -> None:
    """It would look like a listing in order with objects missing."""
    with pytest.raises(StorageError, match="hierarchical namespace"):
        ByteOrder().settle(infos(["b", "a"]), last=False)


@pytest.mark.anyio
async def test_pages_are_all_read(
    store: AzureStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two keys a page may end, characters beyond UTF-16 included."""
    monkeypatch.setattr("wren.storage.azure_list._PAGE", 2)
    keys = ["a", "a[", "a\\b", "b/\uffee", "b/\U0001f426", "b/\U0001f427/c", "c"]
    for key in keys:
        await store.put(key, b"")

    for after in ["", "A", "a[/", "b", "b/\uffee", "b/\U0001f426", "b/\udc80", *keys]:
        left = [key for key in keys if key > after]
        assert [info.key async for info in store.list(start_after=after)] == left
        inside = [key for key in left if key.startswith("b/")]
        listing = store.list("b/", start_after=after)
        assert [info.key async for info in listing] == inside


@pytest.mark.anyio
async def test_a_listing_begins_where_it_is_asked_to(
    store: AzureStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the first object: a store is polled for what is new."""
    monkeypatch.setattr("wren.storage.azure_list._PAGE", 5)
    for number in range(12):
        await store.put(f"k/{number:02}", b"")
    asked: list[object] = []
    send: Any = Client.send

    def count(client: Client, *arguments: object) -> Any:
        asked.append(arguments)
        return send(client, *arguments)

    monkeypatch.setattr(Client, "send", count)

    listing = store.list("k/", start_after="k/09")

    assert [info.key async for info in listing] == ["k/10", "k/11"]
    assert len(asked) == 1


@pytest.mark.anyio
async def test_keys_with_backslashes_are_keys_of_their_own(
    store: AzureStorage,
) -> None:
    """Azure would take them for slashes, and for another object."""
    await store.put("a/b", b"1")
    await store.put("a\\b", b"2", if_absent=True)

    assert await store.get("a/b") == b"1"
    assert await store.get("a\\b") == b"2"
    await store.delete(["a/b", "a\\c"])
    assert [info.key async for info in store.list("a\\")] == ["a\\b"]


@pytest.mark.anyio
async def test_a_store_without_prefix_is_the_container(azurite_url: str) -> None:
    """Its keys are the names of the blobs."""
    container = azurite_url.rpartition("/")[0]
    prefix = azurite_url.rpartition("/")[2]
    store = open_storage(container, Settings())
    inside = open_storage(azurite_url, Settings())

    await store.put(f"{prefix}/k", b"v")

    assert await inside.get("k") == b"v"
    assert [info.key async for info in store.list(prefix)] == [f"{prefix}/k"]
    await store.aclose()
    await inside.aclose()
