"""What `Executor.map` and `Executor.submit` return: `Job` and `Future`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from threading import get_ident
from typing import Any, Final, Generic, Protocol, TypeVar, cast, final

from anyio.lowlevel import checkpoint

from wren.errors import InvalidStateError, TaskCancelledError
from wren.ledger import PENDING, Failed, Ledger
from wren.stats import JobStats, TaskStats

R = TypeVar("R")

_ITEMS_A_TURN: Final = 128
"""Results given before other tasks of the event loop get their turn."""


class Control(Protocol):
    """What a job asks of dispatch."""

    return_exceptions: bool
    length: int | None
    """Number of tasks, where the input has a length."""

    @property
    def id(self) -> str:
        """The job's identity."""
        ...

    @property
    def stats(self) -> JobStats:
        """Counters so far."""
        ...

    def task_stats(self, index: int) -> TaskStats | None:
        """What is known of one task."""
        ...

    async def help(self) -> None:
        """Do some of the job's work in the awaiting task itself, if that helps."""
        ...

    def want_all(self) -> None:
        """Take the whole input; its results will be kept."""
        ...

    def resume(self) -> None:
        """Some results have been read."""
        ...

    def cancel(self) -> bool:
        """End the job; False if it has ended."""
        ...

    def cancel_task(self, index: int) -> bool:
        """End one task; False if it has ended."""
        ...


@final
class Future(Generic[R]):
    """One task's outcome, now or later. Vocabulary and states are `asyncio.Future`'s.

    ``await future`` returns the task's result or raises its exception. Cancelling the
    awaiting code cancels the task.
    """

    __slots__ = ("_control", "_ledger", "_outcome", "index")

    def __init__(
        self, control: Control, ledger: Ledger, index: int, outcome: Any = PENDING
    ) -> None:
        self._control = control
        self._ledger = ledger
        self._outcome = outcome
        self.index = index
        """The task's position in the input, from 0."""

    def __repr__(self) -> str:
        outcome = self._peek()
        if outcome is PENDING:
            state = "pending"
        elif type(outcome) is Failed:
            state = type(outcome.error).__name__
        else:
            state = "finished"
        return f"<wren.Future {self.index} {state}>"

    def _peek(self) -> Any:
        if self._outcome is PENDING:
            self._outcome = self._ledger.outcome(self.index)
        return self._outcome

    def done(self) -> bool:
        """Return whether the task has its outcome."""
        return self._peek() is not PENDING

    def cancelled(self) -> bool:
        """Return whether the task was cancelled."""
        outcome = self._peek()
        return type(outcome) is Failed and isinstance(outcome.error, TaskCancelledError)

    def result(self) -> R:
        """Return the task's result.

        Raises:
            InvalidStateError: It has no outcome yet.
            TaskCancelledError: It was cancelled.
            Exception: The task's own exception.
        """
        outcome = self._peek()
        if outcome is PENDING:
            raise InvalidStateError(f"task {self.index} has no outcome yet")
        if type(outcome) is Failed:
            raise outcome.error
        value: R = outcome
        return value

    def exception(self) -> Exception | None:
        """Return the task's exception, or None if it returned.

        Raises:
            InvalidStateError: It has no outcome yet.
            TaskCancelledError: It was cancelled.
        """
        outcome = self._peek()
        if outcome is PENDING:
            raise InvalidStateError(f"task {self.index} has no outcome yet")
        if type(outcome) is not Failed:
            return None
        error: Exception = outcome.error
        if isinstance(error, TaskCancelledError):
            raise error
        return error

    def cancel(self) -> bool:
        """Cancel the task; its neighbours go on.

        A task that runs alone in a worker process is stopped by ending that process.
        One that shares its invocation with others runs on, and its outcome is dropped.

        Returns:
            False if it had its outcome already.
        """
        if self.done():
            return False
        return self._control.cancel_task(self.index)

    @property
    def stats(self) -> TaskStats | None:
        """Timings and counts, or None as long as there are none."""
        return self._control.task_stats(self.index)

    def __await__(self) -> Generator[Any, Any, R]:
        return self._wait().__await__()

    async def _wait(self) -> R:
        try:
            if self._peek() is PENDING:
                await self._control.help()
            while self._peek() is PENDING:
                await self._ledger.wait_for(self.index)
        except BaseException:  # the awaiting code is cancelled
            self.cancel()
            raise
        return self.result()


