"""Arrays of any size and layout travel both ways, and belong to whoever has them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest

import wren

pytestmark = pytest.mark.anyio

Array: TypeAlias = npt.NDArray[Any]
MIB = 1 << 20


def layouts() -> dict[str, Array]:
    """Return arrays that differ in everything but their being arrays."""
    numbers = np.arange(60_000, dtype=np.float64).reshape(200, 300)
    frozen = numbers.copy()
    frozen.flags.writeable = False
    record = np.zeros(5_000, dtype=[("a", "i4"), ("b", "f8", (3,))])
    return {
        "empty": np.empty(0),
        "no rows": np.empty((0, 7), dtype=np.int8),
        "no dimension": np.array(3.5),
        "one byte": np.ones(1, dtype=np.uint8),
        "C order": numbers,
        "Fortran order": np.asfortranarray(numbers),
        "transposed": numbers.T,
        "every other": numbers[::2, ::3],
        "backwards": numbers[::-1],
        "broadcast": np.broadcast_to(np.arange(300.0), (200, 300)),
        "read-only": frozen,
        "big-endian": numbers.astype(">f8"),
        "objects": np.array([{"a": 1}, None, "text", [1, 2]], dtype=object),
        "text": np.array(["a", "bc"] * 20_000),
        "records": record,
        "masked": np.ma.masked_less(numbers, 100),
        "times": np.arange("2020-01", "2021-01", dtype="datetime64[D]"),
    }


def twice(value: Array) -> tuple[Array, Array]:
    """Return an argument two times."""
    return value, value


@pytest.mark.parametrize("layout", layouts())
async def test_arrays_of_every_layout_go_there_and_back(
    executor: wren.Executor, layout: str
) -> None:
    """Values, type, shape and identity within one result survive."""
    value = layouts()[layout]

    first, second = await executor.submit(twice, value)

    assert first is second
    assert type(first) is type(value)
    assert (first.dtype, first.shape) == (value.dtype, value.shape)
    assert bool(np.all(first == value))


@pytest.mark.parametrize("chunksize", [1, 5])
@pytest.mark.parametrize(
    "size", [1, 16 * 1024 - 1, 16 * 1024, 128 * 1024, 300_001, MIB, 4 * MIB + 1]
)
async def test_arrays_of_every_size_go_there_and_back(
    executor: wren.Executor, size: int, chunksize: int
) -> None:
    """In the pickle, beside it, through the socket or through shared memory."""
    values = [np.full(size, n, dtype=np.uint8) for n in range(5)]

    results = await executor.map(lambda value: value + 1, values, chunksize=chunksize)

    for n, result in enumerate(results):
        assert result.shape == (size,)
        assert bool(np.all(result == n + 1))


async def test_a_large_array_goes_there_and_back(executor: wren.Executor) -> None:
    """64 MiB: beyond what is kept warm between messages."""
    value = np.arange(8 * MIB, dtype=np.int64)

    def backwards(value: Array) -> Array:
        return value[::-1].copy()

    result = await executor.submit(backwards, value)

    assert bool(np.array_equal(result[::-1], value))
    assert await executor.submit(len, b"next") == 4


@pytest.mark.parametrize("size", [10, 20_000, 200_000, 8 * MIB])
async def test_arguments_and_results_can_be_written_to(
    executor: wren.Executor, size: int
) -> None:
    """Nobody expects an array that came out of a call to be read-only."""

    def fill(value: Array) -> Array:
        value[:] = 7
        return value

    argument = np.zeros(size, dtype=np.uint8)
    result = await executor.submit(fill, argument)
    result += 1

    assert bool(np.all(result == 8))
    assert bool(np.all(argument == 0))


@pytest.mark.parametrize("size", [1000, 100_000, 2 * MIB])
@pytest.mark.parametrize("chunksize", [1, 4])
async def test_tasks_do_not_share_an_array(
    executor: wren.Executor, size: int, chunksize: int
) -> None:
    """The same one in every item: what one task does to its own, no other sees."""
    shared = np.zeros(size, dtype=np.uint8)

    def alter(value: Array) -> int:
        value += 1
        return int(value.max())

    assert await executor.map(alter, [shared] * 12, chunksize=chunksize) == [1] * 12
    assert int(shared.max()) == 0


async def test_results_do_not_share_memory(executor: wren.Executor) -> None:
    """Each belongs to whoever has it, for as long as that is."""
    results = await executor.map(
        lambda n: np.full(300_000, n, dtype=np.uint8), range(8), chunksize=2
    )
    results[0][:] = 99

    assert [int(result[0]) for result in results] == [99, 1, 2, 3, 4, 5, 6, 7]
    assert not any(np.shares_memory(results[0], other) for other in results[1:])


@pytest.mark.parametrize("size", [1000, 100_000, 2 * MIB])
@pytest.mark.parametrize("kind", ["generator", "async generator"])
async def test_a_buffer_that_is_filled_anew_is_sent_as_it_was(
    executor: wren.Executor, size: int, kind: str
) -> None:
    """Readers of cameras and files yield the same array again and again.

    That works as long as a task has ended before its array is filled anew: here as no
    more than one is in flight or unread. A large one must not be taken for known.
    """
    buffer = np.zeros(size, dtype=np.int64)

    def frames() -> Iterator[Array]:
        for n in range(12):
            buffer[:] = n
            yield buffer

    async def frames_async() -> AsyncIterator[Array]:
        for frame in frames():
            yield frame

    source = frames() if kind == "generator" else frames_async()
    job = executor.map(
        lambda value: (int(value.min()), int(value.max())),
        source,
        chunksize=1,
        buffer=1,
    )

    assert [each async for each in job] == [(n, n) for n in range(12)]


# --- large arrays that many tasks need ------------------------------------------------


def stored(session: Path) -> list[int]:
    """Return the sizes of the large objects in a session's storage."""
    sizes = [path.stat().st_size for path in (session / "storage").rglob("*")]
    return [size for size in sizes if size >= MIB]


