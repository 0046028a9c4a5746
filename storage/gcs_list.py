"""Listings, a page at a time, in the order that the service has: that of UTF-8."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from wren.protocols import ObjectInfo
from wren.storage.gcs_bucket import Bucket
from wren.storage.keys import MAX_KEY_BYTES
from wren.storage.location import Location

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class Listing:
    """A listing under way. One thread at a time may use it."""

    def __init__(
        self, bucket: Bucket, location: Location, prefix: str, start_after: str
    ) -> None:
        """Describe a listing; see `Storage.list`."""
        self._bucket = bucket
        self._location = location
        self._prefix = location.prefix + prefix
        self._after = start_after
        self._start = _sendable(location.prefix + start_after) if start_after else ""
        self._token: str | None = None
        self.is_done = _sendable(self._prefix) != self._prefix  # no key begins with it

    def next_page(self) -> Sequence[ObjectInfo]:
        """Return the next page, which may be empty. Blocks for one request.

        After an error it may be called again.
        """
        found, self._token = self._bucket.page(self._prefix, self._start, self._token)
        self.is_done = self._token is None
        return [
            replace(info, key=key)
            for info in found
            # The service begins with the name itself, if there is an object.
            if (key := self._location.relative(info.key)) > self._after
        ]


def _sendable(name: str) -> str:
    """Return as much of a name as an object's could begin with."""
    text = _SURROGATE.split(name)[0]
    return text.encode()[:MAX_KEY_BYTES].decode(errors="ignore")
