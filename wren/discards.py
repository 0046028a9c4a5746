"""What requests that were answered leave in storage, removed several at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

MOST_KEYS: Final = 100
MOST_BYTES: Final = 64 << 20


class Discards:
    """Gathers objects that nobody needs any more, and removes them together.

    One request to the store for each of them would cost as much as reading it did.
    """

    def __init__(self, delete: Callable[[Sequence[str]], Awaitable[None]]) -> None:
        """Begin with none.

        Args:
            delete: Removes objects.
        """
        self._delete = delete
        self._keys: list[str] = []
        self._bytes = 0

    async def add(self, keys: Sequence[str], size: int) -> None:
        """Add objects; remove all that were added once they are too many.

        Args:
            keys: Their keys.
            size: Bytes in all.
        """
        self._keys += keys
        self._bytes += size
        if len(self._keys) >= MOST_KEYS or self._bytes >= MOST_BYTES:
            unwanted, self._keys, self._bytes = self._keys, [], 0
            await self._delete(unwanted)
