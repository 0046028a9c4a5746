"""The peers without type hints. Whatever is `Any` because of them stays in here."""

from __future__ import annotations

import asyncio
import logging
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from importlib import import_module
from typing import Any, TypeVar, cast

from tests.benchmarks.contender import (
    WORKERS,
    Contender,
    MissingError,
    Report,
)
from tests.benchmarks.contenders.standard import ProcessPool
from tests.benchmarks.tasks import awaited

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")


def load(module: str) -> Any:
    """Import a peer.

    Raises:
        MissingError: It is not installed.
    """
    try:
        return import_module(module)
    except ImportError as exc:
        raise MissingError(f"pip install {module.partition('.')[0]}  ({exc})") from exc


class Loky(ProcessPool):
    """Its executor is a `concurrent.futures.Executor`, so that it is used as one."""

    name = "loky"
    label = "loky"
    distribution = "loky"

    def make(self) -> Executor:
        return cast("Executor", load("loky").ProcessPoolExecutor(WORKERS))


class Joblib(Contender):
    """``Parallel`` with its default backend, kept open between calls."""

    name = "joblib"
    label = "joblib.Parallel"
    distribution = "joblib"
    streams = True
    limits_time = True

    async def start(self) -> None:
        self._joblib = load("joblib")
        self._parallel: Any = self._joblib.Parallel(n_jobs=WORKERS)
        self._parallel.__enter__()

    async def close(self) -> None:
        self._parallel.__exit__(None, None, None)

    async def call(self, fn: Callable[[T], R], item: T) -> R:
        return self._run(fn, [item])[0]

    async def map(self, fn: Callable[[T], R], items: Sequence[T]) -> list[R]:
        return self._run(fn, items)

    async def stream(
        self, fn: Callable[[T], R], items: Iterator[T]
    ) -> AsyncIterator[R]:
        parallel = self._joblib.Parallel(n_jobs=WORKERS, return_as="generator")
        delayed = self._joblib.delayed(fn)
        results: Iterator[R] = parallel(delayed(item) for item in items)
        for result in results:
            yield result

    async def settle(
        self,
        fn: Callable[[T], R],
        items: Sequence[T],
        report: Report,
        limit: float | None = None,
    ) -> None:
        self._parallel.timeout = limit
        fates: Sequence[object]
        try:
            fates = await asyncio.to_thread(self._run, fn, items)
        except Exception as exc:  # noqa: BLE001  # the fate of every task
            fates = [exc] * len(items)
        for position, fate in enumerate(fates):
            report(position, fate)

    def _run(self, fn: Callable[[T], R], items: Sequence[T]) -> list[R]:
        delayed = self._joblib.delayed(fn)
        results: list[R] = self._parallel(delayed(item) for item in items)
        return results


class Aiomultiprocess(Contender):
    """Its pool runs coroutine functions, so that each function is wrapped in one."""

    name = "aiomultiprocess"
    label = "aiomultiprocess.Pool"
    distribution = "aiomultiprocess"
    asynchronous = True
    limits_time = True

    async def start(self) -> None:
        self._pool: Any = load("aiomultiprocess").Pool(WORKERS)

    async def close(self) -> None:
        self._pool.terminate()
        await self._pool.join()

    async def call(self, fn: Callable[[T], R], item: T) -> R:
        result: R = await self._pool.apply(partial(awaited, fn), (item,))
        return result

    async def map(self, fn: Callable[[T], R], items: Sequence[T]) -> list[R]:
        results: list[R] = await self._pool.map(partial(awaited, fn), items)
        return results


class Dask(Contender):
    """A local cluster of single-threaded worker processes, without its dashboard."""

    name = "dask"
    label = "dask.distributed"
    distribution = "distributed"
    asynchronous = True
    limits_time = True

    async def start(self) -> None:
        distributed = load("distributed")
        warnings.filterwarnings("ignore", "Sending large graph")
        self._cluster: Any = await distributed.LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            asynchronous=True,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        )
        self._client: Any = await distributed.Client(self._cluster, asynchronous=True)

    async def close(self) -> None:
        await self._client.close()
        await self._cluster.close()

    async def call(self, fn: Callable[[T], R], item: T) -> R:
        result: R = await self._client.submit(fn, item, pure=False)
        return result

    async def map(self, fn: Callable[[T], R], items: Sequence[T]) -> list[R]:
        futures = self._client.map(fn, items, pure=False)
        results: list[R] = await self._client.gather(futures)
        return results

    async def broadcast(
        self, fn: Callable[[S, T], R], shared: S, items: Sequence[T]
    ) -> list[R]:
        # What its own warning about large arguments says to do.
        there = await self._client.scatter(shared, broadcast=True)
        arguments = [there] * len(items), items
        futures = self._client.map(fn, *arguments, pure=False)
        results: list[R] = await self._client.gather(futures)
        return results


class Lithops(Contender):
    """Its localhost backend with its localhost storage."""

    name = "lithops"
    label = "Lithops, localhost"
    distribution = "lithops"
    limits_time = True
    # Version 2 stops its consumer threads when a job ends, and a job that begins just
    # then is never run: at the third call in a row, as a rule.
    note = "version 1 of its localhost backend"

    async def start(self) -> None:
        lithops = load("lithops")
        config = {
            "lithops": {
                "backend": "localhost",
                "storage": "localhost",
                "data_limit": False,  # of 4 MiB for the arguments of one job
            },
            "localhost": {
                "runtime": sys.executable,
                "version": 1,
                "worker_processes": WORKERS,
            },
        }
        self._executor: Any = lithops.FunctionExecutor(
            config=config, log_level="CRITICAL"
        )

    async def close(self) -> None:
        self._executor.clean()

    async def call(self, fn: Callable[[T], R], item: T) -> R:
        future = self._executor.call_async(fn, (item,))
        result: R = self._executor.get_result(future)
        return result

    async def map(self, fn: Callable[[T], R], items: Sequence[T]) -> list[R]:
        return self._run(fn, items)

    async def settle(
        self,
        fn: Callable[[T], R],
        items: Sequence[T],
        report: Report,
        limit: float | None = None,
    ) -> None:
        def settle_all() -> None:
            futures = self._submit(fn, items, timeout=limit)
            self._executor.wait(futures, throw_except=False, download_results=True)
            for position, future in enumerate(futures):
                try:
                    report(position, future.result())
                except Exception as exc:  # noqa: BLE001  # its fate, whatever it is
                    report(position, exc)

        await asyncio.to_thread(settle_all)

    def _submit(
        self, fn: Callable[[T], R], items: Sequence[T], **options: float | None
    ) -> Any:
        # A tuple among the items would be spread over the function's parameters.
        return self._executor.map(fn, [(item,) for item in items], **options)

    def _run(self, fn: Callable[[T], R], items: Sequence[T]) -> list[R]:
        results: list[R] = self._executor.get_result(self._submit(fn, items))
        return results
