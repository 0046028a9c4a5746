"""What cannot travel, on the way there or back, spoils its own task only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from wren import Executor
from wren.errors import RemoteError, SerializationError

if TYPE_CHECKING:
    from tests.core.conftest import FakeCompute

pytestmark = pytest.mark.anyio


class Unpicklable:
    """Refuses to be pickled."""

    def __reduce__(self) -> str:
        raise TypeError("cannot travel")


class Unrebuildable:
    """Pickles, and refuses to be rebuilt."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _refuse, ()


def _refuse() -> None:
    raise ValueError("cannot be rebuilt")


async def test_an_argument_that_cannot_be_pickled_spoils_only_its_index(
    make_compute: type[FakeCompute],
) -> None:
    """It is never sent; its neighbours are."""
    compute = make_compute()
    items: list[Any] = [1, Unpicklable(), 3, Unpicklable(), 5]

    async with Executor(backend=compute) as executor:
        job = executor.map(type, items, chunksize=5, return_exceptions=True)
        results: list[Any] = await job

    assert [type(results[n]) for n in (1, 3)] == [SerializationError] * 2
    assert [results[n] for n in (0, 2, 4)] == [int] * 3
    assert compute.counts == {1: 1, 3: 1, 5: 1}
    assert (job.stats.finished, job.stats.failed) == (3, 2)


async def test_what_cannot_be_rebuilt_spoils_only_its_index(
    make_compute: type[FakeCompute],
) -> None:
    """On the worker an argument, here a result; the driver unpickles all others."""
    compute = make_compute()
    items: list[Any] = [1, Unrebuildable(), 3]

    async with Executor(backend=compute) as executor:
        arguments = await executor.map(type, items, chunksize=3, return_exceptions=True)
        results: list[Any] = await executor.map(
            lambda n: n if n != 2 else Unrebuildable(),
            [1, 2, 3],
            chunksize=3,
            return_exceptions=True,
        )
        unpicklable = await executor.map(
            lambda n: n if n != 2 else Unpicklable(),
            [1, 2, 3],
            chunksize=3,
            return_exceptions=True,
        )

    for outcome in (arguments, results, unpicklable):
        assert type(outcome[1]) is SerializationError
    assert arguments[::2] == [int, int]
    assert results[::2] == unpicklable[::2] == [1, 3]


async def test_a_function_that_cannot_be_pickled_is_refused_at_the_call(
    make_compute: type[FakeCompute],
) -> None:
    """Before anything is sent, and so is a single task's argument."""
    compute = make_compute()
    secret = Unpicklable()

    async with Executor(backend=compute) as executor:
        with pytest.raises(SerializationError):
            executor.map(lambda n: (n, secret), range(3))
        with pytest.raises(SerializationError):
            executor.submit(type, Unpicklable())
        with pytest.raises(TypeError, match="cannot be called"):
            executor.submit(7)  # type: ignore[call-overload]

    assert compute.invocations == 0


@pytest.mark.parametrize(
    "kind", [SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration]
)
async def test_what_could_end_the_driver_arrives_as_a_remote_error(
    make_compute: type[FakeCompute], kind: type[BaseException]
) -> None:
    """A task can neither end nor cancel the driver by what it raises."""

    def leave(_: int) -> None:
        raise kind("bye")

    async with Executor(backend=make_compute()) as executor:
        with pytest.raises(RemoteError, match="bye") as caught:
            await executor.submit(leave, 1)

    assert caught.value.type_name == kind.__name__


async def test_what_is_large_is_pickled_beside_the_event_loop(
    make_compute: type[FakeCompute],
) -> None:
    """Arguments, results and functions of megabytes arrive as small ones do."""
    compute = make_compute(threads=True)
    large = list(range(300_000))

    async with Executor(backend=compute) as executor:
        assert await executor.map(list, [large, large[:5]]) == [large, [0, 1, 2, 3, 4]]
        assert await executor.submit(sum, large) == sum(large)
        assert await executor.submit(lambda: large[-1]) == large[-1]


async def test_what_a_task_printed_comes_with_its_failure(
    make_compute: type[FakeCompute],
) -> None:
    """The tail of it, as a note."""

    def speak(n: int) -> int:
        import sys

        sys.stdout.write("I was here\n")
        raise LookupError(n)

    async with Executor(backend=make_compute(threads=True)) as executor:
        with pytest.raises(LookupError) as caught:
            await executor.submit(speak, 1)

    assert "I was here" in "\n".join(caught.value.__notes__)
