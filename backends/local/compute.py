"""`Compute` on this machine's processes: the contract's reference implementation."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Sequence
from typing import Final

import anyio
from anyio import lowlevel

from wren.backends.local.channel import SHARED_FROM, Buffer, size
from wren.backends.local.launcher import ZygoteProcess
from wren.backends.local.process import WorkerProcess
from wren.backends.local.session import Session
from wren.config import worker_environment
from wren.errors import ComputeError, TaskTimeoutError
from wren.protocols import Limits, Storage, WorkerInfo

_START_SECONDS: Final = 60.0
_KILL_SECONDS: Final = 5.0
_DEATH_SECONDS: Final = 1.0


class _Turn:
    """A request that waits for a worker."""

    __slots__ = ("error", "ready", "request", "sent", "small", "worker")

    def __init__(self, request: Sequence[Buffer], small: bool) -> None:
        self.request = request
        self.small = small
        self.ready: anyio.Event | None = None
        self.worker: WorkerProcess | None = None
        self.error: ComputeError | None = None
        self.sent = False

    def wake(self) -> None:
        """Let the request's owner go on: with a worker, an error, or to find one."""
        if self.ready is not None:
            self.ready.set()


class LocalCompute:
    """Worker processes, forked when they are first needed and kept until the end."""

    name = "local"

    def __init__(self, workers: int, *, memory: int | None = None) -> None:
        """Describe the pool; nothing starts before `prepare`.

        Args:
            workers: Most processes at a time.
            memory: Limit of each one's data, in MB; beyond it a task gets MemoryError.
        """
        self.limits = Limits(
            concurrency=workers,
            queue=workers,
            start_seconds=0.0,  # the time limit of a request begins when its worker has
            lossless=True,
        )
        self._memory = memory
        self._session: Session | None = None
        self._zygote: ZygoteProcess | None = None
        self._dead: list[ZygoteProcess] = []
        self._closed = False
        self._numbers = 0
        self._workers: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []
        self._waiting: deque[_Turn] = deque()

    async def prepare(self) -> WorkerInfo:
        """See `Compute.prepare`."""
        self._start()
        # After it, as the processes start meanwhile.
        from wren.worker import versions

        python, wren, cloudpickle = versions()
        return WorkerInfo(
            python=python, wren=wren, cloudpickle=cloudpickle, name="this machine"
        )

    def open_storage(self) -> Storage:
        """Return a store in this driver's private directory, removed with it."""
        from wren.storage.local import FileStorage

        self._start()
        assert self._session is not None  # noqa: S101  # _start made it
        return FileStorage(self._session.path / "storage", private=True)

    def _check_open(self) -> None:
        if self._closed:
            raise ComputeError("this executor is closed")

    def _start(self) -> ZygoteProcess:
        self._check_open()
        if self._session is None:
            self._session = Session()
        if self._zygote is not None and not self._zygote.running:
            # Its workers died with it; each request in flight learns that by itself.
            self._dead.append(self._zygote)
            self._zygote = None
        if self._zygote is None:
            self._zygote = ZygoteProcess(
                worker_environment(), self._session.path, self._memory
            )
        return self._zygote

    async def invoke(
        self,
        request: Sequence[Buffer],
        *,
        timeout: float,  # noqa: ASYNC109  # the contract
    ) -> memoryview:
        """See `Compute.invoke`."""
        turn = _Turn(request, size(request) < SHARED_FROM)
        worker = await self._claim(turn)
        try:
            if not turn.sent:
                if turn.small:
                    worker.send_small(request)
                else:
                    await worker.send_large(request)
            response = await self._receive(worker, timeout)
        except BaseException:
            await self._kill(worker)
            raise
        if worker.retired:
            await self._end(worker)
        else:
            self._release(worker)
        return response

    async def _receive(self, worker: WorkerProcess, seconds: float) -> memoryview:
        await worker.started(_START_SECONDS)
        if seconds == math.inf:
            return await worker.receive()
        with anyio.move_on_after(seconds):
            return await worker.receive()
        raise TaskTimeoutError(
            f"no response within {seconds:g} s; the process was killed"
        )

    async def _claim(self, turn: _Turn) -> WorkerProcess:
        while True:
            while self._idle:
                worker = self._idle.pop()
                if worker.alive():
                    return worker
                await self._end(worker)
            try:
                if (new := self._grow()) is not None:
                    return new
            except BaseException:
                self._tell_of_room()  # nobody else would wake those that wait
                raise
            if (given := await self._wait(turn)) is not None:
                return given

    async def _wait(self, turn: _Turn) -> WorkerProcess | None:
        """Wait for a worker; None if there may be room for one."""
        if turn.ready is None:
            self._waiting.append(turn)
        else:  # somebody else was faster to take the room
            self._waiting.appendleft(turn)
        turn.ready = anyio.Event()
        try:
            await turn.ready.wait()
            if turn.worker is None:
                await lowlevel.checkpoint_if_cancelled()
        except BaseException:
            if turn.worker is not None:  # it has been given the request
                await self._kill(turn.worker)
            elif turn in self._waiting:
                self._waiting.remove(turn)
            else:
                self._tell_of_room()  # the next may need it
            raise
        if turn.error is not None:
            raise turn.error
        return turn.worker

    def _grow(self) -> WorkerProcess | None:
        """Start a worker; None if there are as many as there may be."""
        self._check_open()
        if len(self._workers) >= self.limits.concurrency:
            return None
        zygote = self._start()
        self._numbers += 1
        try:
            worker = WorkerProcess(zygote, self._numbers)
        except OSError as exc:  # no descriptor is left
            if self._workers:
                return None
            text = f"a worker process could not be started: {exc}"
            raise ComputeError(text) from exc
        self._workers.add(worker)
        return worker

    def _release(self, worker: WorkerProcess) -> None:
        """Give a worker that has answered to the next request, before anything else.

        The driver has the response still to decode; meanwhile the worker has work.
        """
        if not self._waiting:
            self._idle.append(worker)
            return
        self._hand_over(worker)

    def _hand_over(self, worker: WorkerProcess) -> None:
        turn = self._waiting.popleft()
        turn.worker = worker
        if turn.small:
            worker.send_small(turn.request)
            turn.sent = True
        turn.wake()

    async def _kill(self, worker: WorkerProcess) -> None:
        """Discard a worker that may be at work.

        When it is dead, so that it writes nothing into a store after its job was
        cleaned.
        """
        try:
            await worker.killed(_DEATH_SECONDS)
        finally:
            await self._end(worker)

    async def _end(self, worker: WorkerProcess) -> None:
        """Discard a worker, and have that said to the zygote whoever is cancelled."""
        self._discard(worker)
        with anyio.move_on_after(_KILL_SECONDS, shield=True):
            await worker.flush()  # it waits only if there is much to say

    def _discard(self, worker: WorkerProcess) -> None:
        worker.discard()
        self._workers.discard(worker)
        self._tell_of_room()

    def _tell_of_room(self) -> None:
        """Wake the first that waits.

        It starts a worker itself, as it may be about to be cancelled, too: when a job
        is cancelled, nothing of it may be started in the place of what was running.
        """
        if self._waiting:
            self._waiting.popleft().wake()

    def _refuse_waiting(self, error: ComputeError) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            turn.error = error
            turn.wake()

    async def aclose(self) -> None:
        """See `Compute.aclose`."""
        if self._closed:
            return
        self._closed = True
        self._refuse_waiting(ComputeError("this executor is closed"))
        while self._idle:
            self._discard(self._idle.pop())
        for worker in self._workers:
            worker.stop()
        try:
            with anyio.CancelScope(shield=True):
                for zygote in (*self._dead, self._zygote):
                    if zygote is not None:
                        await zygote.aclose()
        finally:
            if self._session is not None:
                self._session.close()


def usable_cpus() -> int:
    """Return how many CPUs this process may run on. Ignores a cgroup's share."""
    return len(os.sched_getaffinity(0))
