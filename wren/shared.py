"""Recognise what several requests have in common, so that it is sent once."""

from __future__ import annotations

from typing import Any
from weakref import ref

from wren.envelope import Buffer
from wren.functions import SHARED_FROM


class CommonBuffers:
    """Recognises a large buffer that comes a second time."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[ref[Any], str]] = {}

    def name_of(self, buffer: Buffer) -> str | None:
        """Return a name for a buffer seen before, or None the first time."""
        view = memoryview(buffer)
        owner = view.obj
        if len(view) < SHARED_FROM:
            return None
        seen = self._seen.get(id(owner))
        if seen is not None and seen[0]() is owner:
            return seen[1]
        try:
            self._seen[id(owner)] = ref(owner), f"{id(owner):x}-{len(self._seen)}"
        except TypeError:  # no weak references to this type
            pass
        return None
