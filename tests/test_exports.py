"""What ``import wren`` offers: the same to the interpreter, editors and pickle."""

from __future__ import annotations

import ast
import inspect
import pickle
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

import cloudpickle
import pytest

import wren
import wren.errors
from wren import WrenError

ERRORS = sorted(
    (
        member
        for member in vars(wren.errors).values()
        if isinstance(member, type) and issubclass(member, WrenError)
    ),
    key=lambda cls: cls.__name__,
)

# For every error whose constructor takes more than a message: all of its parameters.
SAMPLES: dict[str, dict[str, Any]] = {
    "ThrottledError": {"message": "slow down", "retry_after": 2.5},
    "WorkerLostError": {"message": "died", "exit_code": -9, "output": "last words\n"},
    "RemoteError": {"type_name": "lib.Odd", "message": "odd", "traceback": "Trace"},
}
STORAGE_SAMPLE: dict[str, Any] = {"message": "refused", "store": "s3", "key": "a/b"}


def sample(cls: type[WrenError]) -> WrenError:
    """Make an error with a value other than the default for all of its parameters."""
    arguments = SAMPLES.get(cls.__name__)
    if arguments is None and issubclass(cls, wren.StorageError):
        arguments = STORAGE_SAMPLE
    if arguments is None:
        return cls("what happened")
    assert arguments.keys() == inspect.signature(cls).parameters.keys()
    return cls(**arguments)


def checkers_view() -> dict[str, str]:
    """Return what type checkers see in `wren`: each name, and the module it is from."""
    tree = ast.parse(Path(wren.__file__).read_text(encoding="utf-8"))
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {
        alias.asname or alias.name: node.module or ""
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_type_checkers_see_what_the_interpreter_sees() -> None:
    """The names are loaded lazily, so nothing but this compares the two lists."""
    seen = checkers_view()

    assert seen.keys() == set(wren.__all__)
    for name, module in seen.items():
        assert getattr(wren, name) is getattr(import_module(module), name), name


def test_the_list_of_names_is_sorted_and_shown() -> None:
    """``dir(wren)`` is what an interactive user completes from."""
    assert list(wren.__all__) == sorted(set(wren.__all__))
    assert set(wren.__all__) <= set(dir(wren))


def test_an_unknown_name_is_an_attribute_error() -> None:
    """`hasattr` and ``from wren import x`` rely on it."""
    assert not hasattr(wren, "no_such_name")


@pytest.mark.parametrize("name", [n for n in wren.__all__ if n != "Buffer"])
def test_every_public_thing_is_documented(name: str) -> None:
    """`help` is the reference: each class and each public method has its promise."""
    thing: object = getattr(wren, name)
    generated = f"{name}("  # what `dataclass` writes when there is no docstring

    assert thing.__doc__
    assert not thing.__doc__.startswith(generated)
    for label, member in vars(thing).items():
        if label.startswith("_"):
            continue
        function = getattr(member, "__func__", member)
        if isinstance(function, FunctionType | property):
            assert inspect.getdoc(function), f"{name}.{label}"


def test_every_error_is_public() -> None:
    """An error that cannot be named cannot be caught."""
    assert {cls.__name__ for cls in ERRORS} <= set(wren.__all__)


@pytest.mark.parametrize("cls", ERRORS)
def test_an_error_is_told_apart_in_the_tree(cls: type[WrenError]) -> None:
    """The drawing in the docstring of `wren.errors` documents the tree."""
    assert wren.errors.__doc__
    assert cls.__name__ in wren.errors.__doc__


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("cls", ERRORS)
def test_an_error_survives_pickling(cls: type[WrenError], protocol: int) -> None:
    """Errors cross from worker to driver: attributes and notes must arrive."""
    error = sample(cls)
    error.add_note("task 7")

    copy = pickle.loads(pickle.dumps(error, protocol))

    assert type(copy) is cls
    assert copy.args == error.args
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)
    assert copy.__notes__ == ["task 7"]


def test_a_users_subclass_of_an_error_survives_pickling() -> None:
    """A backend's author adds classes with parameters of their own."""

    class QuotaError(wren.ThrottledError):
        def __init__(self, account: str, *, limit: int) -> None:
            super().__init__(f"{account} is over {limit}", retry_after=1.0)
            self.account = account
            self.limit = limit

    copy = pickle.loads(cloudpickle.dumps(QuotaError("acme", limit=3)))

    assert str(copy) == "acme is over 3"
    assert (copy.account, copy.limit, copy.retry_after) == ("acme", 3, 1.0)
