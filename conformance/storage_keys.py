"""Checks of which keys there are, and of which there are none."""

from __future__ import annotations

from typing import Final

import pytest

from wren.conformance.spec import check
from wren.conformance.storage_calls import VALID, Call, keys_of, put_all
from wren.protocols import Storage

_HOSTILE: Final = (
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../x",
    "a/../b",
    "a/./b",
    "a/..",
    "a\x00b",
    "a\nb",
    "a\x7f",
    "a\x85",
    "x" * 1025,
    "é" * 513,
    "\udc80",
    "a/\ud800",
)

_STRANGE: Final = (
    "A",
    "a",
    "e\u0301",
    "\u00e9",
    "sp ace",
    " ",
    "pct%2F",
    "pct%2f",
    "q?x=#1",
    "plus+",
    "equals=",
    "a=/b",
    "a+/b",
    ".hidden",
    ".wren-0",
    "...",
    "~",
    "back\\slash",
    "..\\up",
    "CON",
    "日本",
    "\U0001f426",
    "\uffee",
    "-rf",
    "*",
)


class KeyChecks:
    """A key is text that comes back as it is, or is refused by every store alike."""

    @pytest.fixture
    def longest_key(self) -> int:
        """Bytes of the longest key: 1024, less those of the store's prefix."""
        return 1024

    @check("S20")
    async def test_keys_are_preserved(self, store: Storage) -> None:
        """Case, Unicode form, spaces and what means something to URLs or files."""
        for number, key in enumerate(_STRANGE):
            await store.put(key, bytes([number]))

        assert await keys_of(store) == sorted(_STRANGE)
        for number, key in enumerate(_STRANGE):
            assert await store.get(key) == bytes([number])
            assert (await store.head(key)).key == key
            assert await keys_of(store, key) == sorted(
                other for other in _STRANGE if other.startswith(key)
            )
        await store.delete(_STRANGE)
        assert await keys_of(store) == []

    @check("S21")
    @pytest.mark.parametrize("key", _HOSTILE, ids=lambda key: ascii(key[:9]))
    async def test_hostile_key_is_refused(self, store: Storage, key: str) -> None:
        """By every method, before anything is sent."""
        calls: list[Call] = [
            lambda: store.get(key),
            lambda: store.put(key, b""),
            lambda: store.head(key),
            lambda: store.delete([key]),
        ]
        if store.capabilities.conditional_put:
            calls.append(lambda: store.put(key, b"", if_absent=True))
        if store.capabilities.grants:
            calls.append(lambda: store.grant(key, "GET", expires_in=VALID))
            calls.append(lambda: store.grant(key, "PUT", expires_in=VALID))

        for call in calls:
            with pytest.raises(ValueError, match="the key"):
                await call()

        assert await keys_of(store) == []

    @check("S21")
    async def test_delete_checks_all_keys_first(self, store: Storage) -> None:
        """Nothing is deleted when one of the keys is none."""
        await store.put("a", b"1")

        with pytest.raises(ValueError, match="the key"):
            await store.delete(["a", "../b"])

        assert await keys_of(store) == ["a"]

    @check("S22")
    @pytest.mark.parametrize("shape", ["accents", "plain", "deep", "two"])
    async def test_longest_keys_are_held(
        self, store: Storage, longest_key: int, shape: str
    ) -> None:
        """1024 bytes of UTF-8, less the store's prefix, in segments of any length."""
        key = _long_key(shape, longest_key)

        await store.put(key, b"v")

        assert await store.get(key) == b"v"
        assert await keys_of(store) == [key]
        assert await keys_of(store, key) == [key]
        await store.delete([key])
        assert await keys_of(store) == []

    @check("S22")
    async def test_long_keys_are_listed_in_order(self, store: Storage) -> None:
        """Around the length at which a name no longer fits into a file name."""
        stems = ["n" * 239, "n" * 240, "n" * 241, "n" * 481, "é" * 40, "é" * 41]
        wanted = [stem + end for stem in stems for end in ("", "-", "/z", "0", "/z/y")]
        await put_all(store, wanted)

        assert await keys_of(store) == sorted(wanted)
        for key in wanted:
            assert await keys_of(store, key) == sorted(
                other for other in wanted if other.startswith(key)
            )


def _long_key(shape: str, size: int) -> str:
    """Return a key of that many bytes in UTF-8."""
    if shape == "plain":
        return "x" * size
    if shape == "accents":
        return "é" * (size // 2) + "x" * (size % 2)
    if shape == "deep":
        return "A/" * ((size - 1) // 2) + "Aa"[: 1 + (size - 1) % 2]
    half = "é" * (size // 4)
    return half + "/" + "Y" * (size - 1 - len(half.encode()))
