"""What a worker does with a line: from text or JSON to a function, and back to JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from inspect import iscoroutine
from typing import Any

from wren.errors import SerializationError


def line_task(
    function: Callable[..., Any], *, as_json: bool = False, star: bool = False
) -> Callable[[bytes], Any]:
    """Make a task that takes a line and returns the function's result as JSON.

    Both are UTF-8. Reading and writing JSON on the workers leaves the driver time to
    feed them. What is returned travels whole: no worker needs this file.

    Args:
        function: A coroutine that it returns is awaited.
        as_json: The line is a JSON document; otherwise the function gets it as str.
        star: The document is an array of arguments.

    Returns:
        A task that raises SerializationError where the line or the result does not fit.
    """

    def arguments(line: bytes) -> Any:
        try:
            text = line.decode()
            document = json.loads(text) if as_json else text
        except UnicodeDecodeError as exc:
            raise SerializationError(f"the line is not UTF-8: {exc}") from exc
        except json.JSONDecodeError as exc:
            raise SerializationError(
                f"the line is not JSON: {exc.msg} at column {exc.colno}"
            ) from exc
        if not star:
            return [document]
        values: Any = document
        if not isinstance(document, list):
            raise SerializationError("the line is no JSON array of arguments")
        return values

    def dump(result: Any) -> bytes:
        try:
            # Strict readers take neither NaN nor Infinity for JSON.
            return json.dumps(result, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError) as exc:
            raise SerializationError(f"the result cannot be JSON: {exc}") from exc

    async def finish(result: Coroutine[Any, Any, Any]) -> bytes:
        return dump(await result)

    def task(line: bytes) -> bytes | Coroutine[Any, Any, bytes]:
        result: Any = function(*arguments(line))
        return finish(result) if iscoroutine(result) else dump(result)

    return task
