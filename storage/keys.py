"""The rules for arguments that every store shares; checked before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

MAX_KEY_BYTES: Final = 1024
"""Longest key in UTF-8, the limit of S3 and of Google Cloud Storage."""

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")  # Unicode's category Cc
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_SHOWN: Final = 40


def check_key(key: str) -> str:
    """Return ``key`` if it is one that every store can hold.

    Raises:
        ValueError: It is empty or longer than 1024 bytes in UTF-8, begins or ends with
            a slash, has an empty, ``.`` or ``..`` segment, a control character or a
            lone surrogate.
    """
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise _refusal(key, "has a lone surrogate") from None
    if size == 0:
        raise _refusal(key, "is empty")
    if size > MAX_KEY_BYTES:
        raise _refusal(key, f"is longer than {MAX_KEY_BYTES} bytes in UTF-8")
    if _CONTROL.search(key):
        raise _refusal(key, "has a control character")
    if key.startswith("/") or key.endswith("/"):
        raise _refusal(key, "begins or ends with a slash")
    for segment in key.split("/"):
        if segment in {"", ".", ".."}:
            raise _refusal(key, f"has a segment {segment!r}")
    return key


def _refusal(key: str, reason: str) -> ValueError:
    shown = ascii(key if len(key) <= _SHOWN else key[:_SHOWN] + "...")
    return ValueError(f"the key {shown} {reason}")


def sendable(name: str) -> str:
    """Return as much of a text as a key could begin with, and can be sent.

    A listing may be asked for any prefix, and to begin after any text. What a key can
    begin with is the same as before; of anything else, the rest is left out.
    """
    text = _SURROGATE.split(name)[0]
    return text.encode()[:MAX_KEY_BYTES].decode(errors="ignore")


def check_range(start: int, stop: int | None) -> None:
    """Refuse a range that is not one.

    Raises:
        ValueError: ``start`` is negative or ``stop < start``.
    """
    if start < 0 or (stop is not None and stop < start):
        raise ValueError(f"the range [{start}, {stop}) is negative or reversed")


def check_keys(keys: Iterable[str]) -> list[str]:
    """Return the keys to delete, each checked.

    Raises:
        TypeError: ``keys`` is a single string, whose characters nobody meant.
        ValueError: See `check_key`.
    """
    if isinstance(keys, str):
        raise TypeError("expected several keys, got one string: write [key]")
    return [check_key(key) for key in keys]
