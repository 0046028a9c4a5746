"""How a worker reads what the driver has stored for it: by grants, and verified."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from wren import grants
from wren.errors import (
    IntegrityError,
    KeyNotFoundError,
    StorageError,
    TransientError,
)

Buffer: TypeAlias = bytes | bytearray | memoryview
B = TypeVar("B", bound=Buffer)

_READS: Final = 3
_PAUSE: Final = 0.2  # seconds after the first of them, at most; then twice that


class CorruptObjectError(IntegrityError):
    """An object is not what the driver has stored, each time that it was read."""


class Blobs:
    """Large buffers that several requests refer to, each fetched by a grant."""

    def __init__(self, offered: Mapping[str, Mapping[str, Any]]) -> None:
        """Take what the request offers.

        Args:
            offered: For each name a grant and a hash; the hash is None where nobody
                else could have written.
        """
        self._offered = offered

    def get(self, name: str) -> memoryview:
        """Return the content: private, and writable; of a file, on write.

        Raises:
            CorruptObjectError: See `retrieve`.
            StorageError: See `retrieve`.
        """
        offer = self._offered[name]
        return retrieve(grants.fetch_buffer, offer["grant"], offer["sha256"])


def retrieve(
    fetch: Callable[[Mapping[str, Any]], B],
    grant: Mapping[str, Any],
    sha256: str | None,
) -> B:
    """Return the content of an object.

    It is known to be there, and what it is. So one that is missing or different is read
    again: a store may be late, or a body bent on its way.

    Args:
        fetch: Of `wren.grants`.
        grant: A GET.
        sha256: What its content hashes to; None if that need not be verified.

    Raises:
        CorruptObjectError: It is another one, three times.
        KeyNotFoundError: It is not there, three times.
        StorageError: See `wren.grants.fetch`.
    """
    for tries in range(1, _READS + 1):
        try:
            data = fetch(grant)
            if sha256 is not None:
                verify(data, sha256)
        except KeyNotFoundError:
            if tries == _READS:
                raise
        except IntegrityError as exc:
            if tries == _READS:
                raise CorruptObjectError(f"{exc}, read {tries} times") from exc
        else:
            return data
        from random import uniform  # rarely needed

        time.sleep(uniform(0, _PAUSE * tries))  # noqa: S311  # not a secret
    raise AssertionError("the last try returns or raises")


def verify(data: Buffer, sha256: str) -> None:
    """Compare content with its hash.

    Raises:
        IntegrityError: It is another one.
    """
    if hashlib.sha256(data).hexdigest() != sha256:
        raise IntegrityError(f"the content that was received is not {sha256}")


def reason(exc: StorageError) -> str:
    """Return the word for a request that is refused as something cannot be read.

    ``grant``: the driver should make another. ``transient``: a new attempt may help.
    ``storage``: nothing will.
    """
    if isinstance(exc, grants.RefusedGrantError):
        return "grant"
    if isinstance(exc, TransientError | KeyNotFoundError):
        return "transient"
    return "storage"
