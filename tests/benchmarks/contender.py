"""What every contender can be asked to do, so that one workload serves them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import ClassVar, Final, TypeAlias, TypeVar

from tests.benchmarks import tasks

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

WORKERS: Final = 2
"""Worker processes of each contender."""

Report: TypeAlias = Callable[[int, object], None]
"""Takes a task's position and its result or its exception; callable in any thread."""


class MissingError(Exception):
    """A peer is not installed; the message is what to install."""


class WrongResultError(Exception):
    """A contender returned something else than the tasks' results."""


class Contender:
    """One library, used as its documentation says, with `WORKERS` processes.

    The methods are coroutines for all of them. Those of a synchronous library block
    until they have a result and never suspend, which costs a fraction of a microsecond.
    """

    name: ClassVar[str]
    """As in ``--peers``."""

    label: ClassVar[str]
    """As a person would say it."""

    distribution: ClassVar[str] = ""
    """What to install; empty for the standard library."""

    asynchronous: ClassVar[bool] = False
    """The event loop goes on while tasks run."""

    streams: ClassVar[bool] = False
    """`stream` works; otherwise the library takes lists only."""

    eager: ClassVar[bool] = False
    """`stream` reads its input to the end before it yields anything."""

    limits_time: ClassVar[bool] = False
    """`settle` takes a limit."""

    note: ClassVar[str] = ""
    """How it is used, where that is not obvious; printed beside its figures."""

    async def start(self) -> None:
        """Make the pool ready, as far as the library has such a step."""

    async def close(self) -> None:
        """Stop the workers."""

    async def call(self, fn: Callable[[T], R], item: T) -> R:
        """Run one task and return its result."""
        raise NotImplementedError

    async def map(self, fn: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Run a task for each item and return the results in order."""
        raise NotImplementedError

    async def broadcast(
        self, fn: Callable[[S, T], R], shared: S, items: Sequence[T]
    ) -> list[R]:
        """Run a task for each item, each with one large object besides."""
        return await self.map(partial(fn, shared), items)

    def stream(self, fn: Callable[[T], R], items: Iterator[T]) -> AsyncIterator[R]:
        """Yield results in order, as they come. See `streams`."""
        raise NotImplementedError

    async def settle(
        self,
        fn: Callable[[T], R],
        items: Sequence[T],
        report: Report,
        limit: float | None = None,
    ) -> None:
        """Run a task for each item and report the fate of each when it is known.

        This is for tasks that kill their worker, so it may report late or never; it may
        also return before everything is reported. It never blocks the event loop.

        Args:
            fn: The function.
            items: Its arguments.
            report: Is called once for each task whose fate becomes known.
            limit: Seconds that each task may run, or None. See `limits_time`.
        """
        slots = asyncio.Semaphore(WORKERS if limit else len(items))

        async def one(position: int, item: T) -> None:
            async with slots:  # a task's time begins when it can run
                try:
                    async with asyncio.timeout(limit):
                        report(position, await self.call(fn, item))
                except Exception as exc:  # noqa: BLE001  # its fate, whatever it is
                    report(position, exc)

        await asyncio.gather(*(one(n, item) for n, item in enumerate(items)))


async def warm_up(contender: Contender) -> None:
    """Start a contender and let each of its workers do something."""
    await contender.start()
    for _ in range(2):
        expect(await contender.map(tasks.addone, range(8)), list(range(1, 9)))


@asynccontextmanager
async def running(contender: Contender) -> AsyncGenerator[None]:
    """Have a contender warm, and close it at the end."""
    await warm_up(contender)
    yield
    await contender.close()


def expect(found: object, right: object) -> None:
    """Compare results.

    Raises:
        WrongResultError: They differ.
    """
    if found != right:
        raise WrongResultError(f"{found!r:.60} instead of {right!r:.60}")
