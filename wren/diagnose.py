"""Which part of an object cannot be pickled, and what to do about it."""

from __future__ import annotations

import copyreg
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import (
    AsyncGeneratorType,
    BuiltinMethodType,
    CodeType,
    CoroutineType,
    FunctionType,
    GeneratorType,
    MethodType,
)
from typing import Any, Final, NamedTuple

from wren.errors import SerializationError

SECONDS: Final = 0.25
"""For so long at most a culprit is looked for."""

_MAX_DEPTH: Final = 50
_PLAIN: Final = frozenset({bool, bytes, complex, float, int, str, type(None)})
_SEQUENCES: Final = frozenset({list, tuple, deque})
_SETS: Final = frozenset({set, frozenset})
_SAYS_NO_MORE: Final = re.compile(r"cannot pickle '?[\w.]+'? object")


def unpicklable(obj: object, error: BaseException, *, what: str) -> SerializationError:
    """Return the error to raise for an object that cannot be pickled.

    Args:
        obj: The object.
        error: What pickling it raised; becomes ``__cause__``.
        what: What the object is to the user, such as ``"the argument"``.
    """
    failure = SerializationError(explain_unpicklable(obj, error, what=what))
    failure.__cause__ = error
    return failure


def explain_unpicklable(obj: object, error: BaseException, *, what: str) -> str:
    """Say in one sentence which part of an object cannot be pickled, and what helps.

    The part is found by pickling parts of the object, for `SECONDS` at most. If it is
    not found by then, the sentence says what ``error`` says.

    Args:
        obj: The object.
        error: What pickling it raised.
        what: What the object is to the user, such as ``"the argument"``.
    """
    try:
        return f"cannot pickle {_subject(obj, what)}: {_reason(obj, error, what)}"
    except Exception:  # noqa: BLE001  # looking closer must not hide what happened
        return f"cannot pickle {what}: {type(error).__name__}"


def _reason(obj: object, error: BaseException, what: str) -> str:
    if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
        return (
            "it is nested too deeply; pass it in a flat form, such as a list of its "
            "parts"
        )
    root = _Where("", what.removeprefix("the "), None)
    culprit = _Search().visit(root, obj, 0)
    if culprit is None:
        return f"{type(error).__name__}: {error}"
    where, part = culprit
    detail = "" if _SAYS_NO_MORE.fullmatch(str(error)) else f" ({error})"
    advice = _advice(where, part, what)
    return f"{_place(where, obj)} is {_kind(part)}{detail}; {advice}"


# --- the search -----------------------------------------------------------------------


class _Where(NamedTuple):
    """Where a part is: an expression, and what the expression begins with."""

    label: str
    """What the first name in the expression is, such as ``closure variable``."""

    expression: str

    owner: object
    """The function or class that the label is about, or None."""

    holder: str = ""
    """The class that the expression's last attribute belongs to."""

    def item(self, key: object) -> _Where:
        # Not the repr() of anything: it may be long, slow, or raise.
        text = f"{key!r:.40}" if type(key) in _PLAIN else f"<{type(key).__qualname__}>"
        return self._replace(expression=f"{self.expression}[{text}]", holder="")

    def listed(self, number: int) -> _Where:
        expression = f"list({self.expression})[{number}]"
        return self._replace(expression=expression, holder="")

    def attribute(self, name: str, holder: type) -> _Where:
        expression = f"{self.expression}.{name}"
        return self._replace(expression=expression, holder=holder.__qualname__)


class _OutOfTimeError(Exception):
    """The search has taken long enough."""


