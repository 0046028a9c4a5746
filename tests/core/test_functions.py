"""A function travels once to each worker, with what it needs."""

from __future__ import annotations

import functools
import itertools
import operator
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from wren import Executor
from wren.bundle import Bundle
from wren.errors import DeploymentError, SerializationError
from wren.functions import FunctionPacker, PackedFunction
from wren.protocols import Limits

if TYPE_CHECKING:
    from tests.core.conftest import CountingStorage, FakeCompute

pytestmark = pytest.mark.anyio


class Adder:
    """A callable object, with a method."""

    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __call__(self, n: int) -> int:
        return n + self.amount

    def add(self, n: int) -> int:
        return n + self.amount

    @staticmethod
    def double(n: int) -> int:
        return 2 * n

    @classmethod
    def name(cls, n: int) -> str:
        return f"{cls.__name__}{n}"


def add_by_closure(amount: int) -> Callable[[int], int]:
    return lambda n: n + amount


async def add_later(n: int) -> int:
    return n + 1


def countdown(n: int) -> list[int]:
    return [n, *countdown(n - 1)] if n else []


KINDS: list[tuple[Callable[[int], Any], Any]] = [
    (abs, 3),
    (lambda n: -n, -3),
    (add_by_closure(4), 7),
    (functools.partial(operator.add, 5), 8),
    (Adder(6), 9),
    (Adder(7).add, 10),
    (Adder.double, 6),
    (Adder.name, "Adder3"),
    (str, "3"),
    (Adder, None),
    (add_later, 4),
    (countdown, [3, 2, 1]),
    (functools.lru_cache(countdown), [3, 2, 1]),
]


@pytest.mark.parametrize(
    ("fn", "expected"),
    KINDS,
    ids=itertools.count(),
)
async def test_functions_of_every_kind_are_called(
    make_compute: type[FakeCompute], fn: Callable[[int], Any], expected: Any
) -> None:
    """As the built-in map would call them; a coroutine is awaited."""
    async with Executor(backend=make_compute(threads=True)) as executor:
        (result,) = await executor.map(fn, [3])

    assert result == expected or (fn is Adder and result.amount == 3)


def carried(compute: FakeCompute) -> int:
    return sum("function_inline" in request for request in compute.requests)


async def test_the_function_travels_once_to_each_worker(
    make_compute: type[FakeCompute],
) -> None:
    """Not once for each task, nor for each job."""
    limits = Limits(concurrency=1, lossless=True)
    compute = make_compute(limits=limits, workers=3, seed=0)

    async with Executor(backend=compute) as executor:
        for _ in range(3):
            assert await executor.map(abs, range(30), chunksize=1) == list(range(30))

    assert 3 <= carried(compute) <= 9  # it is sent again to one that lacks it
    assert compute.invocations == 3 * 30 + carried(compute) - 1


async def test_a_worker_that_forgot_the_function_gets_it_again(
    make_compute: type[FakeCompute],
) -> None:
    """One that was replaced, or that has seen too many others since."""
    compute = make_compute()

    async with Executor(backend=compute) as executor:
        assert await executor.submit(abs, -1) == 1
        for n in range(20):
            assert await executor.submit(add_by_closure(n), 1) == n + 1
        before = carried(compute)
        assert await executor.submit(abs, -1) == 1

    assert carried(compute) == before + 1


async def test_a_large_argument_survives_being_sent_again(
    make_compute: type[FakeCompute], store: CountingStorage
) -> None:
    """To a worker that lacks the function, a single task is sent twice."""
    compute = make_compute(workers=2, threads=True)
    array = np.arange(9 << 20)

    async with Executor(backend=compute, storage=store) as executor:
        future = executor.submit(np.add.reduce, array)
        assert await future == array.sum()
        assert await executor.submit(np.add.reduce, array) == array.sum()

    assert compute.invocations == 3
    assert await store.keys() == []


async def test_large_values_of_a_closure_travel_apart_from_it(
    make_compute: type[FakeCompute], store: CountingStorage
) -> None:
    """Through storage, once, and the worker's are its own."""
    limits = Limits(concurrency=2, lossless=True)
    compute = make_compute(limits=limits, threads=True)
    array = np.ones(1 << 19)

    def weigh(n: int) -> float:
        return float(array[:n].sum())

    async with Executor(backend=compute, storage=store) as executor:
        assert await executor.map(weigh, range(8), chunksize=1) == list(range(8))

    assert sum("/blob/" in key for name, key in store.calls if name == "put") == 1
    assert await store.keys() == []


async def test_a_module_that_is_missing_is_named_with_the_way_to_bring_it(
    make_compute: type[FakeCompute], refusal: Callable[..., bytes]
) -> None:
    """If it is not one of the user's own."""
    limits = Limits(concurrency=1, lossless=True)
    compute = make_compute([refusal("module", "pandas2.core")], limits=limits)

    async with Executor(backend=compute) as executor:
        job = executor.map(abs, range(100))
        with pytest.raises(DeploymentError, match=r"pandas2\.core.*WREN_REQUIREMENTS"):
            await job

    assert compute.executed == []


async def test_two_requests_may_miss_the_same_module(
    make_compute: type[FakeCompute],
    refusal: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first brings it, the second goes again; only then is it no help."""
    missed = refusal("module", "mine")
    compute = make_compute([missed] * 4)
    bundle = Bundle("0" * 64, b"", ("mine",))
    monkeypatch.setattr("wren.modules.find", {"mine": bundle}.get)

    async with Executor(backend=compute) as executor:
        with compute.held():
            job = executor.map(abs, range(8), chunksize=1)
            await compute.blocked(4)
        assert await job == list(range(8))
        compute.script.append(missed)
        with pytest.raises(DeploymentError, match="mine"):
            await executor.map(abs, [1])


def test_what_was_packed_is_recognised() -> None:
    """By name or by value: the second look costs nothing."""
    packer = FunctionPacker()

    for fn in (os_path_join(), add_by_closure(1)):
        first = packer.dump(fn)
        assert not isinstance(first, PackedFunction)
        packed = packer.pack(fn, first)
        assert packer.dump(fn) is packed
    assert packer.dump(add_by_closure(1)) is packer.dump(add_by_closure(1))
    other = packer.pack(add_by_closure(2), None)
    assert other.identity != packer.pack(add_by_closure(1), None).identity


def os_path_join() -> Callable[..., Any]:
    import posixpath

    return posixpath.join


def test_what_cannot_be_pickled_is_named() -> None:
    """The attribute, not only the type."""
    adder = Adder(1)
    adder.amount = threading.Lock()  # type: ignore[assignment]

    with pytest.raises(SerializationError, match="amount"):
        FunctionPacker().dump(adder)


def test_only_so_many_functions_are_remembered() -> None:
    """An application may make functions for ever."""
    packer = FunctionPacker()

    first = packer.pack(add_by_closure(0), None)
    for n in range(300):
        packer.pack(add_by_closure(n), None)

    again = packer.pack(add_by_closure(0), None)
    assert again.identity == first.identity
    assert again is not first
