"""How each task ended arrives at the driver; nothing that a task does prevents it."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wren.envelope import Buffer
from wren.errors import RemoteError, SerializationError, TaskTimeoutError
from wren.serialize import OUT_OF_BAND

if TYPE_CHECKING:
    from tests.worker.conftest import Driver

# pytest-timeout's own way uses the signal that stops tasks.
pytestmark = pytest.mark.timeout(60, method="thread")


class OwnError(Exception):
    """Gives its base class one argument of the two that it needs."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


class Unloadable:
    """Cannot be unpickled."""

    def __reduce__(self) -> tuple[Callable[[], NoReturn], tuple[()]]:
        return refuse, ()


def refuse() -> NoReturn:
    raise ValueError("not here")


class HostileError(Exception):
    """Ends whoever prints it, pickles it or rebuilds it."""

    def __str__(self) -> NoReturn:
        raise SystemExit

    __repr__ = __str__

    def __reduce__(self) -> NoReturn:
        raise KeyboardInterrupt


class HostileValue:
    def __reduce__(self) -> NoReturn:
        raise SystemExit

    def __repr__(self) -> NoReturn:
        raise KeyboardInterrupt


MAKE: dict[str, Callable[[], Any]] = {
    "value error": lambda: ValueError("text", 1),
    "key error": lambda: KeyError("key"),
    "memory error": MemoryError,
    "exit": lambda: SystemExit(3),
    "interrupt": KeyboardInterrupt,
    "own error": lambda: OwnError("a", "b"),
    "lock": threading.Lock,
    "unloadable": Unloadable,
}
TRAVEL = ("value error", "key error", "memory error")
DO_NOT = ("exit", "interrupt", "own error")


def act(order: object) -> object:
    """Return an order, or raise or return what it is the name of."""
    if not isinstance(order, str) or order not in MAKE:
        return order
    made = MAKE[order]()
    if isinstance(made, BaseException):
        raise made
    return made


async def act_later(order: object) -> object:
    await asyncio.sleep(0)
    return act(order)


values = (
    st.none()
    | st.integers()
    | st.text(max_size=5)
    | st.lists(st.integers())
    | st.integers(0, 3).map(lambda number: np.full(OUT_OF_BAND, number))
)
orders = st.lists(values | st.sampled_from(list(MAKE)), max_size=6)


@pytest.mark.parametrize("function", [act, act_later])
@pytest.mark.parametrize("header", [{}, {"timeout": 100.0}], ids=["", "timeout"])
@settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(orders=orders)
def test_the_driver_reads_exactly_how_each_task_ended(
    function: Callable[[object], object],
    header: dict[str, float],
    driver: Driver,
    orders: list[Any],
) -> None:
    """Every value and every exception, each in its own place."""
    found = driver.results(function, orders, **header)

    assert len(found) == len(orders)
    for order, ended in zip(orders, found, strict=True):
        name = order if isinstance(order, str) else ""
        if name in TRAVEL:
            assert type(ended) is type(MAKE[name]())
            assert ended.args == MAKE[name]().args
        elif name in DO_NOT:
            assert type(ended) is RemoteError
            assert ended.type_name.endswith(type(MAKE[name]()).__name__)
        elif name == "lock":
            assert type(ended) is SerializationError
        elif name == "unloadable":
            assert type(ended) is ValueError
            assert str(ended) == "not here"
        else:
            assert type(ended) is type(order)
            np.testing.assert_equal(ended, order)


def test_a_result_that_cannot_travel_is_explained(driver: Driver) -> None:
    """At its own index, however many tasks failed before it."""

    def results(order: str) -> object:
        if order == "fail":
            raise KeyError(order)
        return {"inner": {"lock": threading.Lock()}} if order == "lock" else order

    found = driver.results(results, ["fail", "a", "lock", "fail", "lock", "b"])

    assert [found[1], found[5]] == ["a", "b"]
    for position in (2, 4):
        assert type(found[position]) is SerializationError
        assert "lock" in str(found[position])
    assert type(found[0]) is type(found[3]) is KeyError


def test_a_generator_is_a_result_that_cannot_travel(driver: Driver) -> None:
    """Whoever forgot ``list`` is told, instead of getting nothing."""

    def count(number: int) -> Iterator[int]:
        yield from range(number)

    found = driver.results(count, [3])

    assert type(found[0]) is SerializationError
    assert "generator" in str(found[0])


@pytest.mark.parametrize("raised", [True, False], ids=["raised", "returned"])
def test_objects_that_fight_back_spoil_only_their_task(
    raised: bool, driver: Driver
) -> None:
    """Their code runs when they are described or pickled, and may raise anything."""

    def hostile(order: int) -> object:
        if order != 1:
            return order
        if raised:
            raise HostileError
        return HostileValue()

    found = driver.results(hostile, [0, 1, 2])

    assert [found[0], found[2]] == [0, 2]
    assert type(found[1]) is (RemoteError if raised else SerializationError)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_tasks_may_change_the_arrays_they_are_given(
    wrap: Callable[[bytearray], Buffer], driver: Driver
) -> None:
    """Whatever memory a platform hands the request over in."""

    def add(array: Any) -> Any:
        array += 1
        return array

    array = np.arange(OUT_OF_BAND)
    request = wrap(driver.request(add, [array, "x", array + 1][::2]))

    found = driver.read(driver.send(request))

    np.testing.assert_array_equal(found[0], array + 1)
    np.testing.assert_array_equal(found[1], array + 2)


def test_a_response_says_how_it_was_made(driver: Driver) -> None:
    """For the statistics and for people."""

    def speak(text: str) -> None:
        print(text)  # noqa: T201
        print("error", file=sys.stderr)  # noqa: T201

    first = driver.header(driver.request(speak, ["one", "two"]))
    second = driver.header(driver.request(speak, ["three"], inline=False))

    assert first["worker"] == second["worker"] == "w1"
    assert (first["cold"], second["cold"]) == (True, False)
    assert first["output"] == "one\ntwo\nerror\nerror\n"
    assert second["output"] == "three\nerror\n"
    assert 0 < first["started"] <= second["started"]
    assert first["seconds"] > 0
    assert first["peak"] > 1 << 20


def test_a_worker_is_cold_once_even_if_it_refuses(driver: Driver) -> None:
    """What made the first request slow is over after it."""
    assert driver.header(b"noise")["cold"] is True
    assert driver.header(driver.request(len, ["x"]))["cold"] is False


def test_a_worker_whose_task_was_interrupted_asks_to_be_replaced(
    driver: Driver,
) -> None:
    """And only then: the next request says anew."""

    def stall(order: int) -> int:
        while order == 0:
            pass
        return order

    found = driver.results(stall, [0, 1], timeout=0.05)
    retired = driver.worker.retire
    driver.results(stall, [1], timeout=100.0)

    assert type(found[0]) is TaskTimeoutError
    assert found[1] == 1
    assert retired
    assert not driver.worker.retire


def test_a_response_keeps_nothing_of_the_request_alive(driver: Driver) -> None:
    """Arguments may be large, and a warm worker waits long for its next request."""

    def total(array: Any) -> Any:
        return array.sum()

    request = driver.request(total, [np.arange(OUT_OF_BAND)])
    driver.send(request)
    request.clear()  # raises BufferError if anything still refers to it
