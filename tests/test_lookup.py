from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from wren import ConfigurationError
from wren.lookup import find_function

Module: TypeAlias = Callable[[str], str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """Writes a module into the current directory and returns its name."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.chdir(tmp_path)

    def write(source: str) -> str:
        name = f"written_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return write


def test_a_function_is_found_in_the_current_directory(module: Module) -> None:
    """Where the ``wren`` script lies says nothing about where the user's code is."""
    name = module("def double(x):\n    return 2 * x")

    assert find_function(f"{name}:double")(4) == 8


def test_an_installed_function_is_found() -> None:
    """Any importable module will do."""
    assert find_function("json:loads") is json.loads


def test_a_name_may_have_dots(module: Module) -> None:
    """Methods are functions, too."""
    name = module("class A:\n    @staticmethod\n    def f(x):\n        return x + 1")

    assert find_function(f"{name}:A.f")(1) == 2


def test_what_a_module_prints_is_no_result(
    module: Module, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output must stay JSON lines."""
    name = module("print('hello')\ndef f(): ...")

    find_function(f"{name}:f")

    assert capsys.readouterr() == ("", "hello\n")


@pytest.mark.parametrize("spec", ["json", "json:", ":loads", "", "json.loads"])
def test_the_form_is_explained(spec: str) -> None:
    """It is not a path, and not only a module."""
    with pytest.raises(ConfigurationError, match="expected module:function"):
        find_function(spec)


def test_an_unknown_function_is_answered_with_the_known(module: Module) -> None:
    """Most often it is misspelt."""
    name = module("def double(x): ...\ndef _hidden(): ...\nlimit = 3")

    with pytest.raises(ConfigurationError) as caught:
        find_function(f"{name}:duoble")

    assert str(caught.value) == (
        f"unknown function in {name}: duoble (did you mean double?); known: double"
    )


def test_an_unknown_part_of_a_name_is_an_unknown_function(module: Module) -> None:
    """It must not end as an AttributeError."""
    name = module("class A: ...")

    with pytest.raises(ConfigurationError, match=r"unknown function .*: A\.f"):
        find_function(f"{name}:A.f")


def test_what_cannot_be_called_is_refused(module: Module) -> None:
    """Otherwise every line would fail, on a worker."""
    name = module("limit = 3")

    with pytest.raises(
        ConfigurationError, match="limit is int, which cannot be called"
    ):
        find_function(f"{name}:limit")


@pytest.mark.parametrize("name", ["no_such_module", "no_such_package.module"])
def test_an_unknown_module_says_where_it_was_looked_for(
    name: str, module: Module
) -> None:
    """The program may have been started in the wrong directory."""
    del module

    with pytest.raises(ConfigurationError) as caught:
        find_function(f"{name}:f")

    top = name.partition(".")[0]
    assert str(caught.value) == (
        f"no module named {top!r} here ({Path.cwd()}) or installed"
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "import no_such_thing",
            "ModuleNotFoundError: No module named 'no_such_thing'",
        ),
        ("\n\n1 / 0", "ZeroDivisionError: division by zero ("),
        ("x = (", "SyntaxError: '(' was never closed ("),
    ],
)
def test_a_module_that_fails_says_what_and_where(
    source: str, message: str, module: Module
) -> None:
    """It exists, so it must not be called unknown."""
    name = module(source)

    with pytest.raises(ConfigurationError) as caught:
        find_function(f"{name}:f")

    assert f"module {name!r} cannot be imported: {message}" in str(caught.value)
    assert f"{name}.py" in str(caught.value)
    line = source.count("\n") + 1
    assert f"line {line})" in str(caught.value)
