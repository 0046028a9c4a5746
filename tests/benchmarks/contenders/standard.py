"""The contenders that come with Python, and the one that wren itself builds on."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing.pool import Pool
from typing import ClassVar, TypeVar

from anyio import CapacityLimiter, to_process

from tests.benchmarks.contender import WORKERS, Contender, Report

T = TypeVar("T")
R = TypeVar("R")


class ProcessPool(Contender):
    """``concurrent.futures.ProcessPoolExecutor`` as it comes."""

    name = "pool"
    label = "ProcessPoolExecutor"
    streams = True
    eager = True
    chunksize: ClassVar[int] = 1

    def make(self) -> Executor:
        """Return the executor."""
        return ProcessPoolExecutor(WORKERS)

    async def start(self) -> None:
        self._pool = self.make()

    async def close(self) -> None:
        self._pool.shutdown()

    async def call(self, fn: Callable[[T], R], item: T) -> R:
        return self._pool.submit(fn, item).result()

    async def map(self, fn: Callable[[T], R], items: Sequence[T]) -> list[R]:
        return list(self._pool.map(fn, items, chunksize=self.chunksize))

    async def stream(
        self, fn: Callable[[T], R], items: Iterator[T]
    ) -> AsyncIterator[R]:
        for result in self._pool.map(fn, items, chunksize=self.chunksize):
            yield result

    async def settle(
        self,
        fn: Callable[[T], R],
        items: Sequence[T],
        report: Report,
        limit: float | None = None,
    ) -> None:
        for position, item in enumerate(items):

            def known(future: Future[R], position: int = position) -> None:
                report(position, future.exception() or future.result())

            self._pool.submit(fn, item).add_done_callback(known)


class TunedProcessPool(ProcessPool):
    """The same, with a chunk size chosen by hand."""

    name = "pool-tuned"
    label = "ProcessPoolExecutor, chunksize=1024"
    chunksize = 1024


class AsyncioProcessPool(Contender):
    """What an asyncio program does today: ``run_in_executor`` and ``gather``."""

    name = "pool-asyncio"
    label = "ProcessPoolExecutor + gather"
    asynchronous = True
    limits_time = True

    async def start(self) -> None:
        self._pool = ProcessPoolExecutor(WORKERS)

    async def close(self) -> None:
        self._pool.shutdown()

    async def call(self, fn: Callable[[T], R], item: T) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._pool, fn, item)

    async def map(self, fn: Callable[[T], R], items: Sequence[T]) -> list[R]:
        run = asyncio.get_running_loop().run_in_executor
        return await asyncio.gather(*[run(self._pool, fn, item) for item in items])


class Multiprocessing(Contender):
    """``multiprocessing.Pool``, which chooses its chunks by itself."""

    name = "multiprocessing"
    label = "multiprocessing.Pool"
    streams = True
    _pool: Pool

    async def start(self) -> None:
        self._pool = multiprocessing.Pool(WORKERS)

    async def close(self) -> None:
        self._pool.terminate()
        self._pool.join()

    async def call(self, fn: Callable[[T], R], item: T) -> R:
        return self._pool.apply(fn, (item,))

    async def map(self, fn: Callable[[T], R], items: Sequence[T]) -> list[R]:
        return self._pool.map(fn, items)

    async def stream(
        self, fn: Callable[[T], R], items: Iterator[T]
    ) -> AsyncIterator[R]:
        for result in self._pool.imap(fn, items):
            yield result

    async def settle(
        self,
        fn: Callable[[T], R],
        items: Sequence[T],
        report: Report,
        limit: float | None = None,
    ) -> None:
        for position, item in enumerate(items):

            def known(fate: object, position: int = position) -> None:
                report(position, fate)

            self._pool.apply_async(fn, (item,), callback=known, error_callback=known)


class AnyioToProcess(Contender):
    """``anyio.to_process``, a task for each item as its documentation suggests."""

    name = "anyio"
    label = "anyio.to_process"
    distribution = "anyio"
    asynchronous = True
    limits_time = True

    async def start(self) -> None:
        self._limiter = CapacityLimiter(WORKERS)

    async def call(self, fn: Callable[[T], R], item: T) -> R:
        return await to_process.run_sync(
            fn, item, cancellable=True, limiter=self._limiter
        )

    async def map(self, fn: Callable[[T], R], items: Sequence[T]) -> list[R]:
        return await asyncio.gather(*[self.call(fn, item) for item in items])
