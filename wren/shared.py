"""Recognise what several requests have in common, so that it is sent once."""

from __future__ import annotations

from typing import Any, Final
from weakref import ref

from wren.envelope import Buffer
from wren.functions import SHARED_FROM

_AT_ONCE_FROM: Final = 64 << 20
"""Bytes from which a buffer is stored without waiting for it to come again. Below, it
costs less to send it; above, a worker that maps what is stored saves a copy."""


class CommonBuffers:
    """Recognises large buffers that come more than once."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[ref[Any], int, str]] = {}

    def name_of(self, buffer: Buffer) -> str | None:
        """Return a name for a buffer that is to be stored; None to send it.

        Args:
            buffer: A view of memory whose owner is the object that was pickled. It is
                recognised as long as that object lives.
        """
        view = memoryview(buffer)
        length = len(view)
        if length < SHARED_FROM:
            return None
        owner = view.obj
        found = self._seen.get(id(owner))
        if found is not None and found[0]() is owner and found[1] == length:
            return found[2]
        name = f"{len(self._seen)}-{id(owner):x}"
        try:
            self._seen[id(owner)] = ref(owner), length, name
        except TypeError:  # no weak references to this type
            return None
        return name if length >= _AT_ONCE_FROM else None
