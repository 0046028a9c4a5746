"""Inputs of every kind are taken once, in order, and no further than is wanted."""

from __future__ import annotations

import gc
import tracemalloc
from array import array
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import count
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
import pytest
from anyio import wait_all_tasks_blocked
from anyio.lowlevel import checkpoint

from wren import Executor
from wren.errors import TaskCancelledError
from wren.protocols import Limits
from wren.source import open_source

if TYPE_CHECKING:
    from tests.core.conftest import FakeCompute

pytestmark = pytest.mark.anyio


class Pulled:
    """An endless input that says how much was pulled and whether it was closed."""

    def __init__(self, until: int = -1, error: Exception | None = None) -> None:
        self.pulled = 0
        self.closed = False
        self._until = until
        self._error = error

    def __iter__(self) -> Iterator[int]:
        try:
            for n in count():
                if n == self._until:
                    if self._error is not None:
                        raise self._error
                    return
                self.pulled += 1
                yield n
        finally:
            self.closed = True

    async def stream(self, suspends: bool = True) -> AsyncIterator[int]:
        try:
            for n in self:
                if suspends:
                    await checkpoint()
                yield n
        finally:
            self.closed = True


def lazy(pulled: Pulled) -> Iterable[int]:
    return iter(pulled)


def suspending(pulled: Pulled) -> AsyncIterator[int]:
    return pulled.stream()


def never_suspending(pulled: Pulled) -> AsyncIterator[int]:
    return pulled.stream(suspends=False)


async def anext_until_it_raises(iterator: AsyncIterator[Any]) -> None:
    while True:
        await anext(iterator)


STREAMS = [lazy, suspending, never_suspending]
Stream = Callable[[Pulled], Any]


async def numbers(stop: int) -> AsyncIterator[int]:
    for n in range(stop):
        await checkpoint()
        yield n


