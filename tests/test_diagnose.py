"""What a user is told about an object that cannot be pickled."""

from __future__ import annotations

import functools
import pickle
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from types import MethodType
from typing import Any, NoReturn

import cloudpickle
import pytest

from wren.diagnose import explain_unpicklable, unpicklable
from wren.errors import SerializationError

LOCK = threading.Lock()


@dataclass
class Solver:
    name: str = "s"
    parent: Solver | None = None
    lock: Any = LOCK

    def run(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Slotted:
    number: int
    lock: Any


class OldSlots:
    __slots__ = ("first", "lock", "unset")

    def __init__(self) -> None:
        self.first = 1
        self.lock = LOCK


class Careful:
    """Leaves its lock out, so that only the other attribute is to blame."""

    def __init__(self) -> None:
        self.lock = LOCK
        self.storage = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {"storage": self.storage}


class Refuses:
    def __reduce__(self) -> NoReturn:
        raise RuntimeError("not today")


class Hostile:
    """Fails in whatever way an object can."""

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise RuntimeError("no pickle")

    def __repr__(self) -> str:
        raise RuntimeError("no text")

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError("no attribute")


class LockedList(list[Any]): ...


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        yield connection


def error_of(obj: object) -> Exception:
    try:
        cloudpickle.dumps(obj)
    except Exception as exc:  # noqa: BLE001  # whatever it raises
        return exc
    pytest.fail(f"{type(obj)} can be pickled")


def explain(obj: object, what: str = "the argument") -> str:
    return explain_unpicklable(obj, error_of(obj), what=what)


def by_value(source: str, name: str, **namespace: Any) -> Callable[..., Any]:
    """Return a function as if it were written in a script or a notebook."""
    globals_: dict[str, Any] = {"__name__": "__main__", **namespace}
    exec(source, globals_)  # noqa: S102
    function: Callable[..., Any] = globals_[name]
    return function


@pytest.mark.parametrize(
    ("obj", "place"),
    [
        (LOCK, "it is a _thread.lock"),
        ([1, {"db": LOCK}], "argument[1]['db'] is a _thread.lock"),
        ((1, [2, LOCK]), "argument[1][1] is"),
        ({LOCK}, "list(argument)[0] is"),
        ({(0, LOCK): 1}, "list(argument)[0][1] is"),
        (LockedList([0, LOCK]), "argument[1] is"),
        (Solver(), "argument.lock (attribute 'lock' of 'Solver') is"),
        (Slotted(1, LOCK), "argument.lock (attribute 'lock' of 'Slotted') is"),
        (OldSlots(), "argument.lock (attribute 'lock' of 'OldSlots') is"),
        ([Solver(lock=[LOCK])], "argument[0].lock[0] is"),
        (Careful(), "argument.storage (attribute 'storage' of 'Careful') is a"),
        (ValueError("text", LOCK), "argument.args[1] is"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_part_is_named_by_the_expression_that_leads_to_it(
    obj: object, place: str
) -> None:
    """A user finds it in code that may be far from the call."""
    assert explain(obj).startswith(f"cannot pickle the argument: {place}")


def test_a_closure_variable_is_named(connection: sqlite3.Connection) -> None:
    """It is what a function holds on to without showing it."""

    def f() -> object:
        return connection

    assert explain(f, "the function").startswith(
        f"cannot pickle the function {f.__qualname__!r}: its closure variable "
        "'connection' is a sqlite3.Connection"
    )


def test_a_global_is_named_with_the_function_that_uses_it() -> None:
    """That function may be another one than the one that was passed."""
    work = by_value("def work(): return LOCK", "work", LOCK=LOCK)
    outer = by_value("def outer():\n    def f(): work()", "outer", work=work)

    assert "the global 'LOCK' that it uses is" in explain(work, "the function")
    text = explain(outer, "the function")
    assert text.startswith("cannot pickle the function 'outer': the global 'LOCK' used")
    assert "used by 'work' is a _thread.lock" in text


@pytest.mark.parametrize("parameters", ["a, x=LOCK", "a, *, x=LOCK"])
def test_a_default_is_named(parameters: str) -> None:
    """Defaults travel with a function, although nobody passes them."""
    f = by_value(f"def f({parameters}): pass", "f", LOCK=LOCK)

    assert "its default for parameter 'x' is" in explain(f, "the function")


def test_a_bound_method_leads_to_its_object() -> None:
    """A method is the usual way to send an object without meaning to."""
    text = explain(Solver().run, "the function")

    assert "cannot pickle the function 'Solver.run': self.lock" in text
    assert "(attribute 'lock' of 'Solver')" in text


def test_a_method_of_a_builtin_leads_to_its_object(
    connection: sqlite3.Connection,
) -> None:
    """Such as ``cursor.execute``."""
    text = explain(connection.execute, "the function")

    assert "the object it is bound to is a sqlite3.Connection" in text


def test_the_function_of_a_bound_method_is_looked_into() -> None:
    """It is not always the class's own."""
    work = by_value("def work(self): return LOCK", "work", LOCK=LOCK)

    text = explain(MethodType(work, 1), "the function")

    assert "the global 'LOCK' used by 'work' is" in text


def test_what_is_bound_by_a_partial_is_named() -> None:
    """By its position or its keyword."""
    positional = functools.partial(print, 1, LOCK)
    keyword = functools.partial(Solver, lock=LOCK)

    assert "its bound argument 1 is" in explain(positional, "the function")
    assert "its bound argument 'lock' is" in explain(keyword, "the function")


def test_what_a_wrapped_function_holds_is_found() -> None:
    """Decorators hide the function they wrap."""
    f = by_value("def f(): return LOCK", "f", LOCK=LOCK)

    @functools.wraps(f)
    def wrapper() -> object:
        return f()

    assert "the global 'LOCK' used by 'f' is" in explain(wrapper, "the function")


def test_an_attribute_of_a_class_is_named() -> None:
    """A class of a script travels by value, with everything in it."""
    cls = by_value("class Local:\n    shared = LOCK", "Local", LOCK=LOCK)

    assert "its attribute 'shared' is" in explain(cls)
    assert "the attribute 'shared' of 'Local' is" in explain(cls())


def test_a_circle_leads_to_the_part_and_not_back() -> None:
    """An object that holds its parent holds everything the parent holds."""
    parent = Solver()
    parent.parent = Solver(lock=None, parent=parent)

    assert "argument.lock (attribute" in explain(parent)


def test_what_an_object_says_itself_is_passed_on() -> None:
    """Its own reason is better than none."""
    assert "argument['x'] is a" in explain({"x": Refuses()})
    assert "(not today)" in explain({"x": Refuses()})


def test_depth_is_told_from_a_part_that_fails() -> None:
    """Every part of a deep list pickles; the list does not."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    assert "nested too deeply" in explain(deep)


@pytest.mark.parametrize(
    ("obj", "what", "advice"),
    [
        ((n for n in range(3)), "the argument", "make a list of its items"),
        (Solver(), "the argument", "leave it out in a __getstate__ of 'Solver'"),
        ([LOCK], "the argument", "create it inside the function"),
        ([LOCK], "the result", "return what it holds as plain data"),
    ],
)
def test_the_sentence_says_what_helps(obj: object, what: str, advice: str) -> None:
    """A diagnosis alone leaves a newcomer where they were."""
    assert explain(obj, what).endswith(f"; {advice}") or advice in explain(obj, what)


def test_a_global_may_move_to_a_module() -> None:
    """A module of the user's own travels, and each worker makes its own lock."""
    work = by_value("def work(): return LOCK", "work", LOCK=LOCK)

    assert "a module of your own" in explain(work, "the function")


def test_a_coroutine_is_answered_with_the_function() -> None:
    """Calling the async function too early is the usual mistake."""

    async def f() -> None: ...

    coroutine = f()
    text = explain([coroutine])
    coroutine.close()

    assert "pass the async function and its arguments" in text


def test_a_hostile_object_is_still_answered() -> None:
    """An explanation must never fail in place of what it explains."""
    text = explain({Hostile(): [Hostile()]})

    assert text.startswith("cannot pickle the argument")


def test_looking_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop waits meanwhile; what is known then is said."""
    monkeypatch.setattr("wren.diagnose.SECONDS", -1.0)

    text = explain([[1], LOCK])

    assert text == (
        "cannot pickle the argument: TypeError: cannot pickle '_thread.lock' object"
    )


def test_what_lies_too_deep_is_not_looked_for() -> None:
    """The search must not run into the interpreter's own limit."""
    nested: list[Any] = [LOCK]
    for _ in range(100):
        nested = [nested]

    assert explain(nested).endswith("TypeError: cannot pickle '_thread.lock' object")


def test_an_endless_object_is_given_up() -> None:
    """Objects may unfold without end while they are taken apart."""

    class Endless:
        def __reduce__(self) -> tuple[Any, ...]:
            return list, (), None, iter([Endless(), LOCK])

    text = explain_unpicklable(Endless(), TypeError("no"), what="the argument")

    assert text == "cannot pickle the argument: TypeError: no"


def test_nothing_is_consumed_twice() -> None:
    """Taking an object apart calls its ``__reduce__``, as pickling does; no more."""
    calls: list[str] = []

    class Counting:
        def __iter__(self) -> Iterator[int]:
            calls.append("iterated")
            return iter(())

        def __len__(self) -> int:
            calls.append("measured")
            return 0

    explain([Counting(), LOCK])

    assert calls == []


def test_the_error_to_raise_keeps_the_original_as_its_cause() -> None:
    """The original has the traceback into the user's own pickling code."""
    original = error_of(Solver())

    error = unpicklable(Solver(), original, what="the argument")

    assert isinstance(error, SerializationError)
    assert error.__cause__ is original
    assert "argument.lock" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
