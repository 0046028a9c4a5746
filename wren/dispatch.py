"""From tasks to invocations and back.

A bounded set of runners serves all jobs of an executor in turn. Each takes the next
tasks of a job, sends them as one request, and deals with what comes back: outcomes, a
refusal, or an error, by its class:

    throttled           not executed       again, for as long as anything succeeds
    not sent            not executed       again, 5 times
    worker lost         may have executed  look for a stored response; then each task
                                           alone, as long as it has attempts left
    out of time         may have executed  as lost; a task alone has timed out
    cannot work at all  not executed       the job ends
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint

from wren.backoff import jitter
from wren.batch import Batch
from wren.envelope import RESPONSE, Buffer, decode, size
from wren.errors import (
    ComputeError,
    ConfigurationError,
    DeploymentError,
    IntegrityError,
    PayloadTooLargeError,
    TaskTimeoutError,
    ThrottledError,
    TransientError,
    VersionMismatchError,
    WorkerLostError,
    WrenError,
)
from wren.functions import FunctionPacker
from wren.protocols import Compute, Storage
from wren.refusals import SEND_TRIES, JobError, prepare_again
from wren.request import RequestWriter, UnpicklableItemsError
from wren.response import read_outcomes
from wren.run import Run
from wren.source import AsyncSource
from wren.window import PATIENCE, Window
from wren.worker import versions

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

_log = logging.getLogger("wren")

_GRACE: Final = 0.2
"""Seconds by which the driver's deadline is later than the worker's."""


class Dispatcher:
    """Serves the jobs of one executor."""

    def __init__(
        self,
        compute: Compute,
        open_storage: Callable[[], Storage],
        group: TaskGroup,
        concurrency: int | None = None,
    ) -> None:
        """Begin.

        Args:
            compute: Prepared.
            open_storage: Returns the executor's storage, the same every time.
            group: Where runners live, until `aclose` stops them.
            concurrency: Most invocations in flight, if not what the backend allows.
        """
        limits = compute.limits
        if concurrency is not None and concurrency < limits.concurrency:
            limits = replace(limits, concurrency=concurrency)
        self.open_storage = open_storage
        self.packer = FunctionPacker()
        self.workers = limits.concurrency
        self.most_in_flight = limits.concurrency + limits.queue
        self._compute = compute
        self._limits = limits
        self._group = group
        self._writer = RequestWriter(limits, versions())
        self._window = Window(limits.concurrency)
        self._ready: deque[Run] = deque()
        self._idle: list[anyio.Event] = []
        self._runners = 0
        self._in_flight = 0
        self._runs: set[Run] = set()
        self._scopes: set[anyio.CancelScope] = set()
        self._unbegun: set[anyio.CancelScope] = set()
        self._closed = False
        self._stopped = anyio.Event()

    # --- jobs -----------------------------------------------------------------------

    def start(self, run: Run) -> None:
        """Begin to serve a job."""
        self._runs.add(run)
        if isinstance(run.source, AsyncSource):
            self._spawn(run.source.pull, partial(self.wake, run), scope=run.pulling)
        self.wake(run)

    def finished(self, run: Run) -> None:
        """A job's last task has ended."""
        self._runs.discard(run)
        self._clean(run)

    def _clean(self, run: Run) -> None:
        """Remove what a job has stored, once nothing more of it is under way."""
        if run.spilled and not run.in_flight:
            self._spawn(run.spill.clean)

    async def aclose(self) -> None:
        """Cancel every job, stop the runners and remove what the jobs have stored."""
        self._closed = True
        for run in list(self._runs):
            run.cancel()
        for scope in list(self._scopes):
            scope.cancel()
        # A loop that is being torn down cancels tasks before their first step, of which
        # there is no sign. All others have made it two turns later, on trio, too.
        for _ in range(2):
            await cancel_shielded_checkpoint()
        self._scopes -= self._unbegun
        self._check_stopped()
        await self._stopped.wait()

    def _check_stopped(self) -> None:
        if self._closed and not self._scopes and not self._in_flight:
            self._stopped.set()

    def _spawn(
        self,
        function: Callable[..., Awaitable[None]],
        *args: Any,
        scope: anyio.CancelScope | None = None,
    ) -> None:
        """Start a task that `aclose` stops.

        It has a scope of its own: the group's is also the scope of the code inside the
        executor's ``async with``, which goes on after `aclose`.
        """
        scope = scope or anyio.CancelScope()
        self._scopes.add(scope)
        self._unbegun.add(scope)
        self._group.start_soon(self._scoped, scope, function, *args)

    async def _scoped(
        self,
        scope: anyio.CancelScope,
        function: Callable[..., Awaitable[None]],
        *args: Any,
    ) -> None:
        self._unbegun.discard(scope)
        try:
            with scope:
                await function(*args)
        finally:
            self._scopes.discard(scope)
            self._check_stopped()

    def wake(self, run: Run) -> None:
        """Say that a job may have something to send."""
        if not run.queued:
            run.queued = True
            self._ready.append(run)
        self._wake_runner()

    def _wake_runner(self) -> None:
        if self._idle:
            self._idle.pop().set()
        elif self._runners < self.most_in_flight and not self._closed:
            self._runners += 1
            self._spawn(self._serve)

    # --- runners --------------------------------------------------------------------

    async def _serve(self) -> None:
        while True:
            found = self._next()
            if found is None:
                event = anyio.Event()
                self._idle.append(event)
                await event.wait()
                continue
            run, batch = found
            if self._ready:
                self._wake_runner()
            await self._serve_one(run, batch)
            self._requeue(run)
            del found, run, batch  # an idle runner must not keep a job's results alive

    async def _serve_one(self, run: Run, batch: Batch) -> None:
        self._in_flight += 1
        run.in_flight.add(batch)
        try:
            with anyio.CancelScope() as batch.scope:
                await self._carry_out(run, batch)
        except BaseException:  # cancelled with what surrounds it, and so unsettled
            run.cancel()
            raise
        finally:
            try:
                if batch.blobs:
                    with anyio.CancelScope(shield=True):
                        await run.spill.release(batch.blobs)
            finally:
                batch.blobs = ()
                self._in_flight -= 1
                run.in_flight.discard(batch)
                if run.ended:
                    self._clean(run)
                self._check_stopped()

    async def help(self, run: Run) -> None:
        """Serve a job that has just been started, without the way through a runner."""
        if self._in_flight < self._window.size and (batch := run.next_batch()):
            if self._ready and self._ready[-1] is run:
                self._ready.pop()  # the runner that was woken for it finds nothing
                run.queued = False
            try:
                await self._serve_one(run, batch)
            finally:
                if self._ready:  # runners may have found no room meanwhile
                    self._wake_runner()

    def _requeue(self, run: Run) -> None:
        if run.has_more and not run.queued:
            run.queued = True
            self._ready.append(run)

    def _next(self) -> tuple[Run, Batch] | None:
        allowed = self._window.size + self._limits.queue
        while self._ready and self._in_flight < allowed:
            run = self._ready.popleft()
            run.queued = False
            batch = run.next_batch()
            if batch is not None:
                self._requeue(run)  # behind the others, for fairness
                return run, batch
        return None

    async def _carry_out(self, run: Run, batch: Batch) -> None:
        """Bring a batch to an outcome, or give its tasks back for another attempt."""
        try:
            await self._attempt(run, batch)
        except UnpicklableItemsError as exc:
            for position, error in exc.errors.items():
                run.settle_one(batch.start + position, error)
            run.retry(batch, batch.without(list(exc.errors)))
        except (ConfigurationError, DeploymentError, VersionMismatchError) as exc:
            run.fail(exc)
        except JobError as exc:
            run.fail(exc.error)
        except (WorkerLostError, TaskTimeoutError, TransientError) as exc:
            await self._again(run, batch, exc)
        except PayloadTooLargeError as exc:
            if len(batch.items) > 1:
                run.retry(batch, batch.split(batch.attempt))
            else:
                run.settle_error(batch, exc)
        except WrenError as exc:
            run.settle_error(batch, exc)
        except Exception as exc:  # noqa: BLE001  # an adapter's bug
            error = ComputeError(f"{self._compute.name}: {type(exc).__name__}: {exc}")
            error.__cause__ = exc
            run.fail(error)

    async def _attempt(self, run: Run, batch: Batch) -> None:
        while True:
            seconds = self._seconds(run, batch)
            request = await self._writer.write(run, batch, self.packer, seconds)
            length = size(request)
            run.tally.sent(length)
            function = run.function
            sent = time.monotonic()
            try:
                response = await self._compute.invoke(request, timeout=seconds)
                header, buffers = _decode(response)
            except ThrottledError as exc:
                await self._throttled(run, exc, sent)
                if self._in_flight > self._window.size + self._limits.queue:
                    run.give_back(batch)
                    return
                continue
            except (WorkerLostError, TaskTimeoutError):
                found = await self._stored(run, batch, sent, seconds)
                if found is None:
                    raise
                response = found
                header, buffers = _decode(response)
            except (DeploymentError, PayloadTooLargeError):
                raise
            except ComputeError as exc:
                await self._not_sent(batch, exc)
                continue
            del request
            sizes = length, len(response)
            run.tally.received(len(response))
            if "refused" in header:
                await prepare_again(run, batch, header, function, self.packer)
                continue
            self._window.succeeded()
            assert function is not None  # noqa: S101  # it was sent
            function.known = True
            if batch.request:
                run.spill.answered(batch.request, header.get("seconds", math.inf))
            if "stored" in header:
                stored = await run.spill.stored_response(
                    run.name_request(batch), known=True
                )
                if stored is None:
                    raise WorkerLostError("the response that was stored is not there")
                header, buffers = _decode(stored)
            elapsed = time.monotonic() - sent
            run.sizer.observe(len(batch.items), header["seconds"], elapsed, sum(sizes))
            await read_outcomes(run, batch, header, buffers, sizes, self._compute.name)
            if batch.request:
                await run.spill.forget(batch.request)
            return

    # --- what went wrong ------------------------------------------------------------

    async def _throttled(self, run: Run, exc: ThrottledError, sent: float) -> None:
        run.tally.stats.throttled += 1
        pause = self._window.throttled(sent, exc.retry_after)
        _log.debug("throttled; %d in flight from now on", self._window.size)
        now, progress = time.monotonic(), self._window.progress
        if run.throttled_since < progress:
            run.throttled_since = now
        if now - run.throttled_since > PATIENCE:
            raise exc
        await anyio.sleep(pause)

    async def _not_sent(self, batch: Batch, exc: ComputeError) -> None:
        batch.unsent += 1
        if batch.unsent >= SEND_TRIES:
            raise exc
        await anyio.sleep(jitter(batch.unsent))

    async def _stored(
        self, run: Run, batch: Batch, sent: float, seconds: float
    ) -> Buffer | None:
        """Return the response that a lost worker has stored, or still may store."""
        if not self._writer.commits(run, seconds):
            return None
        left = seconds - (time.monotonic() - sent)
        request = run.name_request(batch)
        if time.monotonic() - sent < self._limits.direct_seconds - _GRACE:
            return await run.spill.stored_response(request)
        return await run.spill.wait_response(request, left)

    async def _again(self, run: Run, batch: Batch, exc: WrenError) -> None:
        """Use up an attempt, and try each task again, alone, if it has one left."""
        alone = len(batch.items) == 1
        timed_out = isinstance(exc, TaskTimeoutError)
        if timed_out and alone and not isinstance(exc, run.options.retry_on):
            run.settle_error(batch, exc)
            return
        if batch.attempt > run.options.retries:
            if timed_out and not alone:
                exc = WorkerLostError(f"a task that shared this one's worker: {exc}")
            run.settle_error(batch, _noted(exc, batch))
            return
        _log.info("job %s: %s; %d to be tried again", run.id, exc, len(batch.items))
        if not self._limits.lossless:
            await anyio.sleep(jitter(batch.attempt))
        # A late response of a task that was stopped would only say so again.
        again = batch.split(batch.attempt + 1) if timed_out else batch.again()
        run.retry(batch, again)

    def _seconds(self, run: Run, batch: Batch) -> float:
        """Return how long an invocation may take, on the driver's clock."""
        limits = self._limits
        timeout = run.options.timeout
        if timeout is None:
            return limits.seconds + limits.start_seconds + _GRACE
        count = len(batch.items)
        total = timeout * count
        if run.options.retries and run.options.chunksize is None:
            # A task may hang where no signal reaches it. That is to be noticed before
            # all of a large chunk's time has passed: a chunk that was chosen is short,
            # and if its tasks were much slower than before, they are run again alone.
            total = min(total, 2 * timeout + 4 * run.sizer.expected(count))
        return min(total, limits.seconds) + limits.start_seconds + _GRACE


def _noted(exc: WrenError, batch: Batch) -> WrenError:
    """Say which task was lost, and what it had printed."""
    note = f"task {batch.start}, attempt {batch.attempt}"
    if isinstance(exc, WorkerLostError) and exc.output:
        note += f"\nthe worker had printed (last part):\n{exc.output.rstrip()}"
    exc.add_note(note)
    return exc


def _decode(response: Buffer) -> tuple[dict[str, Any], list[memoryview]]:
    try:
        return decode(response, RESPONSE)
    except IntegrityError as exc:
        raise WorkerLostError(f"the answer is no envelope: {exc}") from exc