@pytest.mark.parametrize("chunksize", [None, 1, 3, 100])
@pytest.mark.parametrize(
    "items",
    [
        [3, 1, 2],
        (3, 1, 2),
        range(5),
        "word",
        b"bytes",
        {3, 1, 2},
        {"a": 1, "b": 2},
        {"a": 1, "b": 2}.items(),
        deque([3, 1, 2]),
        array("d", [0.5, 1.5]),
        np.arange(6).reshape(3, 2),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_sized_inputs_have_a_length_and_futures(
    make_compute: type[FakeCompute], items: Any, chunksize: int | None
) -> None:
    """Whatever has a length gives as many futures, and results in its own order."""
    async with Executor(backend=make_compute()) as executor:
        job = executor.map(repr, items, chunksize=chunksize)
        assert len(job) == len(items)
        assert await job == [repr(item) for item in items]
        assert [future.result() for future in job] == await job


@pytest.mark.parametrize("chunksize", [None, 1, 3])
async def test_inputs_are_zipped_like_those_of_map(
    make_compute: type[FakeCompute], chunksize: int | None
) -> None:
    """The shortest ends the job, whatever kinds are mixed."""

    def join(*values: object) -> str:
        return "-".join(map(str, values))

    a, b = [1, 2, 3, 4], "xyz"
    expected = ["1-x-0", "2-y-1", "3-z-2"]
    async with Executor(backend=make_compute()) as executor:

        async def results(*inputs: Any) -> list[str]:
            return await executor.map(join, *inputs, chunksize=chunksize)

        assert await results(a, list(b), range(9)) == expected
        assert await results(a, b, {0: 0, 1: 0, 2: 0}) == expected
        assert await results(a, iter(b), count()) == expected
        assert await results(iter(a), b, numbers(9)) == expected
        assert await results(numbers(9), numbers(2)) == ["0-0", "1-1"]
        assert len(executor.map(join, a, b)) == 3
        job = executor.map(join, a, count())
        with pytest.raises(TypeError, match="no length"):
            len(job)
        assert await executor.starmap(join, [(1, 2), [3], "ab"]) == ["1-2", "3", "a-b"]
        assert await executor.starmap(join, iter([(1, 2)])) == ["1-2"]


@pytest.mark.parametrize(
    "make",
    [list, tuple, set, dict, lambda: range(0), lambda: iter([]), lambda: numbers(0)],
)
async def test_an_empty_input_is_an_empty_job(
    make_compute: type[FakeCompute], make: Callable[[], Any]
) -> None:
    """It ends at once, in every way it can be read, and invokes nothing."""
    compute = make_compute()

    async with Executor(backend=compute) as executor:
        assert await executor.map(abs, make()) == []
        assert await executor.map(max, make(), [1]) == []
        assert [result async for result in executor.map(abs, make())] == []
        futures = executor.map(abs, make()).as_completed()
        assert [future async for future in futures] == []
        job = executor.map(abs, make())
        await job.wait()
        assert job.done()
        assert not job.cancel()
        assert job.stats.total == 0

    assert compute.invocations == 0


async def test_what_cannot_be_iterated_over_is_refused_at_the_call(
    make_compute: type[FakeCompute],
) -> None:
    """Like the built-in map."""
    wrong: Any = 7
    async with Executor(backend=make_compute()) as executor:
        with pytest.raises(TypeError):
            executor.map(abs, wrong)
        with pytest.raises(TypeError):
            executor.map(pow, [1], wrong)
        with pytest.raises(TypeError, match="at least one"):
            executor.map(abs)


async def test_an_input_with_a_wrong_length_is_taken_as_it_comes(
    make_compute: type[FakeCompute],
) -> None:
    """The items decide; a promise of more must not hang."""

    class Liar:
        def __len__(self) -> int:
            return 5

        def __iter__(self) -> Iterator[int]:
            return iter([1, 2])

    async with Executor(backend=make_compute()) as executor:
        job = executor.map(abs, Liar())
        assert await job == [1, 2]
        assert isinstance(job[4], object)
        with pytest.raises(TaskCancelledError, match="no task 4"):
            await job[4]
        assert not job[4].cancel()


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize(("buffer", "chunksize"), [(1, None), (8, None), (10, 4)])
async def test_an_endless_input_is_pulled_no_further_than_the_buffer(
    make_compute: type[FakeCompute],
    stream: Stream,
    buffer: int,
    chunksize: int | None,
) -> None:
    """At most ``buffer`` tasks have been pulled that were not read, at any time."""
    pulled = Pulled()
    ahead: list[int] = []

    async with Executor(backend=make_compute()) as executor:
        job = executor.map(abs, stream(pulled), buffer=buffer, chunksize=chunksize)
        await wait_all_tasks_blocked()
        assert pulled.pulled <= buffer
        read = 0
        async for result in job:
            assert result == read
            ahead.append(pulled.pulled - read)
            read += 1
            if read in (7, 50):
                await wait_all_tasks_blocked()
            if read == 100:
                break
        assert job.done()
    gc.collect()

    assert max(ahead) <= buffer + 1  # the one in hand has not been marked read yet
    assert pulled.closed


@pytest.mark.parametrize("stream", STREAMS)
async def test_as_completed_reads_an_endless_input_as_far_as_the_buffer(
    make_compute: type[FakeCompute], stream: Stream
) -> None:
    """Also in order of completion, and with tasks that return None."""
    pulled = Pulled()

    async with Executor(backend=make_compute()) as executor:
        job = executor.map(lambda _: None, stream(pulled), buffer=200)
        seen: set[int] = set()
        async for future in job.as_completed():
            assert future.result() is None
            seen.add(future.index)
            assert pulled.pulled - len(seen) <= 200
            if len(seen) == 1000:
                break

    assert len(seen) == 1000
    assert pulled.pulled <= 1200


@pytest.mark.parametrize("stream", STREAMS)
async def test_awaiting_lifts_the_bound(
    make_compute: type[FakeCompute], stream: Stream
) -> None:
    """Then everything is wanted, and nobody reads piece by piece."""
    async with Executor(backend=make_compute()) as executor:
        job = executor.map(abs, stream(Pulled(until=500)), buffer=2)
        assert await job == list(range(500))
        assert await job == list(range(500))
        assert job.stats.total == 500
        job = executor.map(abs, stream(Pulled(until=500)), buffer=2)
        await job.wait()
        assert [result async for result in job] == list(range(500))


@pytest.mark.parametrize("stream", STREAMS)
async def test_an_input_that_raises_ends_the_job_with_its_error(
    make_compute: type[FakeCompute], stream: Stream
) -> None:
    """The original error, however one waits; what has started is cancelled."""
    error = LookupError("the input broke")

    async with Executor(backend=make_compute()) as executor:

        def job() -> Any:
            return executor.map(abs, stream(Pulled(30, error)), chunksize=4, buffer=8)

        with pytest.raises(LookupError, match="broke") as caught:
            await job()
        assert caught.value is error
        with pytest.raises(LookupError, match="broke"):
            await anext_until_it_raises(aiter(job()))
        with pytest.raises(LookupError, match="broke"):
            await anext_until_it_raises(job().as_completed())
        last = job()
        await last.wait()
        assert last.done()


async def test_tasks_under_way_are_cancelled_when_the_input_raises(
    make_compute: type[FakeCompute],
) -> None:
    """Nobody would read them."""
    compute = make_compute(["hang"] * 3)
    inputs = Pulled(2, LookupError("broke"))

    async with Executor(backend=compute) as executor:
        with pytest.raises(LookupError):
            await executor.map(abs, iter(inputs), chunksize=1)
        await wait_all_tasks_blocked()
        assert compute.in_flight == 0

    assert compute.executed == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_input_that_was_cancelled_did_not_end(
    make_compute: type[FakeCompute],
) -> None:
    """asyncio lets anybody raise its cancellation; it must not look like an end."""

    async def broken() -> AsyncIterator[int]:
        yield 1
        raise anyio.get_cancelled_exc_class()

    async with Executor(backend=make_compute()) as executor:
        with pytest.raises(TaskCancelledError, match="input"):
            await executor.map(abs, broken())


async def test_asynchronous_inputs_are_closed_when_their_job_is_cancelled(
    make_compute: type[FakeCompute],
) -> None:
    """A generator's own cleaning up runs, and may await."""
    steps: list[str] = []

    async def input_() -> AsyncIterator[int]:
        try:
            for n in count():
                yield n
        finally:
            steps.append("closing")
            with anyio.CancelScope(shield=True):
                await checkpoint()
            steps.append("closed")

    async with Executor(backend=make_compute()) as executor:
        job = executor.map(abs, input_(), buffer=4)
        await wait_all_tasks_blocked()
        assert job.cancel()
        await job.wait()
        await wait_all_tasks_blocked()
        assert steps == ["closing", "closed"]


async def test_an_input_that_fails_to_close_harms_nobody(
    make_compute: type[FakeCompute], caplog: pytest.LogCaptureFixture
) -> None:
    """The error goes to the log; other jobs of the executor go on."""

    async def input_() -> AsyncIterator[int]:
        try:
            for n in count():
                yield n
        finally:
            raise LookupError("while closing")

    async with Executor(backend=make_compute()) as executor:
        job = executor.map(abs, input_(), buffer=4)
        other = executor.map(abs, numbers(50))
        await wait_all_tasks_blocked()
        job.cancel()
        await job.wait()
        assert await other == list(range(50))

    assert "while closing" in caplog.text


@pytest.mark.parametrize("stream", STREAMS)
async def test_a_stream_that_is_dropped_unread_ends(
    make_compute: type[FakeCompute], stream: Stream
) -> None:
    """Nobody can read it any more, so neither input nor results are kept."""
    pulled = Pulled()

    async with Executor(backend=make_compute()) as executor:
        job = executor.map(abs, stream(pulled), buffer=4)
        await wait_all_tasks_blocked()
        assert pulled.pulled > 0
        assert not pulled.closed
        del job
        gc.collect()
        await wait_all_tasks_blocked()
        assert pulled.closed


@pytest.mark.parametrize("stream", STREAMS)
async def test_a_stream_that_somebody_reads_outlives_its_job_object(
    make_compute: type[FakeCompute], stream: Stream
) -> None:
    """Also a sized input's job, which nobody needs to read."""
    compute = make_compute()

    async with Executor(backend=compute) as executor:
        sized = executor.map(abs, range(-9, 0)).id
        futures = executor.map(abs, stream(Pulled(until=50)), buffer=4).as_completed()
        waiting = executor.map(abs, stream(Pulled(until=50)), buffer=4).wait()
        gc.collect()
        assert len([future async for future in futures]) == 50
        await waiting
        assert sized
        assert len(compute.executed) == 109


async def test_a_stream_runs_in_constant_memory(
    make_compute: type[FakeCompute],
) -> None:
    """Two hundred thousand results later the driver holds no more than at the start."""
    limits = Limits(concurrency=2, lossless=True)
    compute = make_compute(limits=limits, forgets=True)
    sizes: list[int] = []

    async with Executor(backend=compute) as executor:
        read = 0
        tracemalloc.start()
        try:
            async for _ in executor.map(abs, iter(range(200_000))):
                read += 1
                if read % 50_000 == 1:
                    sizes.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()

    assert read == 200_000
    assert max(sizes) - sizes[0] < 1_000_000


async def test_a_slow_lazy_input_lets_the_event_loop_run() -> None:
    """Pulling stops after a moment, with what there is."""
    source = open_source([(sum(range(n * 1000)) for n in range(1000))])

    assert 1 <= len(source.take(1000)) < 1000
