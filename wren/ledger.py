"""The outcomes of one job: which task ended how, and who waits for that."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

import anyio

from wren.errors import InvalidStateError, TaskCancelledError


class _Pending:
    def __repr__(self) -> str:
        return "PENDING"


PENDING: Final = _Pending()

_GIVEN: Final = object()
"""Takes the place of an outcome that a stream's reader has."""

_GIVEN_AWAY: Final = (
    "the results of an input without a length are given once, and are being read "
    "already: await the job instead, or make a list of its input"
)

_KEPT: Final = 64
"""Outcomes that may stay although they were read, because dropping costs time."""


Order: TypeAlias = Literal["input", "completion"]


class Failed:
    """Stands where a result would, so that a *returned* exception is told apart."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


class Ledger:
    """One slot for each task that was taken from the input, and the rules for them.

    A slot is pending until it gets its outcome, and then never changes. Outcomes come
    in slices, because a slice costs a few nanoseconds a task. What a stream's reader
    has read is dropped, so that it can be read only once.
    """

    def __init__(self, streaming: bool) -> None:
        """Begin.

        Args:
            streaming: The input has no length, so that what was read is to be dropped.
        """
        self._streaming = streaming
        self._slots: list[Any] = []
        self._base = 0
        self._pending = 0
        self._read = 0
        self._given = 0  # all tasks below have been given to a stream's reader
        self._claimed: Order | None = None
        self._closed = False
        self._end: Exception | None = None
        self._early: set[int] = set()  # settled alone while their slice is under way
        self._foretold: dict[int, Failed] = {}  # settled before they were taken
        self._completed: deque[tuple[int, int]] | None = deque()
        self.first_failure: Exception | None = None
        self._waiting: list[anyio.Event] = []
        self._waiting_done: list[anyio.Event] = []
        self._waiting_one: dict[int, list[anyio.Event]] = {}

    # --- written by dispatch --------------------------------------------------------

    @property
    def taken(self) -> int:
        """Tasks taken from the input so far."""
        return self._base + len(self._slots)

    @property
    def unread(self) -> int:
        """Tasks taken whose outcome nobody has read yet."""
        return self.taken - self._read

    def reserve(self, count: int) -> int:
        """Add pending slots and return the index of the first."""
        start = self.taken
        self._slots += [PENDING] * count
        self._pending += count
        return start

    def reserve_only(self) -> None:
        """Add the pending slot of a job that has one task."""
        self._slots.append(PENDING)
        self._pending = 1
        self._closed = True

    def settle(
        self, start: int, outcomes: Sequence[Any], failure: Exception | None = None
    ) -> Sequence[Any]:
        """Give a slice of tasks their outcomes; those that have one keep it.

        Args:
            start: Index of the first.
            outcomes: A value or a `Failed` for each.
            failure: The first failure among them.

        Returns:
            Those of the outcomes that came too late.
        """
        count = len(outcomes)
        at = start - self._base
        early: Sequence[int] = ()
        late: Sequence[Any] = ()
        if self._early:
            early = sorted(self._early.intersection(range(start, start + count)))
        if early:
            late = [outcomes[index - start] for index in early]
            outcomes = list(outcomes)
            for index in early:
                outcomes[index - start] = self._slots[index - self._base]
            self._early.difference_update(early)
        self._slots[at : at + count] = outcomes
        self._pending -= count - len(early)
        if self._completed is not None:
            self._completed.extend(_without(start, count, early))
        if failure is not None and self.first_failure is None:
            self.first_failure = failure
            self._wake_done()
        self._wake(start, count)
        return late

    def fail(self, index: int, error: Exception) -> bool:
        """Let one task end with an exception, ahead of its slice.

        Returns:
            False if it had an outcome already.
        """
        at = index - self._base
        if not 0 <= at < len(self._slots) or self._slots[at] is not PENDING:
            return False
        self.settle(index, [Failed(error)], error)
        self._early.add(index)
        return True

    def foretell(self, index: int, error: Exception) -> None:
        """Say how a task will have ended that has not been taken yet."""
        self._foretold[index] = Failed(error)
        self._wake(index, 1)

    def foretold(self, start: int, count: int) -> list[int]:
        """Return, in order, and forget which of these tasks were foretold."""
        if not self._foretold:
            return []
        found = sorted(self._foretold.keys() & range(start, start + count))
        for index in found:
            del self._foretold[index]
        return found

    def close(self, end: Exception | None = None) -> None:
        """Say that no more tasks will come.

        Args:
            end: Why, if not because the input ended. Tasks never taken end with it.
        """
        self._closed = True
        if self._end is None:
            self._end = end
        self._wake_all()

    def _wake(self, start: int, count: int) -> None:
        for event in self._waiting:
            event.set()
        self._waiting.clear()
        if self._waiting_one:
            for index in self._waiting_one.keys() & range(start, start + count):
                for event in self._waiting_one.pop(index):
                    event.set()
        if self.done:
            self._wake_done()

    def _wake_done(self) -> None:
        for event in self._waiting_done:
            event.set()
        self._waiting_done.clear()

    def _wake_all(self) -> None:
        self._wake(0, 0)
        self._wake_done()
        for index in [n for n in self._waiting_one if n >= self.taken]:
            for event in self._waiting_one.pop(index):
                event.set()

    # --- read by Job and Future -----------------------------------------------------

    @property
    def done(self) -> bool:
        """No task is pending and no more will come."""
        return self._closed and self._pending == 0

    @property
    def end(self) -> Exception | None:
        """Why the job ended before its input did."""
        return self._end

    @property
    def pending(self) -> int:
        """Tasks taken that have no outcome yet."""
        return self._pending

    def outcome(self, index: int) -> Any:
        """Return a task's value or `Failed`, or `PENDING`.

        Of a task that a stream's reader has gone past it is neither of them.
        """
        at = index - self._base
        if at < len(self._slots):
            return self._slots[at] if at >= 0 else _GIVEN
        if index in self._foretold:
            return self._foretold[index]
        if not self._closed:
            return PENDING
        return Failed(self._end or TaskCancelledError(f"there is no task {index}"))

    def ended_before(self, index: int) -> bool:
        """Whether it is certain that there is no task with this index."""
        return self._closed and index >= self.taken

    def results(self) -> list[Any]:
        """Return all values; each `Failed` as its exception."""
        if self.first_failure is None:
            return self._slots
        return [slot.error if type(slot) is Failed else slot for slot in self._slots]

    def next_completed(self) -> tuple[int, Any] | None:
        """Return the index and outcome that came next, each once, or None."""
        if not self._completed:
            return None
        index, count = self._completed.popleft()
        if count > 1:
            self._completed.appendleft((index + 1, count - 1))
        return index, self._slots[index - self._base]

    def keep(self) -> None:
        """Keep all outcomes, unless a reader has begun to take them."""
        if self._claimed is None:
            self._streaming = False

    def check_kept(self) -> None:
        """Make sure that no outcome was, or will be, dropped.

        Raises:
            InvalidStateError: They are being given to a reader.
        """
        if self._claimed is not None:
            raise InvalidStateError(_GIVEN_AWAY)

    @property
    def unclaimed(self) -> bool:
        """Outcomes are to be given to a reader, and there has been none."""
        return self._streaming and self._claimed is None

    def claim(self, order: Order) -> None:
        """Begin to read outcomes one after the other.

        Raises:
            InvalidStateError: They are being given to another reader.
        """
        if not self._streaming:
            return
        if self._claimed is not None and "input" in (order, self._claimed):
            raise InvalidStateError(_GIVEN_AWAY)
        self._claimed = order
        if order == "input":
            self._completed = None

    def read(self, index: int) -> None:
        """Note that a reader in input order has gone past this task."""
        if self._streaming:
            self._read = self._given = index + 1
            self._drop()

    def read_completed(self, index: int) -> None:
        """Note that a reader in order of completion has gone past this task."""
        if not self._streaming:
            return
        self._read += 1
        slots, base = self._slots, self._base
        slots[index - base] = _GIVEN
        while self._given < self.taken and slots[self._given - base] is _GIVEN:
            self._given += 1
        self._drop()

    def _drop(self) -> None:
        drop = self._given - self._base
        if drop > _KEPT and 2 * drop > len(self._slots):
            del self._slots[:drop]
            self._base = self._given
            if self._early:
                self._early = {n for n in self._early if n >= self._base}

    async def wait_change(self) -> None:
        """Wait until some task gets its outcome or the job is closed."""
        await self._wait(self._waiting)

    async def wait_done_or_failed(self) -> None:
        """Wait until all tasks have their outcome, or the first one fails."""
        await self._wait(self._waiting_done)

    async def wait_for(self, index: int) -> None:
        """Wait until this task has its outcome."""
        await self._wait(self._waiting_one.setdefault(index, []))

    @staticmethod
    async def _wait(waiting: list[anyio.Event]) -> None:
        event = anyio.Event()
        waiting.append(event)
        try:
            await event.wait()
        finally:
            if event in waiting:
                waiting.remove(event)


def _without(start: int, count: int, early: Sequence[int]) -> list[tuple[int, int]]:
    """Return the range as (first, count) pieces that leave some indices out."""
    pieces: list[tuple[int, int]] = []
    for index in (*early, start + count):
        if index > start:
            pieces.append((start, index - start))
        count -= index + 1 - start
        start = index + 1
    return pieces