class _Sink:
    """A file that forgets what is written to it, and stops the writer in time."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline

    def write(self, data: Any) -> None:
        if time.monotonic() > self._deadline:
            raise _OutOfTimeError


class _Search:
    """Looks for a part that cannot be pickled although all of its own parts can."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + SECONDS
        self._failing: dict[int, object] = {}  # keeps them alive, and so the ids unique

    def visit(
        self, where: _Where, obj: object, depth: int
    ) -> tuple[_Where, object] | None:
        """Return the culprit in an object that fails; None if that cannot be said."""
        self._failing[id(obj)] = obj
        guilty = True
        if depth > _MAX_DEPTH:
            return None
        for place, part in _parts(where, obj):
            if time.monotonic() > self._deadline:
                return None
            if id(part) in self._failing:  # it leads back to where we came from
                guilty = False
            elif self._fails(part):
                guilty = False
                culprit = self.visit(place, part, depth + 1)
                if culprit is not None:
                    return culprit
        return (where, obj) if guilty else None

    def _fails(self, obj: object) -> bool:
        if type(obj) in _PLAIN:
            return False
        from cloudpickle import CloudPickler

        try:
            CloudPickler(_Sink(self._deadline), 5, _leave_out).dump(obj)
        except _OutOfTimeError:
            return False
        except Exception:  # noqa: BLE001  # any object's pickling may raise anything
            return True
        return False


def _leave_out(_: object) -> None:
    """Keep a buffer out of the pickle; it cannot be what fails."""


# --- what an object consists of -------------------------------------------------------


def _parts(where: _Where, obj: Any) -> Iterator[tuple[_Where, object]]:
    kind = _class_of(obj)
    if kind is dict:
        for n, (key, value) in enumerate(obj.items()):
            yield where.item(key), value
            yield where.listed(n), key
    elif kind in _SEQUENCES:
        for n, part in enumerate(obj):
            yield where.item(n), part
    elif kind in _SETS:
        for n, part in enumerate(obj):
            yield where.listed(n), part
    elif isinstance(obj, FunctionType):
        yield from _parts_of_function(obj)
    elif isinstance(obj, MethodType | BuiltinMethodType):
        yield _Where("", "self", obj), obj.__self__
        if isinstance(obj, MethodType):
            yield where, obj.__func__
    elif isinstance(obj, partial):
        for n, part in enumerate(obj.args):
            yield _Where("bound argument", str(n), obj), part
        for name, part in obj.keywords.items():
            yield _Where("bound argument", name, obj), part
        yield where, obj.func
    elif isinstance(obj, type):
        for base in obj.__bases__:
            yield _Where("base", base.__qualname__, obj), base
        for name, part in list(vars(obj).items()):
            if name not in {"__dict__", "__weakref__"}:
                yield _Where("attribute", name, obj), part
    else:
        yield from _parts_of_instance(where, obj)


def _parts_of_function(function: FunctionType) -> Iterator[tuple[_Where, object]]:
    names = function.__code__.co_freevars
    for name, cell in zip(names, function.__closure__ or (), strict=True):
        try:
            yield _Where("closure variable", name, function), cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for name in _global_names(function.__code__):
        if name in function.__globals__:
            yield _Where("global", name, function), function.__globals__[name]
    defaults = function.__defaults__ or ()
    count = function.__code__.co_argcount
    positional = function.__code__.co_varnames[count - len(defaults) : count]
    for name, part in (
        *zip(positional, defaults, strict=True),
        *(function.__kwdefaults__ or {}).items(),
    ):
        yield _Where("default for parameter", name, function), part
    for name, part in function.__dict__.items():
        yield _Where("attribute", name, function), part
    for name, part in function.__annotations__.items():
        yield _Where("annotation of", name, function), part


def _global_names(code: CodeType) -> Iterable[str]:
    import dis

    names: dict[str, None] = {}
    todo = [code]
    while todo:
        code = todo.pop()
        todo.extend(const for const in code.co_consts if isinstance(const, CodeType))
        for instruction in dis.get_instructions(code):
            if instruction.opname.endswith("_GLOBAL"):
                names[instruction.argval] = None
    return names


def _parts_of_instance(where: _Where, obj: Any) -> Iterator[tuple[_Where, object]]:
    try:
        reduced = _reduce(obj)
    except Exception:  # noqa: BLE001  # any object's pickling may raise anything
        return  # it refuses by itself
    arguments, state, items, pairs = reduced
    cls = _class_of(obj)
    for n, part in enumerate(arguments):
        if part is not cls:
            place = "args" if isinstance(obj, BaseException) else "__reduce__()"
            yield where.attribute(place, cls).item(n), part
    yield from _parts_of_state(where, cls, state)
    for n, part in enumerate(items):
        yield where.item(n), part
    for key, part in pairs:
        yield where.item(key), part
    yield _Where("the class", cls.__qualname__, None), cls


