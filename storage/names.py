"""Keys as paths: where in a directory tree the object with a given key lies.

    key                  path
    jobs/7/in            jobs/7/in=
    jobs/7               jobs/7=
    Run 1/é.csv          %52un%201/%c3%a9%2ecsv=
    aaa…a (300 bytes)    aaa…a+/aaa…a=       240 and 60 bytes

An object's file ends in ``=`` and a directory does not, so one key may be the beginning
of another. A segment too long for a file name goes on in a directory that ends in
``+``. Everything but ``a-z 0-9 - _`` is percent-encoded, so that a file system that
folds case or normalises Unicode preserves every key, and so that no key can become
``..``, a hidden file, or the name of a temporary file.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from wren.storage.keys import check_key

OBJECT: Final = "="
"""Ends the name of a file that holds an object."""

CONTINUED: Final = "+"
"""Ends the name of a directory in which a long segment goes on."""

_PLAIN: Final = re.compile(r"[a-z0-9_-]+", re.ASCII)
_ENCODED: Final = [
    chr(byte) if _PLAIN.fullmatch(chr(byte)) else f"%{byte:02x}" for byte in range(256)
]
_LONGEST: Final = 240  # most file systems allow 255 bytes


def object_path(key: str) -> list[str]:
    """Return the names on the way to an object's file, the file's own included."""
    names = directory_path(key)
    names[-1] += OBJECT
    return names


def directory_path(key: str) -> list[str]:
    """Return the names on the way to the directory of the keys below ``key/``."""
    names: list[str] = []
    for segment in key.split("/"):
        name = _encode(segment)
        while len(name) > _LONGEST:
            names.append(name[:_LONGEST] + CONTINUED)
            name = name[_LONGEST:]
        names.append(name)
    return names


def decode(name: str) -> str | None:
    """Return the segment that a name stands for, or None if wren did not write it.

    Args:
        name: The whole segment, without suffixes, the parts of a long one joined.
    """
    if _PLAIN.fullmatch(name):
        return name
    try:
        segment = check_key(unquote_to_bytes(name).decode())
    except ValueError:
        return None
    return segment if "/" not in segment and _encode(segment) == name else None


def _encode(segment: str) -> str:
    if _PLAIN.fullmatch(segment):
        return segment
    return "".join(_ENCODED[byte] for byte in segment.encode())
