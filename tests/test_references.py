"""A pickle says which modules it needs, without being loaded."""

from __future__ import annotations

import importlib
import io
import json
import pickle
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial
from pathlib import PurePosixPath
from types import CodeType
from typing import Any

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wren.references import Skimmer, imports_of, referenced_modules


class Colour(Enum):
    RED = 1


@dataclass
class Point:
    x: Any
    y: Any = None


@dataclass(frozen=True, slots=True)
class Frozen:
    x: Any


class Listed(list[Any]):
    """A list with an attribute."""


class _Recorder(pickle.Unpickler):
    """Loads a pickle and records what was imported for it."""

    def __init__(self, pickled: bytes) -> None:
        super().__init__(io.BytesIO(pickled))
        self.found: set[str] = set()

    def find_class(self, module: str, name: str, /) -> Any:
        self.found.add(module)
        return super().find_class(module, name)


def listed(items: list[Any]) -> Listed:
    made = Listed(items)
    made.label = items  # type: ignore[attr-defined]
    return made


leaves = st.one_of(
    st.none(),
    st.integers(),
    st.text(),
    st.binary(),
    st.floats(),
    st.sampled_from(
        [
            Colour.RED,
            Decimal("1.5"),
            Fraction(1, 3),
            PurePosixPath("a/b"),
            bytearray(b"x" * 100_000),
            b"y" * 100_000,
            "é" * 100_000,
            json.dumps,
            len,
            Point,
            np.arange(5),
            np.float64(1),
            partial(max, 1),
            Counter("abc"),
            deque([1], maxlen=3),
            defaultdict(list, a=[1]),
            ValueError("text"),
            ...,
        ]
    ),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner),
        st.dictionaries(st.text(), inner),
        st.lists(inner).map(tuple),
        st.lists(inner).map(listed),
        st.dictionaries(st.integers(), inner).map(OrderedDict),
        inner.map(Point),
        inner.map(Frozen),
    ),
    max_leaves=8,
)


@given(values)
def test_it_finds_what_unpickling_would_import(value: object) -> None:
    """A module that is left out is missing on the worker."""
    pickled = cloudpickle.dumps(value, 5)
    recorder = _Recorder(pickled)
    recorder.load()

    assert referenced_modules(pickled) == recorder.found


def test_no_code_of_the_pickle_runs() -> None:
    """Unpickling a function may have effects that belong to the worker."""
    calls: list[int] = []

    class Effect:
        def __reduce__(self) -> tuple[Any, ...]:
            return exec, ("raise SystemExit",), {"state": 1}, iter([1]), iter([(1, 2)])

    assert referenced_modules(cloudpickle.dumps([Effect(), {Effect()}])) == {"builtins"}
    assert calls == []


def test_modules_that_are_pickled_by_name_are_found() -> None:
    """A function may use a module, or a part of a package, as a global."""
    source = "import xml.dom.minidom, json\ndef f(): return xml.dom.minidom, json"
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(source, namespace)  # noqa: S102

    found = referenced_modules(cloudpickle.dumps(namespace["f"]))

    assert {"xml", "xml.dom", "xml.dom.minidom", "json"} <= found


def test_modules_named_by_a_call_are_found() -> None:
    """``__reduce__`` may ask for an import by name."""

    class Lazy:
        def __reduce__(self) -> tuple[Any, ...]:
            return importlib.import_module, ("some.module",)

    assert "some.module" in referenced_modules(cloudpickle.dumps(Lazy()))


def test_buffers_outside_of_the_pickle_are_not_needed() -> None:
    """They may be gigabytes, and name nothing."""
    outside: list[pickle.PickleBuffer] = []
    value = [np.zeros(100_000), lambda: json]
    pickled = cloudpickle.dumps(value, 5, buffer_callback=outside.append)

    found = referenced_modules(pickled)

    assert len(outside) == 1
    assert {"json", "numpy"} <= {name.partition(".")[0] for name in found}


def test_long_byte_strings_are_skipped() -> None:
    """Copying them would take longer than all the rest."""
    skimmer = Skimmer(memoryview(b"0123456789"))
    target = bytearray(8)

    assert skimmer.readinto(target) == 8
    assert target == bytes(8)
    assert skimmer.read(5) == b"89"
    assert skimmer.readinto(target) == 0


def compiled(source: str) -> CodeType:
    return compile(source, "<test>", "exec")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a.b as c, d", {"a.b", "d"}),
        ("from a import b, c", {"a", "a.b", "a.c"}),
        ("from a import *", {"a"}),
        ("from . import b", {"pkg.sub", "pkg.sub.b"}),
        ("from .m import b", {"pkg.sub.m", "pkg.sub.m.b"}),
        ("from ..m import b", {"pkg.m", "pkg.m.b"}),
        ("from ....m import b", set[str]()),
        ("def f():\n  class C:\n    g = lambda: __import__('dyn')", {"dyn"}),
        ("import importlib\nimportlib.import_module('d.n')", {"importlib", "d.n"}),
        ("import importlib\nimportlib.import_module('not a name')", {"importlib"}),
        ("async def f():\n  [x async for x in y]\n  import z", {"z"}),
        ("try:\n  import a\nexcept ImportError:\n  import b", {"a", "b"}),
        ("text = 'import x'", set[str]()),
    ],
)
def test_imports_are_found_wherever_they_are(source: str, expected: set[str]) -> None:
    """They count when the function is called, not when it is packed."""
    assert set(imports_of(compiled(source), "pkg.sub")) == expected


def test_imports_of_code_with_very_many_names_are_found() -> None:
    """The interpreter encodes numbers above 255 in another way."""
    source = "\n".join(f"from .p{n} import m{n}" for n in range(1000))

    found = set(imports_of(compiled(source), "pkg"))

    assert found == {f"pkg.p{n}" for n in range(1000)} | {
        f"pkg.p{n}.m{n}" for n in range(1000)
    }


@pytest.mark.parametrize(
    ("namespace", "expected"),
    [
        ({"__package__": "pkg"}, "pkg.x"),
        ({"__package__": None, "__name__": "pkg.mod"}, "pkg.x"),
        ({"__name__": "pkg", "__path__": []}, "pkg.x"),
        ({"__name__": "__main__"}, None),
    ],
)
def test_relative_imports_are_relative_to_the_functions_package(
    namespace: dict[str, Any], expected: str | None
) -> None:
    """Also of ``__main__``, which ``python -m`` gives a package."""
    exec("def f():\n  from . import x", namespace)  # noqa: S102
    function: Callable[[], None] = namespace["f"]
    function.__module__ = "__main__"

    found = referenced_modules(cloudpickle.dumps(function))

    assert {name for name in found if name.endswith(".x")} == ({expected} - {None})