def _reduce(obj: Any) -> tuple[Any, Any, Any, Any]:
    """Return what pickling takes an object apart into.

    These are the arguments that make it again, its state, and iterators over its items
    and over its pairs of keys and values.
    """
    from cloudpickle import CloudPickler

    table = getattr(CloudPickler, "dispatch_table", copyreg.dispatch_table)
    reducer: Callable[[object], Any] | None = table.get(type(obj))
    reduced = obj.__reduce_ex__(5) if reducer is None else reducer(obj)
    if isinstance(reduced, str):  # the name of a global
        return (), None, (), ()
    arguments, state, items, pairs = (*reduced[1:], None, None, None)[:4]
    return arguments, state, items or (), pairs or ()


def _class_of(obj: object) -> type[Any]:
    return type(obj)


def _parts_of_state(
    where: _Where, cls: type[Any], state: Any
) -> Iterator[tuple[_Where, object]]:
    names = getattr(cls, "__dataclass_fields__", ())
    kind = _class_of(state)
    states: list[Any] = [state]
    if kind is tuple and len(state) == len(("__dict__", "__slots__")):
        states = list(state)
    elif kind is list and len(state) == len(names):  # frozen, and has slots
        states = [dict(zip(names, state, strict=True))]
    for part in states:
        if hasattr(part, "items"):
            for name, value in part.items():
                yield where.attribute(str(name), cls), value
        elif part is not None:
            yield where.attribute("__getstate__()", cls), part


# --- in words -------------------------------------------------------------------------


def _subject(obj: object, what: str) -> str:
    name = _name_of(obj)
    return f"{what} {name}" if name and what == "the function" else what


def _name_of(obj: object) -> str:
    if isinstance(obj, partial):
        return f"partial({_name_of(obj.func) or '...'})"
    if isinstance(obj, FunctionType | MethodType | BuiltinMethodType | type):
        return repr(obj.__qualname__)
    return ""


def _place(where: _Where, root: object) -> str:
    label, expression, owner, holder = where
    if label and expression.isidentifier():
        expression = repr(expression)
    if holder:
        attribute = expression.rpartition(".")[2]
        expression = f"{expression} (attribute {attribute!r} of {holder!r})"
    if not label:
        if expression == "self" and owner is root:
            return "the object it is bound to"
        return expression if "." in expression or "[" in expression else "it"
    if owner is None:
        return f"{label} {expression}"
    if label == "global":
        user = "that it uses" if owner is root else f"used by {_name_of(owner)}"
        return f"the global {expression} {user}"
    if owner is root:
        return f"its {label} {expression}"
    return f"the {label} {expression} of {_name_of(owner)}"


def _kind(obj: object) -> str:
    cls = type(obj)
    if isinstance(obj, FunctionType):
        return f"the function {obj.__qualname__!r}"
    if isinstance(obj, type):
        return f"the class {obj.__qualname__!r}"
    name = cls.__qualname__
    if cls.__module__ not in {"builtins", "__main__"}:
        name = f"{cls.__module__}.{name}"
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _advice(where: _Where, part: object, what: str) -> str:
    if isinstance(part, GeneratorType):
        return "make a list of its items"
    if isinstance(part, CoroutineType | AsyncGeneratorType):
        return "pass the async function and its arguments, and the worker awaits it"
    if what == "the result":
        return "return what it holds as plain data"
    if hasattr(part, "__wrapped__"):
        return "move it into a module of your own, which travels by itself"
    if where.label == "global":
        return (
            "create it inside the function, or move it with the function into a module "
            "of your own, which each worker imports for itself"
        )
    if where.holder:
        return (
            "create it inside the function, or leave it out in a __getstate__ of "
            f"{where.holder!r}"
        )
    return "create it inside the function"
