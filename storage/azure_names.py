"""Keys as names of blobs, and back.

The service takes a backslash for a slash [1], so that two keys would be one blob. It is
written as two characters, and so is the one that these begin with. Nothing else
changes, and neither do the order of keys and which key begins with which.

[1]: https://github.com/versity/versitygw/issues/845
"""

from __future__ import annotations

import re
from typing import Final

MAX_CHARACTERS: Final = 1024
"""Longest name, the limit of the service."""

_ESCAPES: Final = {"[": "[0", "\\": "[1"}  # these follow each other in Unicode
_CHARACTERS: Final = {escape: character for character, escape in _ESCAPES.items()}
_TO_ESCAPE: Final = re.compile(r"[\[\\]")
_ESCAPED: Final = re.compile(r"\[.?|\\", re.DOTALL)


def encode(text: str) -> str:
    """Return a key, or what it begins with, as it is in the name of a blob."""
    return _TO_ESCAPE.sub(lambda found: _ESCAPES[found[0]], text)


def encode_key(key: str) -> str:
    """Return the name for a key.

    Raises:
        ValueError: It is too long; possible only with many ``[`` or backslashes.
    """
    name = encode(key)
    if len(name) > MAX_CHARACTERS:
        raise ValueError(
            f"the key has {len(name)} characters, [ and \\ counted twice, and"
            f" {MAX_CHARACTERS} are the most in a container of Azure's"
        )
    return name


def decode(name: str) -> str | None:
    """Return the text of which a name was made; None if it was made otherwise."""
    if any(escape not in _CHARACTERS for escape in _ESCAPED.findall(name)):
        return None
    return _ESCAPED.sub(lambda found: _CHARACTERS[found[0]], name)
