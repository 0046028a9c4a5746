"""The tasks of one request."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wren.serialize import Many

if TYPE_CHECKING:
    import anyio


class Batch:
    """Consecutive tasks that travel in one request.

    Attributes:
        start: Index of the first.
        items: Their arguments, kept until there is an outcome.
        attempt: The number of this attempt, from 1; the same for all of them.
        many: The arguments, if they are pickled already.
        unsent: Failures of sending that did not count as an attempt.
        refused_grants: How often the store refused what a worker showed it.
        carry: The request must carry the function.
        scope: Cancels the invocation under way.
        pending: Its tasks have no outcome yet, and no other batch has taken them over.
        queued: When the arguments were taken, in seconds since the epoch.
        request: Name of the request; all its attempts share it.
        blobs: Names of stored buffers that the request under way refers to.
    """

    __slots__ = (
        "attempt",
        "blobs",
        "carry",
        "items",
        "many",
        "pending",
        "queued",
        "refused_grants",
        "request",
        "scope",
        "start",
        "unsent",
    )

    def __init__(
        self,
        start: int,
        items: Sequence[Any],
        attempt: int = 1,
        many: Many | None = None,
    ) -> None:
        self.start = start
        self.items = items
        self.attempt = attempt
        self.many = many
        self.unsent = 0
        self.refused_grants = 0
        self.carry = False
        self.scope: anyio.CancelScope | None = None
        self.pending = True
        self.queued = time.time()
        self.request = ""
        self.blobs: tuple[str, ...] = ()

    def again(self) -> list[Batch]:
        """Return the next attempt of each task, alone.

        One that was alone keeps its name, so that a late response to an earlier attempt
        is found.
        """
        batches = self.split(self.attempt + 1)
        if len(batches) == 1:
            batches[0].request = self.request
        return batches

    def split(self, attempt: int) -> list[Batch]:
        """Return each task as a batch of its own."""
        return [
            self.part(position, position + 1, attempt)
            for position in range(len(self.items))
        ]

    def part(self, begin: int, end: int, attempt: int) -> Batch:
        """Return some of the tasks as a batch of their own.

        Args:
            begin: Position of the first.
            end: One past the last.
            attempt: The number of their next attempt.
        """
        part = Batch(self.start + begin, self.items[begin:end], attempt)
        part.queued = self.queued
        return part

    def without(self, positions: Sequence[int]) -> list[Batch]:
        """Return the tasks but for some, as batches of consecutive ones."""
        pieces: list[Batch] = []
        begin = 0
        for position in (*sorted(positions), len(self.items)):
            if position > begin:
                pieces.append(self.part(begin, position, self.attempt))
            begin = position + 1
        return pieces
