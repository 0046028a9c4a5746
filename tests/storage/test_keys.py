"""What is refused before anything is sent, with a message that says why."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wren.storage.keys import MAX_KEY_BYTES, check_key, check_keys, check_range


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "empty"),
        ("/a", "slash"),
        ("a/", "slash"),
        ("/", "slash"),
        ("a//b", "segment ''"),
        (".", "segment '.'"),
        ("a/..", "segment '..'"),
        ("../a", "segment '..'"),
        ("a/./b", "segment '.'"),
        ("a\x00", "control"),
        ("a\tb", "control"),
        ("\x1b[0m", "control"),
        ("a\x7f", "control"),
        ("a\x9f", "control"),
        ("a\udc80", "surrogate"),
        ("x" * 1025, "1024 bytes"),
        ("é" * 513, "1024 bytes"),
    ],
    ids=lambda text: ascii(text[:9]),
)
def test_a_bad_key_is_told_why(key: str, reason: str) -> None:
    """The message is text that any terminal or log can take."""
    with pytest.raises(ValueError, match="the key") as caught:
        check_key(key)

    message = str(caught.value)
    assert reason in message
    assert message.isascii()
    assert len(message) < 250


@pytest.mark.parametrize(
    "key",
    ["a", "...", ".a", "a b", " ", "a/b/c", "é" * 512, "x" * 1024, "\u2028", "~", "%"],
    ids=lambda text: ascii(text[:9]),
)
def test_an_unusual_key_is_returned_as_it_is(key: str) -> None:
    """Only what some store cannot hold is refused."""
    assert check_key(key) == key


@given(st.text(max_size=8))
def test_a_key_that_passes_is_safe(key: str) -> None:
    """What the stores rely on when they build a path or a URL from it."""
    try:
        check_key(key)
    except ValueError:
        return

    segments = key.split("/")
    assert not {"", ".", ".."}.intersection(segments)
    assert 1 <= len(key.encode()) <= MAX_KEY_BYTES
    assert "\0" not in key


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (2, 1), (-3, -2), (0, -1)])
def test_a_bad_range_is_refused(start: int, stop: int | None) -> None:
    """Python's negative indices mean nothing to a store."""
    with pytest.raises(ValueError, match="range"):
        check_range(start, stop)


@pytest.mark.parametrize(("start", "stop"), [(0, None), (0, 0), (5, 5), (1, 10**12)])
def test_a_good_range_passes(start: int, stop: int | None) -> None:
    """An empty one is good, and so is one beyond any object."""
    check_range(start, stop)


def test_keys_may_come_from_any_iterable() -> None:
    """It is read once, and each key is checked."""
    assert check_keys(key for key in ("a", "b")) == ["a", "b"]
    assert check_keys([]) == []
    with pytest.raises(ValueError, match="segment"):
        check_keys(["a", "../b"])


def test_a_single_string_is_no_list_of_keys() -> None:
    """It would be taken for the keys that its characters are."""
    with pytest.raises(TypeError, match="one string"):
        check_keys("ab")


def test_a_key_that_is_no_text_is_refused() -> None:
    """Bytes look like a key and are none."""
    with pytest.raises((TypeError, AttributeError)):
        check_key(cast("Any", b"a"))
