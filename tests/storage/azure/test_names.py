"""Keys as names of blobs: what Azure would change does not get there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wren.storage.azure_names import MAX_CHARACTERS, decode, encode, encode_key

TEXT = st.text("a[\\]Z/0é1", max_size=6)


@given(TEXT)
def test_names_lead_back_to_their_keys(text: str) -> None:
    """And none has a backslash, which would become a slash."""
    assert "\\" not in encode(text)
    assert decode(encode(text)) == text


@given(TEXT, TEXT)
def test_names_are_in_the_order_of_their_keys(one: str, other: str) -> None:
    """So the service's listings are, and begin and continue where they should."""
    assert (encode(one) < encode(other)) == (one < other)
    assert encode(one).startswith(encode(other)) == one.startswith(other)


@pytest.mark.parametrize("name", ["a\\b", "[", "a[", "[2", "a[b", "[0[", "[\n"])
def test_a_name_of_another_making_is_no_key(name: str) -> None:
    """Otherwise two blobs would be listed under one key."""
    assert decode(name) is None


def test_a_name_may_be_too_long_where_a_key_is_not() -> None:
    """Azure counts characters, after encoding."""
    assert encode_key("é" * 512) == "é" * 512
    assert len(encode_key("[" * (MAX_CHARACTERS // 2))) == MAX_CHARACTERS
    with pytest.raises(ValueError, match="1026 characters"):
        encode_key("\\" * (MAX_CHARACTERS // 2 + 1))
