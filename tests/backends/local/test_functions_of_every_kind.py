"""Functions of every kind are called with arguments of every kind."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

import wren


def kinds() -> dict[str, Callable[[int], Any]]:
    """Return functions that add 10, each of another kind."""
    ten = 10

    def plain(n: int) -> int:
        return n + 10

    def closure(n: int) -> int:
        return n + ten

    def with_defaults(n: int, *, more: int = 10) -> int:
        return n + more

    def recursive(n: int, left: int = 10) -> int:
        return recursive(n + 1, left - 1) if left else n

    def even(n: int, left: int) -> int:
        return odd(n + 1, left - 1) if left else n

    def odd(n: int, left: int) -> int:
        return even(n + 1, left - 1) if left else n

    def more(first: int, second: int) -> int:
        return first + second + ten - 10

    @functools.wraps(plain)
    def decorated(n: int) -> int:
        return plain(n)

    @functools.cache
    def cached(n: int) -> int:
        return n + 10

    async def coroutine(n: int) -> int:
        import asyncio

        await asyncio.sleep(0)
        return n + ten

    class Adder:
        base = 10

        def __init__(self, more: int = 10) -> None:
            self.more = more

        def __call__(self, n: int) -> int:
            return n + self.more

        def method(self, n: int) -> int:
            return n + self.more

        async def async_method(self, n: int) -> int:
            return n + self.more

        @classmethod
        def class_method(cls, n: int) -> int:
            return n + cls.base

        @staticmethod
        def static_method(n: int) -> int:
            return n + 10

    class AsyncAdder:
        async def __call__(self, n: int) -> int:
            return n + 10

    @dataclass
    class Number:
        n: int

        def __eq__(self, other: object) -> bool:
            return other == self.n + 10

    return {
        "plain": plain,
        "lambda": lambda n: n + 10,
        "closure": closure,
        "with defaults": with_defaults,
        "recursive": recursive,
        "mutually recursive": lambda n: even(n, 10),
        "decorated": decorated,
        "cached": cached,
        "partial": functools.partial(operator.add, 10),
        "partial of a closure": functools.partial(more, 10),
        "built-in": (10).__add__,
        "async": coroutine,
        "partial of async": functools.partial(coroutine),
        "callable object": Adder(),
        "async callable object": AsyncAdder(),
        "bound method": Adder(10).method,
        "async bound method": Adder(10).async_method,
        "class method": Adder.class_method,
        "static method": Adder.static_method,
        "class": Number,
    }


@pytest.mark.anyio
@pytest.mark.parametrize("kind", kinds())
async def test_functions_of_every_kind_are_called(
    executor: wren.Executor, kind: str
) -> None:
    """Alone, in a chunk, and with a time limit."""
    function = kinds()[kind]
    expected = list(range(10, 22))

    assert await executor.submit(function, 5) == 15
    assert await executor.map(function, range(12)) == expected
    assert await executor.map(function, range(12), chunksize=6, timeout=30) == expected


@pytest.mark.anyio
async def test_arguments_of_every_kind_are_passed(executor: wren.Executor) -> None:
    """By position, by name, and with names that wren uses itself."""

    def show(*args: object, **kwargs: object) -> tuple[object, object]:
        return args, kwargs

    names: dict[str, object] = {"fn": 1, "self": 2, "timeout": 3, "call": 4}

    assert await executor.submit(show) == ((), {})
    assert await executor.submit(show, 1, 2) == ((1, 2), {})
    assert await executor.submit(show, **names) == ((), names)
    assert await executor.submit(show, (1,), a=None) == (((1,),), {"a": None})
    assert await executor.map(show, [1, 2], "ab") == [((1, "a"), {}), ((2, "b"), {})]
    assert await executor.starmap(show, [(), (1, 2)]) == [((), {}), ((1, 2), {})]


@pytest.mark.anyio
async def test_async_functions_of_one_worker_share_a_loop(
    executor: wren.Executor,
) -> None:
    """A connection that one task has opened can be used by the next."""

    async def loop() -> int:
        import asyncio

        return id(asyncio.get_running_loop())

    loops = await executor.map(lambda _: loop(), range(10), chunksize=10)

    assert len(set(loops)) == 1
