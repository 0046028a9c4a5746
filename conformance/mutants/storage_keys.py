"""Stores that change keys."""

from __future__ import annotations

import unicodedata

from wren.conformance.mutants.sound_storage import Sound
from wren.protocols import Buffer


class KeyCaseFolded(Sound, caught_by="S20"):
    """Is a file system that does not tell upper case from lower."""

    def change(self, key: str) -> str:
        """Return the key under which an object is kept."""
        return key.lower()

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        return await self.inner.get(self.change(key), start=start, stop=stop)

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        await self.inner.put(self.change(key), data, if_absent=if_absent)


class KeyUnicodeNFC(KeyCaseFolded, caught_by="S20"):
    """Composes accents."""

    def change(self, key: str) -> str:
        return unicodedata.normalize("NFC", key)


class KeyUnquoted(KeyCaseFolded, caught_by="S20"):
    """Takes what looks like an escape in a URL for one."""

    def change(self, key: str) -> str:
        return key.replace("%2F", "/").replace("+", " ")


class DotDotAccepted(KeyCaseFolded, caught_by="S21"):
    """Lets a path decide what a key may be."""

    def change(self, key: str) -> str:
        return key.replace("../", "up/")


class LongKeyCut(KeyCaseFolded, caught_by="S22"):
    """Fits keys into a file name."""

    def change(self, key: str) -> str:
        return key[:255]
