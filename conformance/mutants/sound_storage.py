"""What the broken stores are made from."""

from __future__ import annotations

from typing import ClassVar

from wren.conformance.wrappers import WrappedStorage
from wren.errors import KeyNotFoundError
from wren.storage.memory import MemoryStorage

MUTANTS: list[type[Sound]] = []


class Sound(WrappedStorage[MemoryStorage]):
    """Passes everything on, unchanged, to a store that passes the suite."""

    caught_by: ClassVar[tuple[str, ...]] = ()
    """Identities of the checks of which at least one must fail."""

    def __init_subclass__(cls, caught_by: str) -> None:
        cls.caught_by = tuple(caught_by.split())
        MUTANTS.append(cls)

    def __init__(self) -> None:
        super().__init__(MemoryStorage())

    async def has(self, key: str) -> bool:
        """Say whether there is an object."""
        try:
            await self.inner.head(key)
        except KeyNotFoundError:
            return False
        return True
