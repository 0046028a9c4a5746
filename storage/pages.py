"""Listings that are read a page at a time and may be left at any item."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from wren.protocols import ObjectInfo


class Pages(AsyncIterator[ObjectInfo]):
    """Yields the objects of each page in turn.

    An async generator would do the same, but trio warns about one that is left before
    its end and not closed, and whoever leaves an ``async for`` does not close it.
    """

    def __init__(self, read: Callable[[], Awaitable[Sequence[ObjectInfo]]]) -> None:
        """Make a listing.

        Args:
            read: Returns the next page; an empty one is the end. It is not called
                before the first object is asked for.
        """
        self._read = read
        self._page: Sequence[ObjectInfo] = ()
        self._next = 0

    async def __anext__(self) -> ObjectInfo:
        if self._next == len(self._page):
            self._page = await self._read()
            self._next = 0
            if not self._page:
                raise StopAsyncIteration
        self._next += 1
        return self._page[self._next - 1]
