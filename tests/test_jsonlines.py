from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import cloudpickle
import pytest

from wren.errors import SerializationError
from wren.jsonlines import line_task


def same(*values: Any) -> Any:
    return values[0] if len(values) == 1 else values


@pytest.mark.parametrize(
    ("options", "line", "result"),
    [
        ({}, '{"a"', '"{\\"a\\""'),
        ({}, "ä", '"ä"'),
        ({}, "", '""'),
        ({"as_json": True}, ' {"a": [1, null]} ', '{"a": [1, null]}'),
        ({"as_json": True, "star": True}, "[1, [2]]", "[1, [2]]"),
        ({"as_json": True, "star": True}, "[[1]]", "[1]"),
    ],
)
def test_a_line_becomes_a_result(
    options: dict[str, bool], line: str, result: str
) -> None:
    """Text stays what it is, a document becomes an argument, an array several."""
    assert line_task(same, **options)(line.encode()).decode() == result


def test_a_coroutine_is_awaited() -> None:
    """Whatever kind of callable returned it."""

    async def later(text: str) -> str:
        await asyncio.sleep(0)
        return text

    coroutine = line_task(partial(later))(b"x")

    assert asyncio.run(coroutine) == b'"x"'


@pytest.mark.parametrize(
    ("options", "line", "message"),
    [
        ({}, b"\xff", "the line is not UTF-8"),
        ({"as_json": True}, b"\xff", "the line is not UTF-8"),
        ({"as_json": True}, b"[1,]", "the line is not JSON: .* at column"),
        ({"as_json": True, "star": True}, b"{}", "no JSON array of arguments"),
    ],
)
def test_a_line_that_does_not_fit_is_refused(
    options: dict[str, bool], line: bytes, message: str
) -> None:
    """The function is not called; its own errors are something else."""

    def never(*_: object) -> None:
        pytest.fail("called")

    with pytest.raises(SerializationError, match=message):
        line_task(never, **options)(line)


def endless() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


@pytest.mark.parametrize(
    "make",
    [lambda: {1}, lambda: float("nan"), lambda: {(1, 2): 3}, endless, lambda: "\ud800"],
)
def test_a_result_that_is_no_json_is_refused(make: Callable[[], Any]) -> None:
    """Whoever reads the output must be able to read all of it."""
    with pytest.raises(SerializationError, match="the result cannot be JSON"):
        line_task(always(make))(b"")


def always(make: Callable[[], Any]) -> Callable[[str], Any]:
    def function(_: str) -> Any:
        return make()

    return function


def test_a_failure_is_the_functions_own() -> None:
    """A TypeError of the function is no fault of the line."""
    with pytest.raises(TypeError, match="abs"):
        line_task(abs)(b"")


def test_a_task_needs_no_file_of_the_command_line() -> None:
    """A function's archive holds the worker's modules only."""
    data = cloudpickle.dumps(line_task(len, as_json=True))
    code = (
        "import pickle, sys\n"
        "sys.modules['wren.jsonlines'] = None\n"
        "task = pickle.load(sys.stdin.buffer)\n"
        "print(task(b'[1, 2]').decode())\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], input=data, capture_output=True, check=False
    )

    assert (done.stdout, done.stderr) == (b"2\n", b"")
    assert pickle.loads(data)(b"[]") == b"0"
