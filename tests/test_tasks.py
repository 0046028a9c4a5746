"""Every task of a request ends in its own place, whatever its neighbours do."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wren import tasks
from wren.errors import TaskTimeoutError
from wren.failures import dump_failure
from wren.tasks import Outcome, TaskRunner

# pytest-timeout's own way uses the signal that is tested here.
pytestmark = pytest.mark.timeout(60, method="thread")

AMPLE = 100.0
SHORT = 0.05

NONE: dict[str, int] = {}

timeouts = pytest.mark.parametrize("timeout", [None, AMPLE])
"""Tasks take different ways with and without one."""


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Generator[TaskRunner]:
    """A runner; afterwards its loops are closed and the streams are as they were."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    opened: list[asyncio.Runner] = []

    make = asyncio.Runner

    def record() -> asyncio.Runner:
        opened.append(make())
        return opened[-1]

    monkeypatch.setattr(asyncio, "Runner", record)
    yield TaskRunner()
    for loop in opened:
        loop.close()


def act(order: object) -> object:
    """Return the order, or raise it."""
    if isinstance(order, BaseException):
        raise order
    return order


async def act_later(order: object) -> object:
    await asyncio.sleep(0)
    return act(order)


def act_soon(order: object) -> object:
    """Act now, or return something to await, depending on the order."""
    return act_later(order) if isinstance(order, int) else act(order)


def forever(_: object = None) -> NoReturn:
    while True:
        pass


async def wait_forever(_: object = None) -> None:
    await asyncio.get_running_loop().create_future()


def timed_out(outcome: Outcome) -> set[int]:
    """Return the positions of the tasks that ran out of time."""
    failures = outcome.failures.items()
    return {n for n, exc in failures if isinstance(exc, TaskTimeoutError)}


def traceback_of(exc: BaseException) -> str:
    """Return the traceback as a worker describes it."""
    return dump_failure(exc, inside=tasks.__file__)[0][2]


# --- calling --------------------------------------------------------------------------