@final
class Job(Generic[R]):
    """The tasks of one `Executor.map`. It has started already.

    * ``await job`` returns all results in input order. The first failure in time is
      raised as the task's own exception, and the rest of the job is cancelled. The list
      is the same object every time.
    * ``async for result in job`` gives results in input order, each as soon as it can
      be given. A failure is raised in its place and ends the job. Leaving the loop ends
      the job, too.
    * ``async for future in job.as_completed()`` gives futures in order of completion.
    * ``job[i]``, ``len(job)`` and ``iter(job)`` are about the futures of a sized input.

    Of an input without a length results are kept only until they are read: read them in
    one of these ways, once, or await the job first, which keeps them all. Anything else
    is an `InvalidStateError`.

    A job whose input has no length ends when it is dropped before anybody reads it or
    has awaited it, because nobody can do so any more.

    With ``return_exceptions=True`` each failure stands in its place among the results.
    Cancelling the code that awaits a job cancels the job.
    """

    __slots__ = ("__weakref__", "_control", "_ledger", "_thread")

    def __init__(self, control: Control, ledger: Ledger) -> None:
        self._control = control
        self._ledger = ledger
        self._thread = get_ident()

    def __del__(self) -> None:
        if self._ledger.unclaimed and get_ident() == self._thread:
            self._control.cancel()

    def __repr__(self) -> str:
        stats = self._control.stats
        total = "?" if stats.total is None else stats.total
        ended = stats.finished + stats.failed + stats.cancelled
        return f"<wren.Job {self.id[:8]} {ended}/{total} done>"

    @property
    def id(self) -> str:
        """128 random bits in hexadecimal."""
        return self._control.id

    @property
    def stats(self) -> JobStats:
        """Counters and timings so far: a snapshot."""
        return self._control.stats

    def done(self) -> bool:
        """Return whether every task has its outcome."""
        return self._ledger.done

    def cancel(self) -> bool:
        """Cancel every task that has no outcome yet.

        Nothing new is sent. Worker processes of running tasks are killed; a cloud's
        function cannot be recalled, and its late answer is ignored.

        Returns:
            False if the job had ended already.
        """
        return self._control.cancel()

    async def wait(self) -> None:
        """Wait until every task has its outcome. Raises no task's failure."""
        self._control.want_all()
        try:
            while not self._ledger.done:
                await self._ledger.wait_change()
        except BaseException:  # the waiting code is cancelled
            self.cancel()
            raise

    def __await__(self) -> Generator[Any, Any, list[R]]:
        return self._gather().__await__()

    async def _gather(self) -> list[R]:
        control, ledger = self._control, self._ledger
        ledger.check_kept()
        control.want_all()
        strict = not control.return_exceptions
        try:
            while not (ledger.done or (strict and ledger.first_failure is not None)):
                await ledger.wait_done_or_failed()
        except BaseException:  # the awaiting code is cancelled
            self.cancel()
            raise
        if strict and ledger.first_failure is not None:
            self.cancel()
            raise ledger.first_failure
        if ledger.end is not None:
            raise ledger.end
        return ledger.results()

    def __aiter__(self) -> AsyncIterator[R]:
        self._ledger.claim("input")
        return _InOrder(self, self._control, self._ledger)

    def as_completed(self) -> AsyncIterator[Future[R]]:
        """Iterate over futures that have their outcome, in order of completion.

        A failure is not raised here but by the future, and ends nothing. Leaving the
        loop ends the job, as it does with ``async for result in job``. Every future is
        given once, whoever iterates.

        Raises:
            InvalidStateError: ``async for`` is reading the results already, and the
                input has no length.
        """
        self._ledger.claim("completion")
        return _AsCompleted(self, self._control, self._ledger)

    def __len__(self) -> int:
        return self._length()

    def __getitem__(self, index: int) -> Future[R]:
        length = self._length()
        if not -length <= index < length:
            raise IndexError(f"task {index} of {length}")
        return Future(self._control, self._ledger, index % length)

    def __iter__(self) -> Iterator[Future[R]]:
        length = self._length()
        return (Future(self._control, self._ledger, n) for n in range(length))

    def _length(self) -> int:
        length = self._control.length
        if length is None:
            raise TypeError(
                "the input of this job has no length; use 'async for' or as_completed()"
            )
        return length


class _Reader(Generic[R]):
    """A reader that is dropped before the end takes its job with it."""

    def __init__(self, job: Job[R], control: Control, ledger: Ledger) -> None:
        self._job = job
        self._control = control
        self._ledger = ledger
        self._ended = False
        self._given = 0
        self._thread = get_ident()

    def __del__(self) -> None:
        # Leaving `async for` drops the iterator at once; there is no other sign of it.
        if not self._ended and get_ident() == self._thread:
            self._control.cancel()

    async def _turn(self) -> None:
        self._given += 1
        if self._given % _ITEMS_A_TURN == 0:
            self._control.resume()
            await checkpoint()


class _InOrder(_Reader[R], AsyncIterator[R]):
    def __init__(self, job: Job[R], control: Control, ledger: Ledger) -> None:
        super().__init__(job, control, ledger)
        self._next = 0

    async def __anext__(self) -> R:
        if self._ended:
            raise StopAsyncIteration
        ledger = self._ledger
        index = self._next
        while (outcome := ledger.outcome(index)) is PENDING:
            self._control.resume()
            try:
                await ledger.wait_change()
            except BaseException:  # the iterating code is cancelled
                self._control.cancel()
                raise
        if ledger.ended_before(index):
            self._ended = True
            if ledger.end is not None:
                raise ledger.end
            raise StopAsyncIteration
        self._next = index + 1
        if type(outcome) is Failed:
            if not self._control.return_exceptions:
                self._ended = True
                self._control.cancel()
                raise outcome.error
            outcome = cast("Any", outcome.error)
        ledger.read(index)
        await self._turn()
        value: R = outcome
        return value


class _AsCompleted(_Reader[R], AsyncIterator[Future[R]]):
    async def __anext__(self) -> Future[R]:
        if self._ended:
            raise StopAsyncIteration
        ledger = self._ledger
        while True:
            if (completed := ledger.next_completed()) is not None:
                index, outcome = completed
                ledger.read_completed(index)
                await self._turn()
                return Future(self._control, ledger, index, outcome)
            if ledger.done:
                self._ended = True
                if ledger.end is not None and not isinstance(
                    ledger.end, TaskCancelledError
                ):
                    raise ledger.end
                raise StopAsyncIteration
            self._control.resume()
            try:
                await ledger.wait_change()
            except BaseException:  # the iterating code is cancelled
                self._control.cancel()
                raise
