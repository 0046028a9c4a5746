"""Listings, a page at a time, in the order that the service has: that of UTF-8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from wren.protocols import ObjectInfo
from wren.storage.gcs_threads import Threads
from wren.storage.keys import sendable
from wren.storage.location import Location

if TYPE_CHECKING:
    from wren.storage.gcs_bucket import Bucket

_Page: TypeAlias = tuple[list[ObjectInfo], str | None]


class Listing:
    """A listing under way."""

    def __init__(
        self,
        threads: Threads,
        location: Location,
        prefix: str,
        start_after: str,
    ) -> None:
        """Describe a listing; see `Storage.list`."""
        self._threads = threads
        self._location = location
        self._prefix = location.prefix + prefix
        self._after = start_after
        self._start = sendable(location.prefix + start_after) if start_after else ""
        self._token: str | None = None
        # Nothing is asked for where no key can begin with the prefix.
        self._is_done = sendable(self._prefix) != self._prefix

    async def read(self) -> Sequence[ObjectInfo]:
        """Return the next page; an empty one is the end.

        After an error or a cancellation, the same page is the next one.
        """
        page: Sequence[ObjectInfo] = ()
        while not page and not self._is_done:
            found, self._token = await self._threads.look(self._page(self._token))
            self._is_done = self._token is None
            page = [
                replace(info, key=key)
                for info in found
                # The service begins with the name itself, if there is an object.
                if (key := self._location.relative(info.key)) > self._after
            ]
        return page

    def _page(self, token: str | None) -> Callable[[Bucket], _Page]:
        return lambda bucket: bucket.page(self._prefix, self._start, token)
