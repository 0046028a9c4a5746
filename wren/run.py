"""One job under way: which tasks go into the next request, and what became of each."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

import anyio

from wren.batch import Batch
from wren.chunks import MOST, ChunkSizer, Pace
from wren.errors import TaskCancelledError
from wren.functions import PackedFunction
from wren.ledger import PENDING, Failed, Ledger
from wren.options import Options
from wren.serialize import Many, Pickled
from wren.shared import CommonBuffers
from wren.source import AsyncSource, Source, cancelled_input
from wren.spill import Spill
from wren.stats import JobStats, TaskStats
from wren.tally import Tally

if TYPE_CHECKING:
    from wren.dispatch import Dispatcher

_BUFFERED_CHUNK: Final = 256
_BUFFERED_CHUNKS: Final = 4


class Run:
    """A job as dispatch sees it. It is its `Job`'s control."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        fn: Callable[..., Any],
        function: PackedFunction | Pickled | None,
        call: str,
        source: Source,
        options: Options,
    ) -> None:
        """Describe a job; `Dispatcher.start` starts it.

        Args:
            dispatcher: What serves it.
            fn: The function.
            function: What has been made of it so far.
            call: How workers call it: ``item``, ``star`` or ``full``.
            source: Its tasks.
            options: How to run it.
        """
        self.fn = fn
        self.call = call
        self.options = options
        self.return_exceptions = options.return_exceptions
        self.length = source.length
        self.ledger = Ledger(streaming=source.length is None)
        self.in_flight: set[Batch] = set()
        self.retries: deque[Batch] = deque()
        self.queued = False
        self.common = CommonBuffers()
        self.throttled_since = -math.inf
        """When it was first turned away since something last succeeded."""
        self.pulling: anyio.CancelScope | None = None
        """Of the task that pulls an asynchronous input."""
        self._dispatcher = dispatcher
        self._source = source
        self._spill: Spill | None = None
        self._id = ""
        self._single = False
        self._closed = False
        self.tally = Tally(source.length)
        self._everything = source.length is not None
        self._requests = 0
        self._workers = min(
            options.concurrency or dispatcher.workers, dispatcher.workers
        )
        # Requests held ready are part of what a job has in flight.
        self._most_in_flight = (
            dispatcher.most_in_flight
            if options.concurrency is None
            else min(options.concurrency, dispatcher.workers)
        )
        self._buffer = options.buffer or (
            self._workers * _BUFFERED_CHUNKS * (options.chunksize or _BUFFERED_CHUNK)
        )
        self.function: PackedFunction | None = None
        self.pickled: Pickled | None = None
        if isinstance(function, PackedFunction):
            self.function = function
        else:
            self.pickled = function
        self.sizer = self._new_sizer(self.function.pace if self.function else Pace())
        source.want(self._buffer)
        if isinstance(source, AsyncSource):
            self.pulling = anyio.CancelScope()

    @property
    def id(self) -> str:
        """128 random bits in hexadecimal."""
        if not self._id:
            self._id = token_hex(16)
        return self._id

    @property
    def spill(self) -> Spill:
        """What the job keeps in storage."""
        if self._spill is None:
            self._spill = Spill(self.id, self._dispatcher.open_storage)
        return self._spill

    @property
    def spilled(self) -> bool:
        """There may be something in storage."""
        return self._spill is not None and self._spill.used

    @property
    def source(self) -> Source:
        """Where the tasks come from."""
        return self._source

    def use(self, function: PackedFunction) -> None:
        """Set the function that further requests name."""
        first = self.function is None
        self.function = function
        if first:
            self.sizer = self._new_sizer(function.pace)

    def _new_sizer(self, pace: Pace) -> ChunkSizer:
        size = self.options.chunksize
        if size is None and self.options.retries == 0:
            # A lost chunk could not be tried again, and its other tasks did nothing.
            size = 1
        return ChunkSizer(size, self._workers, pace)

    # --- tasks to send ----------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Nothing more will be sent."""
        return self.ledger.done or self.ledger.end is not None

    @property
    def has_more(self) -> bool:
        """There may be something to send, now or later."""
        return bool(self.retries) or not (self._source.exhausted or self.ended)

    def next_batch(self) -> Batch | None:
        """Take the next tasks; None if there are none now or the job has enough.

        An input that raises ends the job with what it raised.
        """
        if len(self.in_flight) >= self._most_in_flight:
            return None
        while self.retries:
            batch = self.retries.popleft()
            if self._is_wanted(batch):
                return batch
        if self._source.exhausted:
            self._input_ended()
            return None
        if self.ended:
            return None
        return self._take()

    def _is_wanted(self, batch: Batch) -> bool:
        """Whether a batch has more than a task that was cancelled."""
        return len(batch.items) > 1 or self.ledger.outcome(batch.start) is PENDING

    def _take(self) -> Batch | None:
        while (most := self._room()) > 0:
            try:
                size = self.sizer.size(self._left(), most)
                items = self._source.take(min(size, most))
            except Exception as exc:  # noqa: BLE001  # the input's own
                self.fail(exc)
                return None
            except BaseException as exc:
                self.fail(cancelled_input(exc))
                # There is no await in between that could have been cancelled.
                if isinstance(exc, anyio.get_cancelled_exc_class()):
                    return None
                raise
            if self.ended:  # the input itself has cancelled the job
                return None
            batch = self._reserve(items) if items else None
            if self._source.exhausted:
                self._input_ended()
                return batch
            self._source.want(self._ahead())
            if batch is not None or not items:
                return batch
        return None

    def _input_ended(self) -> None:
        if not self._closed:
            self._closed = True
            self.tally.stats.total = self.ledger.taken
            self.ledger.close()
            self.finish_if_done()

    def _left(self) -> int | None:
        if self.length is None:
            return None
        return self.length - self.ledger.taken

    def _room(self) -> int:
        if self._everything:
            return MOST
        ahead = self._ahead()
        if self.options.chunksize is None:
            return min(ahead, max(1, self._buffer // (2 * self._workers)))
        return ahead if ahead >= min(self.options.chunksize, self._buffer) else 0

    def _ahead(self) -> int:
        """Return how many more tasks may be pulled from the input."""
        if self._everything:
            return self._buffer
        return self._buffer - self.ledger.unread

    def _reserve(self, items: list[Any]) -> Batch | None:
        start = self.ledger.reserve(len(items))
        self.tally.stats.dispatched += len(items)
        batch = Batch(start, items)
        skip = self.ledger.foretold(start, len(items))
        if not skip:
            return batch
        for index in skip:
            self._cancel_one(index)
        pieces = batch.without([index - start for index in skip])
        self.retries.extend(pieces[1:])
        return pieces[0] if pieces else None

    def add_single(self, item: Any, many: Many | None) -> None:
        """Add the task of a job that has only one.

        Args:
            item: Its arguments.
            many: The same, if they are pickled already.
        """
        self.ledger.reserve_only()
        self.retries.append(Batch(0, [item], many=many))
        self.tally.stats.total = self.tally.stats.dispatched = 1
        self._single = True

    async def help(self) -> None:
        """Carry out the job's only task in the caller's own, unless a runner has it."""
        if self._single:
            await self._dispatcher.help(self)

    def name_request(self, batch: Batch) -> str:
        """Return the request's name within the job."""
        if not batch.request:
            self._requests += 1
            batch.request = f"{self._requests:x}"
        return batch.request

    # --- outcomes -------------------------------------------------------------------

    def settle(
        self, batch: Batch, outcomes: list[Any], failure: Exception | None = None
    ) -> None:
        """Record what a worker answered.

        Args:
            batch: The tasks.
            outcomes: A value or a `Failed` for each.
            failure: The first failure among the outcomes.
        """
        batch.pending = False
        if self.ledger.end is not None:  # the answer crossed the job's end
            return
        stats = self.tally.stats
        count = len(outcomes)
        failed = 0 if failure is None else _failures(outcomes)
        stats.finished += count - failed
        stats.failed += failed
        for late in self.ledger.settle(batch.start, outcomes, failure):
            if type(late) is Failed:
                stats.failed -= 1
            else:
                stats.finished -= 1
        self.finish_if_done()

    def settle_one(self, index: int, error: Exception) -> None:
        """Let one task end with an exception."""
        if self.ledger.fail(index, error):
            self.tally.stats.failed += 1
        self.finish_if_done()

    def settle_error(self, batch: Batch, error: Exception) -> None:
        """Let all tasks of a batch end with an exception."""
        batch.pending = False
        if self.ledger.end is None:
            count = len(batch.items)
            late = self.ledger.settle(batch.start, [Failed(error)] * count, error)
            self.tally.stats.failed += count - len(late)
            self.finish_if_done()

    def retry(self, batch: Batch, parts: Sequence[Batch]) -> None:
        """Put tasks in front of those not yet sent.

        Args:
            batch: What they were sent in. The rest of it has its outcome.
            parts: The tasks.
        """
        if self.ended:
            return
        batch.pending = False
        for part in reversed(parts):
            if self._is_wanted(part):
                if part.attempt > 1:
                    self.tally.stats.retried += len(part.items)
                self.retries.appendleft(part)
        self._dispatcher.wake(self)

    def give_back(self, batch: Batch) -> None:
        """Put a batch in front of those not yet sent that has not run."""
        if not self.ended:
            self.retries.appendleft(batch)
            self._dispatcher.wake(self)

    def fail(self, error: Exception) -> None:
        """End the whole job: every task without an outcome ends with this."""
        if not self.ended:
            if self.ledger.first_failure is None:
                self.ledger.first_failure = error
            self._end(error)

    def finish_if_done(self) -> None:
        """Note the job's end when its last task has ended."""
        if self.ledger.done and self.tally.stats.ended is None:
            self.tally.stats.ended = time.time()
            self._dispatcher.finished(self)

    # --- Control --------------------------------------------------------------------

    @property
    def stats(self) -> JobStats:
        """See `wren.job.Control`."""
        return self.tally.snapshot(self._spill.requests if self._spill else 0)

    def task_stats(self, index: int) -> TaskStats | None:
        """See `wren.job.Control`."""
        return self.tally.of_task(index)

    def want_all(self) -> None:
        """See `wren.job.Control`."""
        if not self._everything:
            self._everything = True
            self.ledger.keep()
            self.resume()

    def resume(self) -> None:
        """See `wren.job.Control`."""
        if not self._source.exhausted and not self.ended:
            self._dispatcher.wake(self)

    def cancel(self) -> bool:
        """See `wren.job.Control`."""
        if self.ended:
            return False
        self._end(TaskCancelledError(f"job {self.id[:8]} was cancelled"))
        return True

    def cancel_task(self, index: int) -> bool:
        """See `wren.job.Control`."""
        if self.ledger.outcome(index) is not PENDING:
            return False
        if index >= self.ledger.taken:
            self.ledger.foretell(index, _cancelled(index))
            return True
        self._cancel_one(index)
        for batch in self.in_flight:
            if batch.start == index and len(batch.items) == 1 and batch.scope:
                batch.scope.cancel()
        return True

    def _cancel_one(self, index: int) -> None:
        self.tally.stats.cancelled += self.ledger.fail(index, _cancelled(index))
        self.finish_if_done()

    def _end(self, error: Exception) -> None:
        """Send nothing more, stop what runs, and give the rest this outcome."""
        self._source.close()
        if self.pulling is not None:
            self.pulling.cancel()
        self.ledger.close(error)
        while self.retries:
            self._settle_ended(self.retries.popleft(), error)
        for batch in self.in_flight:
            if batch.scope is not None:
                batch.scope.cancel()
            if batch.pending:
                self._settle_ended(batch, error)
        self.finish_if_done()

    def _settle_ended(self, batch: Batch, error: Exception) -> None:
        batch.pending = False
        count = len(batch.items)
        count -= len(self.ledger.settle(batch.start, [Failed(error)] * count))
        if isinstance(error, TaskCancelledError):
            self.tally.stats.cancelled += count
        else:
            self.tally.stats.failed += count


def _cancelled(index: int) -> TaskCancelledError:
    return TaskCancelledError(f"task {index} was cancelled")


def _failures(outcomes: list[Any]) -> int:
    return sum(type(outcome) is Failed for outcome in outcomes)
