"""The outcomes of one job: which task ended how, and who waits for that."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import anyio

from wren.errors import TaskCancelledError


class _Pending:
    def __repr__(self) -> str:
        return "PENDING"


PENDING: Final = _Pending()


class Failed:
    """Stands where a result would, so that a *returned* exception is told apart."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


class Ledger:
    """One slot for each task that was taken from the input, and the rules for them.

    A slot is pending until it gets its outcome, and then never changes. Outcomes come
    in slices, because a slice costs a few nanoseconds a task. Slots at the front that a
    stream's reader has read are dropped.
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
        self._closed = False
        self._end: Exception | None = None
        self._early: set[int] = set()  # settled alone while their slice is under way
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
    ) -> None:
        """Give a slice of tasks their outcomes; those that have one keep it.

        Args:
            start: Index of the first.
            outcomes: A value or a `Failed` for each.
            failure: The first failure among them.
        """
        count = len(outcomes)
        at = start - self._base
        early = [n for n in self._early if start <= n < start + count]
        if early:
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
            for index in [n for n in self._waiting_one if start <= n < start + count]:
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
        """Return a task's value or `Failed`, or `PENDING`."""
        at = index - self._base
        if at < len(self._slots):
            return self._slots[at]
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

    def read(self, index: int) -> None:
        """Note that a reader in input order has gone past this task."""
        self._completed = None
        self._read = max(self._read, index + 1)
        drop = self._read - self._base
        if self._streaming and drop > 64 and 2 * drop > len(self._slots):
            del self._slots[:drop]
            self._base += drop

    def read_completed(self, index: int) -> None:
        """Note that a reader in order of completion has gone past this task."""
        self._read += 1
        if not self._streaming:
            return
        slots = self._slots
        slots[index - self._base] = None
        drop = 0
        while drop < len(slots) and slots[drop] is None:
            drop += 1
        if drop > 64 and 2 * drop > len(slots):
            del slots[:drop]
            self._base += drop

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


def _without(start: int, count: int, early: list[int]) -> list[tuple[int, int]]:
    """Return the range as (first, count) pieces that leave some indices out."""
    pieces: list[tuple[int, int]] = []
    for index in (*sorted(early), start + count):
        if index > start:
            pieces.append((start, index - start))
        count -= index + 1 - start
        start = index + 1
    return pieces