@pytest.fixture
async def session(executor: wren.Executor, session_of: Callable[[int], Path]) -> Path:
    """The executor's session directory."""
    return session_of(await executor.submit(os.getppid))


@pytest.mark.parametrize("way", ["closure", "list"])
async def test_a_large_array_is_stored_once_for_all_tasks(
    executor: wren.Executor,
    session: Path,
    until: Callable[[Callable[[], bool]], Awaitable[None]],
    way: str,
) -> None:
    """32 MiB, 30 requests, one object; and none when the job has ended."""
    big = np.arange(4 * MIB, dtype=np.int64)

    def task(n: int, big: Array) -> int:
        return int(big[n]) + len(big)

    if way == "closure":
        job = executor.map(lambda n: int(big[n]) + len(big), range(30), chunksize=1)
    else:
        items = [(n, big) for n in range(30)]
        job = executor.starmap(task, items, chunksize=1)

    seen = [stored(session) async for _ in job.as_completed()]

    assert await job == [n + len(big) for n in range(30)]
    assert seen[20] == [big.nbytes]
    assert max(map(len, seen)) == 1
    await until(lambda: not stored(session))


async def test_a_task_cannot_change_a_stored_array_for_others(
    executor: wren.Executor,
) -> None:
    """It is mapped into each worker, privately."""
    big = np.zeros(2 * MIB, dtype=np.int64)

    def alter(other: Array) -> tuple[int, int]:
        other += 1
        return int(other.min()), int(other.max())

    assert set(await executor.map(alter, [big] * 10, chunksize=1)) == {(1, 1)}


async def test_a_closure_lives_in_a_warm_worker_and_says_so(
    executor: wren.Executor,
) -> None:
    """A function is rebuilt once for each worker: what it keeps, it keeps."""
    big = np.zeros(2 * MIB, dtype=np.int64)

    def count(_: int) -> tuple[int, int]:
        big[0] += 1
        return os.getpid(), int(big[0])

    calls: dict[int, list[int]] = {}
    for pid, number in await executor.map(count, range(12), chunksize=1):
        calls.setdefault(pid, []).append(number)

    for numbers in calls.values():
        assert sorted(numbers) == list(range(1, len(numbers) + 1))
    assert int(big[0]) == 0


async def test_arrays_within_other_things_travel(executor: wren.Executor) -> None:
    """Lists, dicts and objects that hold several, some of them the same."""
    one = np.arange(50_000)
    value = {"first": one, "again": one, "more": [one[:10], one * 2, {"deep": one}]}

    def same(value: Any) -> Any:
        return value

    result = await executor.submit(same, value)

    assert result["first"] is result["again"]
    assert result["first"] is result["more"][2]["deep"]
    assert bool(np.array_equal(result["more"][1], one * 2))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
async def test_plain_bytes_travel(executor: wren.Executor, kind: type) -> None:
    """Large ones, of each kind; a view arrives as what can be pickled of it."""
    data = os.urandom(3 * MIB)

    def check(value: Any) -> bytes:
        return bytes(value)

    argument = data if kind is bytes else bytearray(data)
    assert await executor.submit(check, argument) == data
