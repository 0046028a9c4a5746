"""One job under way: which tasks go into the next request, and what became of each."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

import anyio

from wren.chunks import MOST, ChunkSizer, Pace
from wren.errors import TaskCancelledError
from wren.functions import PackedFunction
from wren.ledger import PENDING, Failed, Ledger
from wren.options import Options
from wren.serialize import Many, Pickled
from wren.shared import CommonBuffers
from wren.source import AsyncSource, Source
from wren.spill import Spill
from wren.stats import History, JobStats, TaskStats

if TYPE_CHECKING:
    from wren.dispatch import Dispatcher

_BUFFERED_CHUNK: Final = 256
_BUFFERED_CHUNKS: Final = 4


class Batch:
    """Consecutive tasks that travel in one request.

    Attributes:
        start: Index of the first.
        items: Their arguments, kept until there is an outcome.
        attempt: The number of this attempt, from 1; the same for all of them.
        many: The arguments, if they are pickled already.
        unsent: Failures of sending that did not count as an attempt.
        carry: The request must carry the function.
        scope: Cancels the invocation under way.
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
        "queued",
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
        self.carry = False
        self.scope: anyio.CancelScope | None = None
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
            Batch(index, [item], attempt)
            for index, item in enumerate(self.items, self.start)
        ]

    def without(self, positions: Sequence[int]) -> list[Batch]:
        """Return the tasks but for some, as batches of consecutive ones."""
        pieces: list[Batch] = []
        begin = 0
        for position in (*sorted(positions), len(self.items)):
            if position > begin:
                items = self.items[begin:position]
                pieces.append(Batch(self.start + begin, items, self.attempt))
            begin = position + 1
        return pieces


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
        self._history: History | None = None
        self._spill: Spill | None = None
        self._id = ""
        self._single = False
        self._closed = False
        self._only: tuple[Batch, int, dict[str, Any], tuple[int, int], float] | None = (
            None
        )
        self._stats = JobStats(total=source.length, started=time.time())
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
        return ChunkSizer(self.options.chunksize, self._workers, pace)

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
            self._stats.total = self.ledger.taken
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
        self._stats.dispatched += len(items)
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
        self._stats.total = self._stats.dispatched = 1
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
        self,
        batch: Batch,
        outcomes: list[Any],
        header: dict[str, Any],
        sizes: tuple[int, int],
        failure: Exception | None = None,
    ) -> None:
        """Record what a worker answered.

        Args:
            batch: The tasks.
            outcomes: A value or a `Failed` for each.
            header: The response's header.
            sizes: Bytes of request and response.
            failure: The first failure among the outcomes.
        """
        if self.ledger.end is not None:  # the answer crossed the job's end
            return
        stats = self._stats
        count = len(outcomes)
        failed = 0 if failure is None else _failures(outcomes)
        stats.finished += count - failed
        stats.failed += failed
        row = batch, count, header, sizes, time.time()
        if self._single:
            self._only = row
        else:
            self._remember(*row)
        for late in self.ledger.settle(batch.start, outcomes, failure):
            if type(late) is Failed:
                stats.failed -= 1
            else:
                stats.finished -= 1
        self.finish_if_done()

    def _remember(
        self,
        batch: Batch,
        count: int,
        header: dict[str, Any],
        sizes: tuple[int, int],
        finished: float,
    ) -> None:
        stats = self._stats
        seconds = header.get("seconds", 0.0)
        peak = header.get("peak", 0)
        cold = bool(header.get("cold"))
        if self._history is None:
            self._history = History()
        new = self._history.add(
            header.get("worker", ""),
            batch.start,
            count,
            batch.attempt,
            batch.queued,
            header.get("started", 0.0),
            finished,
            seconds,
            cold,
            *sizes,
            peak,
        )
        if self.length is None:
            self._history.forget_old()
        stats.workers += new
        stats.cold_starts += cold
        stats.busy_seconds += seconds
        stats.peak_memory = max(stats.peak_memory, peak)

    def _remember_only(self) -> None:
        """Evaluate what a job of one task has left until somebody asks for it."""
        if self._only is not None:
            row, self._only = self._only, None
            self._remember(*row)

    def settle_one(self, index: int, error: Exception) -> None:
        """Let one task end with an exception."""
        if self.ledger.fail(index, error):
            self._stats.failed += 1
        self.finish_if_done()

    def settle_error(self, batch: Batch, error: Exception) -> None:
        """Let all tasks of a batch end with an exception."""
        if self.ledger.end is None:
            count = len(batch.items)
            late = self.ledger.settle(batch.start, [Failed(error)] * count, error)
            self._stats.failed += count - len(late)
            self.finish_if_done()

    def retry(self, batches: Sequence[Batch]) -> None:
        """Put tasks in front of those not yet sent."""
        if self.ended:
            return
        for batch in reversed(batches):
            if self._is_wanted(batch):
                if batch.attempt > 1:
                    self._stats.retried += len(batch.items)
                self.retries.appendleft(batch)
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
        if self.ledger.done and self._stats.ended is None:
            self._stats.ended = time.time()
            self._dispatcher.finished(self)

    # --- Control --------------------------------------------------------------------

    @property
    def stats(self) -> JobStats:
        """See `wren.job.Control`."""
        self._remember_only()
        if self._spill is not None:
            self._stats.storage_requests = self._spill.requests
        return replace(self._stats)

    def count(self, *, invocations: int = 0, throttled: int = 0, size: int = 0) -> None:
        """Add to the counters of requests."""
        self._stats.invocations += invocations
        self._stats.throttled += throttled
        self._stats.bytes_in += size

    def received(self, size: int) -> None:
        """Add to the bytes of responses."""
        self._stats.bytes_out += size

    def task_stats(self, index: int) -> TaskStats | None:
        """See `wren.job.Control`."""
        self._remember_only()
        return None if self._history is None else self._history.find(index)

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
        self._stats.cancelled += self.ledger.fail(index, _cancelled(index))
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
            self._settle_ended(batch, error)
        self.finish_if_done()

    def _settle_ended(self, batch: Batch, error: Exception) -> None:
        count = len(batch.items)
        count -= len(self.ledger.settle(batch.start, [Failed(error)] * count))
        if isinstance(error, TaskCancelledError):
            self._stats.cancelled += count
        else:
            self._stats.failed += count


def _cancelled(index: int) -> TaskCancelledError:
    return TaskCancelledError(f"task {index} was cancelled")


def _failures(outcomes: list[Any]) -> int:
    return sum(type(outcome) is Failed for outcome in outcomes)
