"""Could what several clients saw of one key have happened one step after another?

That is linearizability: every operation takes effect at one moment between its
beginning and its end. Deciding it is a search for such an order; after Wing and Gong,
with the memory of visited states that Lowe added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Literal


@dataclass(frozen=True, slots=True)
class Operation:
    """One call on a key, and what came of it."""

    kind: Literal["create", "delete", "get"]
    value: bytes | None
    """What a create wrote or tried to write; what a get found, None for nothing."""

    succeeded: bool
    """False for a create that found the key taken."""

    began: int
    """On the clock of `History`."""

    ended: int


@dataclass(slots=True)
class History:
    """What happened to one key, which was absent at first."""

    operations: list[Operation] = field(default_factory=list[Operation])
    _clock: Iterator[int] = field(default_factory=count)

    def now(self) -> int:
        """Return the time: every call returns more than the one before."""
        return next(self._clock)

    def add(
        self,
        kind: Literal["create", "delete", "get"],
        value: bytes | None,
        began: int,
        *,
        succeeded: bool = True,
    ) -> None:
        """Record an operation that ends now."""
        self.operations.append(Operation(kind, value, succeeded, began, self.now()))


def is_linearizable(operations: Sequence[Operation]) -> bool:
    """Say whether there is an order in which all outcomes are right.

    Args:
        operations: What several clients did to a key that was absent at first.
    """
    every = (1 << len(operations)) - 1
    seen: set[tuple[int, bytes | None]] = set()
    todo: list[tuple[int, bytes | None]] = [(0, None)]  # the operations done, the value
    while todo:
        done, value = todo.pop()
        if done == every:
            return True
        if (done, value) in seen:
            continue
        seen.add((done, value))
        left = [i for i in range(len(operations)) if not done >> i & 1]
        # Whoever ended first was not overtaken by anybody who began after that.
        bound = min(operations[i].ended for i in left)
        todo += [
            (done | 1 << i, _after(operations[i], value))
            for i in left
            if operations[i].began < bound and _is_right(operations[i], value)
        ]
    return False


def _is_right(operation: Operation, value: bytes | None) -> bool:
    """Say whether this outcome is the one to expect when the key has this value."""
    if operation.kind == "get":
        return operation.value == value
    if operation.kind == "create":
        return operation.succeeded == (value is None)
    return True


def _after(operation: Operation, value: bytes | None) -> bytes | None:
    if operation.kind == "delete":
        return None
    if operation.kind == "create" and operation.succeeded:
        return operation.value
    return value
