"""Recognise what several requests have in common, so that it is sent once."""

from __future__ import annotations

from itertools import count
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
        self._seen: dict[int, tuple[ref[Any], str]] = {}
        self._names = count()

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
        if found is not None and found[0]() is owner:
            return found[1]
        # Neither its place in memory nor its length tells an array from another one
        # that took its place, and a part of an array from another part.
        name = str(next(self._names))
        try:
            if memoryview(owner).nbytes != length:
                return None
            self._seen[id(owner)] = ref(owner), name
        except (BufferError, TypeError, ValueError):  # no view or weak reference of it
            return None
        return name if length >= _AT_ONCE_FROM else None
