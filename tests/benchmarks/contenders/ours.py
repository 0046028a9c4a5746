"""The contender that this table is about."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TypeVar

import wren
from tests.benchmarks.contender import WORKERS, Contender, Report

T = TypeVar("T")
R = TypeVar("R")


class Wren(Contender):
    """``wren.Executor`` with its local backend and its defaults."""

    name = "wren"
    label = "wren"
    distribution = "wren-cloud"
    asynchronous = True
    streams = True
    limits_time = True

    async def start(self) -> None:
        self._executor = wren.Executor(backend="local", concurrency=WORKERS)
        await self._executor.__aenter__()

    async def close(self) -> None:
        await self._executor.aclose()

    async def call(self, fn: Callable[[T], R], item: T) -> R:
        return await self._executor.submit(fn, item)

    async def map(self, fn: Callable[[T], R], items: Sequence[T]) -> list[R]:
        return await self._executor.map(fn, items)

    async def stream(
        self, fn: Callable[[T], R], items: Iterator[T]
    ) -> AsyncIterator[R]:
        async for result in self._executor.map(fn, items):
            yield result

    async def settle(
        self,
        fn: Callable[[T], R],
        items: Sequence[T],
        report: Report,
        limit: float | None = None,
    ) -> None:
        job = self._executor.map(fn, items, timeout=limit)
        async for future in job.as_completed():
            report(future.index, future.exception() or future.result())
