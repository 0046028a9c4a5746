"""Checks of what a map returns: values, order, input, functions."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

import anyio
import pytest

from wren.conformance.spec import Level, check
from wren.executor import Executor

PATIENCE: Final = 120.0
"""Seconds for what takes one at most, on a platform that is slow to start."""

Open = Callable[..., Executor]


class ValueChecks:
    """A map gives what the built-in `map` gives, in the same order."""

    @check("E01")
    async def test_equals_the_builtin_map(self, open_executor: Open) -> None:
        """None, falsy values, NaN and returned exceptions are values like any other."""

        def vary(n: int) -> object:
            kinds: list[object] = [
                None,
                0,
                "",
                [],
                {"n": n},
                ValueError(n),
                n,
                b"\0" * n,
            ]
            return kinds[n % len(kinds)]

        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                got = await executor.map(vary, range(40))
                nan = await executor.submit(lambda: float("nan"))

        expected = [vary(n) for n in range(40)]
        assert [repr(each) for each in got] == [repr(each) for each in expected]
        assert math.isnan(nan)

    @check("E01")
    async def test_several_inputs_are_zipped(self, open_executor: Open) -> None:
        """The shortest ends it, as of the built-in one."""
        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                got = await executor.map(lambda a, b: a - b, range(9), [5, 4, 3])

        assert got == [-5, -3, -1]

    @check("E02")
    async def test_order_is_the_inputs(self, open_executor: Open) -> None:
        """However long each task takes."""

        def wait(n: int) -> int:
            import time

            time.sleep((n * 7 % 5) / 100)
            return n

        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                listed = await executor.map(wait, range(20), chunksize=1)
                streamed = [n async for n in executor.map(wait, range(20), chunksize=1)]

        assert listed == streamed == list(range(20))

    @check("E02")
    async def test_as_completed_gives_each_once(self, open_executor: Open) -> None:
        """In the order of completion, with the index of its input."""
        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                job = executor.map(lambda n: n * 2, range(20), chunksize=1)
                found = {
                    future.index: future.result() async for future in job.as_completed()
                }

        assert found == {n: 2 * n for n in range(20)}

    @check("E03")
    async def test_nothing_in_is_nothing_out(self, open_executor: Open) -> None:
        """And nothing is invoked for it."""
        nothing: list[int] = []
        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                job = executor.map(abs, nothing)
                assert await job == []
                assert [n async for n in executor.map(abs, nothing)] == []

        assert job.stats.invocations == 0

    @check("E04")
    async def test_one_item_is_a_list_of_one(self, open_executor: Open) -> None:
        """One task, one invocation."""
        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                job = executor.map(abs, [-3])
                assert await job == [3]
                assert await executor.submit(abs, -4) == 4

        assert job.stats.invocations == 1

    @check("E05")
    async def test_input_is_pulled_as_it_is_consumed(self, open_executor: Open) -> None:
        """At most ``buffer`` items ahead of what was read."""
        pulled = 0

        def numbers() -> Iterator[int]:
            nonlocal pulled
            while True:
                pulled += 1
                yield pulled - 1

        read = most = 0
        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                async for n in executor.map(abs, numbers(), buffer=8, chunksize=2):
                    assert n == read
                    read += 1
                    most = max(most, pulled - read)
                    if read == 60:
                        break

        assert most <= 8 + 2

    @check("E05")
    async def test_input_may_be_asynchronous(self, open_executor: Open) -> None:
        """A queue, a cursor, a response that is still arriving."""

        async def numbers() -> AsyncIterator[int]:
            for n in range(10):
                await anyio.lowlevel.checkpoint()
                yield n

        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                assert await executor.map(lambda n: n + 1, numbers()) == [*range(1, 11)]

    @check("E06")
    async def test_an_endless_stream_may_be_left(self, open_executor: Open) -> None:
        """Leaving the loop is enough; the executor is as good as before."""

        def numbers() -> Iterator[int]:
            n = 0
            while True:
                yield n
                n += 1

        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                for _ in range(3):
                    async for n in executor.map(abs, numbers()):
                        if n == 5:
                            break
                assert await executor.submit(abs, -1) == 1

    @check("E07")
    async def test_any_callable_travels(self, open_executor: Open) -> None:
        """With what it closes over, what is bound to it, and its class."""

        class Point:
            def __init__(self, x: int) -> None:
                self.x = x

            def add(self, n: int) -> int:
                return self.x + n

            def __call__(self, n: int) -> int:
                return self.x * n

        def power(n: int, *, exponent: int) -> int:
            return int(n**exponent)

        async def later(n: int) -> int:
            return -n

        callables: list[Callable[[int], Any]] = [
            abs,
            lambda n: n + 1,
            functools.partial(power, exponent=2),
            Point(10).add,
            Point(10),
            later,
        ]
        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                got = [await executor.map(each, [3]) for each in callables]
                made = await executor.map(Point, [7])
                pairs = await executor.starmap(divmod, [(7, 2), (9, 4)])
                keyword = await executor.submit(power, 2, exponent=5)

        assert got == [[3], [4], [9], [13], [30], [-3]]
        assert (type(made[0]).__name__, made[0].x) == ("Point", 7)
        assert (pairs, keyword) == ([(3, 1), (2, 1)], 32)

    @check("E07")
    async def test_a_class_of_the_program_travels(
        self, open_executor: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What a script defines in ``__main__`` is nowhere on the worker."""

        class Bird:
            def __init__(self, name: str) -> None:
                self.name = name

        def name_of(bird: Bird) -> str:
            return bird.name

        Bird.__module__, Bird.__qualname__ = "__main__", "Bird"
        monkeypatch.setattr(sys.modules["__main__"], "Bird", Bird, raising=False)

        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                (bird,) = await executor.map(Bird, ["wren"])
                name = await executor.submit(name_of, bird)

        assert isinstance(bird, Bird)
        assert name == "wren"

    @check("E34", Level.SCALE)
    async def test_large_values_come_back_whole(self, open_executor: Open) -> None:
        """Larger than any platform takes inline, both ways."""
        data = bytes(range(256)) * (48 << 10)  # 12 MiB

        with anyio.fail_after(PATIENCE):
            async with open_executor() as executor:
                got = await executor.map(
                    lambda d, n: d + bytes([n]), [data] * 3, range(3)
                )

        for n, each in enumerate(got):
            same = each == data + bytes([n])
            assert same
