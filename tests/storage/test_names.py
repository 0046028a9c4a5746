"""No key escapes the directory or meets another key's file."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from wren.files import TEMPORARY
from wren.storage.keys import check_key
from wren.storage.names import (
    CONTINUED,
    OBJECT,
    decode,
    directory_path,
    object_path,
)

SEGMENT = st.text("aA.é%=+~- \U0001f426", min_size=1, max_size=60) | st.text(
    min_size=1, max_size=300
)
SAFE = re.compile(r"[a-z0-9_%-]+[=+]?", re.ASCII)


@st.composite
def valid_keys(draw: st.DrawFn) -> str:
    """Return a key that `check_key` takes."""
    key = "/".join(draw(st.lists(SEGMENT, min_size=1, max_size=3)))
    try:
        return check_key(key)
    except ValueError:
        assume(False)
        raise


@given(valid_keys())
def test_names_are_safe_on_any_file_system(key: str) -> None:
    """No case to fold, no accent to normalise, no dot at all, and none too long."""
    for name in object_path(key):
        assert SAFE.fullmatch(name)
        assert len(name) <= 255
        assert not name.startswith(TEMPORARY)


@given(valid_keys())
def test_only_the_last_name_is_an_objects(key: str) -> None:
    """So a key can be the beginning of another."""
    *above, last = object_path(key)

    assert last.endswith(OBJECT)
    assert not any(name.endswith(OBJECT) for name in above)
    assert [*above, last.removesuffix(OBJECT)] == directory_path(key)


@given(valid_keys())
def test_a_path_leads_back_to_its_key(key: str) -> None:
    """Which also means that no two keys share a file."""
    *above, last = object_path(key)
    segments: list[str | None] = []
    stem = ""
    for name in (*above, last.removesuffix(OBJECT)):
        stem += name.removesuffix(CONTINUED)
        if not name.endswith(CONTINUED):
            segments.append(decode(stem))
            stem = ""

    assert segments == key.split("/")


def test_what_wren_did_not_write_means_nothing() -> None:
    """Another program's file, or an encoding that is not ours, is no key."""
    for name in (
        *("", "README", "a.txt", "A", "%41%zz", "%C3%A9", "%61", "é", "a b"),
        *("%2e", "%2e%2e", "a%2fb", "%2f", "%00", "%0a", "%ff", "%ed%a0%80", "a~", "%"),
    ):
        assert decode(name) is None


def test_a_long_segment_goes_on_in_another_directory() -> None:
    """Each part but the last has the same length, so that equal beginnings share it."""
    for length in (240, 241, 480, 481, 1024):
        path = object_path("n" * length)

        assert len(path) == -(-length // 240)
        assert all(len(first) >= len(second) for first, second in pairwise(path))
        assert "".join(name[:-1] for name in path) == "n" * length