@timeouts
@pytest.mark.parametrize(
    ("call", "argument", "expected"),
    [
        ("item", (1, 2), (((1, 2),), NONE)),
        ("star", (1, 2), ((1, 2), NONE)),
        ("star", (), ((), NONE)),
        (
            "full",
            ((1, 2), {"self": 3, "timeout": 4}),
            ((1, 2), {"self": 3, "timeout": 4}),
        ),
        ("full", ((), NONE), ((), NONE)),
    ],
)
def test_a_function_gets_its_arguments_as_the_call_says(
    call: str, argument: Any, expected: Any, timeout: float | None, runner: TaskRunner
) -> None:
    """To `map`, a tuple is an item; to `starmap`, arguments; `submit` has keywords."""

    def given_to(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    def given_later(*args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        return act_later((args, kwargs))

    for function in (given_to, given_later):
        outcome = runner.run(function, call, [argument], timeout)
        assert outcome.values == [expected]


orders = st.lists(
    st.integers()
    | st.just(ValueError("text"))
    | st.sampled_from(
        [
            StopIteration(1),
            StopAsyncIteration(),
            GeneratorExit(),
            KeyboardInterrupt(),
            SystemExit(3),
            asyncio.CancelledError(),
            TimeoutError("its own"),
            RecursionError(),
        ]
    ),
    max_size=8,
)


@timeouts
@pytest.mark.parametrize(
    "function",
    [act, act_later, act_soon],
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(orders=orders)
def test_every_task_keeps_its_place(
    function: Callable[[object], object],
    timeout: float | None,
    runner: TaskRunner,
    orders: list[object],
) -> None:
    """Whatever is raised beside it, and if only some return something to await."""
    outcome = runner.run(function, "item", list(orders), timeout)

    total = len(outcome.values) + len(outcome.failures)
    returned = iter(outcome.values)
    found = [outcome.failures.get(n) or next(returned) for n in range(total)]
    assert len(found) == len(orders)
    for ended, order in zip(found, orders, strict=True):
        if isinstance(order, StopIteration) and function is act_later:
            assert isinstance(ended, RuntimeError)  # as wherever a coroutine raises it
        else:
            assert type(ended) is type(order)
            assert str(ended) == str(order)
    assert not outcome.retire


@timeouts
def test_a_generator_is_a_value(timeout: float | None, runner: TaskRunner) -> None:
    """Whether it can travel is not decided here, and running it is not asked for."""

    def count(_: object) -> Iterator[int]:
        yield 1

    (value,) = runner.run(count, "item", [0], timeout).values
    assert list(value) == [1]


@pytest.mark.parametrize(
    ("function", "code"),
    [
        (act, "    raise order"),
        (act_later, "    return act(order)"),
        (functools.partial(act), "    raise order"),
    ],
    ids=["plain", "async", "partial"],
)
@timeouts
def test_a_traceback_begins_in_the_users_code(
    function: Callable[[object], object],
    code: str,
    timeout: float | None,
    runner: TaskRunner,
) -> None:
    """What called it is of no interest to whoever wrote it."""
    outcome = runner.run(function, "item", [ValueError("text")], timeout)

    head, file, line, *_ = traceback_of(outcome.failures[0]).splitlines()
    assert head == "Traceback (most recent call last):"
    assert __file__ in file
    assert code in line


@pytest.mark.parametrize("call", ["item", "star", "full"])
@timeouts
def test_a_wrong_call_has_no_traceback(
    call: str, timeout: float | None, runner: TaskRunner
) -> None:
    """None of the user's code has run."""
    arguments = [((1,), {"key": 2})]
    outcome = runner.run(lambda: None, call, arguments, timeout)
    text = traceback_of(outcome.failures[0])
    assert text.startswith("TypeError: ")
    assert tasks.__file__ not in text


# --- time -----------------------------------------------------------------------------


def stubborn(_: object) -> None:
    """Survive every exception, as retry loops and servers do."""
    while True:
        with contextlib.suppress(Exception):
            forever()


async def block(_: object) -> None:
    """Block the event loop."""
    await asyncio.sleep(0)
    forever()


async def block_in_child(_: object) -> None:
    await asyncio.create_task(block(None))


async def unheeding(_: object) -> None:
    """Ignore that it is cancelled."""
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await wait_forever()


@pytest.mark.parametrize(
    "function", [forever, stubborn, wait_forever, block, block_in_child]
)
def test_a_task_whose_time_is_up_is_stopped(
    function: Callable[[object], object], runner: TaskRunner
) -> None:
    """And only it: those before and after it are as they would be without it."""

    def one(order: object) -> object:
        return function(order) if order == "stuck" else order

    outcome = runner.run(one, "item", [1, "stuck", 2], SHORT)

    assert outcome.values == [1, 2]
    assert timed_out(outcome) == {1}
    assert isinstance(outcome.failures[1], TimeoutError)
    assert "0.05 s" in str(outcome.failures[1])
    assert outcome.retire
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_coroutine_that_ignores_its_end_is_left_behind(runner: TaskRunner) -> None:
    """Closing its loop would wait for it for ever. The process is to be replaced."""
    outcome = runner.run(unheeding, "item", [0], SHORT)

    assert timed_out(outcome) == {0}
    assert outcome.retire
    del outcome
    gc.collect()  # asyncio logs now, and not in a later test, what was left


@pytest.mark.parametrize("function", [forever, wait_forever, block])
def test_where_a_task_was_stuck_is_told(
    function: Callable[[object], object], runner: TaskRunner
) -> None:
    """The one question that everybody has about a timeout."""
    outcome = runner.run(function, "item", [0], SHORT)

    text = traceback_of(outcome.failures[0])
    assert tasks.__file__ not in text
    assert __file__ in text.splitlines()[1]
    assert f"in {function.__name__}" in text


def test_a_coroutine_whose_time_is_up_may_clean_up(runner: TaskRunner) -> None:
    """It is cancelled where it waits, like everywhere in asyncio."""
    cleaned: list[str] = []

    async def careful(_: object) -> None:
        try:
            await wait_forever()
        finally:
            await asyncio.sleep(0)
            cleaned.append("up")

    outcome = runner.run(careful, "item", [0], SHORT)

    assert timed_out(outcome) == {0}
    assert cleaned == ["up"]


@timeouts
def test_a_timeout_of_its_own_is_the_tasks_own(
    timeout: float | None, runner: TaskRunner
) -> None:
    """It is an exception like any other, and the process is as good as before."""

    async def impatient(_: object) -> None:
        async with asyncio.timeout(0):
            await wait_forever()

    outcome = runner.run(impatient, "item", [0], timeout)

    assert type(outcome.failures[0]) is TimeoutError
    assert not outcome.retire


@pytest.mark.parametrize("order", [1, ValueError(), SystemExit()])
@pytest.mark.parametrize("function", [act, act_later])
def test_no_alarm_is_left(
    function: Callable[[object], object], order: object, runner: TaskRunner
) -> None:
    """It would strike a later task, or wren itself."""
    runner.run(function, "item", [order], AMPLE)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_task_that_takes_the_signal_does_not_take_it_from_others(
    runner: TaskRunner,
) -> None:
    """Libraries for timeouts use it, too."""

    def one(order: int) -> None:
        if order == 0:
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
        else:
            forever()

    assert timed_out(runner.run(one, "item", [0, 1], SHORT)) == {1}


def test_off_the_main_thread_tasks_run_without_an_alarm(runner: TaskRunner) -> None:
    """Signals do not arrive there. Coroutines are stopped nevertheless."""
    outcomes: list[Outcome] = []

    def work() -> None:
        outcomes.append(runner.run(act, "item", [1, ValueError()], SHORT))
        outcomes.append(runner.run(wait_forever, "item", [0], SHORT))

    before = signal.getsignal(signal.SIGALRM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert outcomes[0].values == [1]
    assert timed_out(outcomes[1]) == {0}
    assert signal.getsignal(signal.SIGALRM) is before


def test_a_loop_survives_what_leaves_it_half_way(runner: TaskRunner) -> None:
    """The next coroutine gets a new one, even if the old one does not close well."""

    started: list[asyncio.Task[None]] = []

    async def unruly() -> None:
        try:
            await wait_forever()
        finally:
            raise SystemExit("from clean-up")

    async def entangled() -> None:
        started.append(asyncio.create_task(unruly()))
        await asyncio.sleep(0)
        raise SystemExit("from the task")

    def one(order: int) -> Coroutine[Any, Any, object]:
        return entangled() if order == 0 else act_later(order)

    outcome = runner.run(one, "item", [0, 1, 2], None)

    assert str(started[0].exception()) == "from clean-up"
    assert str(outcome.failures[0]) == "from the task"
    assert outcome.values == [1, 2]
