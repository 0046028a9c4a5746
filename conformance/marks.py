"""How the suite sees what happens on a worker, wherever that is: through a store.

A worker that shall not return, or shall not run at all, says by grants what it does: it
makes *marks*, which are counted; it waits at a *gate*; it *beats* as long as it lives.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
from anyio import current_time

from wren.errors import KeyNotFoundError
from wren.grants import to_json
from wren.protocols import Storage

VALID: Final = 3600.0
"""Seconds for which the grants are valid."""

_PLACES: Final = 4
_PAUSE: Final = 0.02
_SILENCE: Final = 1.0


class Marks:
    """Marks, gates and beats, each by a name."""

    def __init__(self, store: Storage) -> None:
        self.store = store

    async def places(self, name: str) -> list[dict[str, Any]]:
        """Return where up to four executions can make a mark."""
        return [
            to_json(
                await self.store.grant(
                    f"{name}/{number}", "PUT", expires_in=VALID, if_absent=True
                )
            )
            for number in range(_PLACES)
        ]

    async def count(self, name: str) -> int:
        """Return how many executions have made a mark."""
        prefix = f"{name}/"
        words = {await self.store.get(o.key) async for o in self.store.list(prefix)}
        return len(words)

    async def made(self, *names: str, seconds: float) -> None:
        """Wait until there is a mark of each name. After so many seconds, assert."""
        missing = set(names)

        async def made() -> bool:
            nonlocal missing
            missing -= {name for name in missing if await self.count(name)}
            return not missing

        await happens(made, seconds)
        assert not missing, f"not executed within {seconds:g} s: {sorted(missing)}"

    async def gate(self, name: str) -> dict[str, Any]:
        """Return what a worker waits at until `open`."""
        return to_json(await self.store.grant(name, "GET", expires_in=VALID))

    async def open(self, name: str) -> None:
        """Let go on what waits."""
        await self.store.put(name, b"")

    async def heart(self, name: str) -> dict[str, Any]:
        """Return where a process can beat."""
        return to_json(await self.store.grant(name, "PUT", expires_in=VALID))

    async def beats(self, name: str, seconds: float) -> None:
        """Wait for the first beat. After so many seconds, assert."""

        async def begun() -> bool:
            return await self._read(name) is not None

        assert await happens(begun, seconds), f"{name!r}: not within {seconds:g} s"

    async def stops(self, name: str, seconds: float) -> None:
        """Wait until a second has passed without a beat. If that takes longer, assert.

        Args:
            name: What has begun to beat.
            seconds: How long it may go on.
        """
        before = await self._read(name)
        assert before is not None, f"{name!r} never began"
        since = current_time()

        async def silent() -> bool:
            nonlocal before, since
            now = await self._read(name)
            if now != before:
                before, since = now, current_time()
            return current_time() - since > _SILENCE

        stopped = await happens(silent, seconds + _SILENCE)
        assert stopped, f"{name!r} still runs after {seconds:g} s"

    async def _read(self, name: str) -> bytes | None:
        try:
            return await self.store.get(name)
        except KeyNotFoundError:
            return None


async def happens(true: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Wait until something is true that sets no event; False if it is not in time."""
    deadline = current_time() + seconds
    while not await true():
        if current_time() > deadline:
            return False
        await anyio.sleep(_PAUSE)
    return True
