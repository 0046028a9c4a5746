"""From ``module:name`` to the function."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from wren.errors import ConfigurationError
from wren.suggest import unknown


def find_function(spec: str) -> Callable[..., Any]:
    """Return the function that ``module:name`` names; the name may have dots.

    Modules in the current directory can be imported, as with ``python -m``. What the
    module prints meanwhile goes to standard error.

    Raises:
        ConfigurationError: There is no such module or function, or the module cannot be
            imported. The message says what there is, or what was raised and where.
    """
    module_name, colon, name = spec.partition(":")
    if not (colon and module_name and name):
        raise ConfigurationError(
            f"{spec!r}: expected module:function, such as json:loads"
        )
    module = _load(module_name)
    found: Any = module
    for part in name.split("."):
        if part not in dir(found):
            where = f"function in {module_name}:"
            raise ConfigurationError(unknown(where, name, _callables(module)))
        found = getattr(found, part)
    if not callable(found):
        raise ConfigurationError(
            f"{spec} is {type(found).__name__}, which cannot be called"
        )
    function: Callable[..., Any] = found
    return function


def _load(name: str) -> ModuleType:
    here = str(Path.cwd())
    if not sys.flags.safe_path and here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        with redirect_stdout(sys.stderr):
            return import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and f"{name}.".startswith(f"{exc.name}."):
            raise ConfigurationError(
                f"no module named {exc.name!r} here ({here}) or installed"
            ) from exc
        raise _broken(name, exc) from exc
    except Exception as exc:  # whatever a user's module raises
        raise _broken(name, exc) from exc


def _broken(name: str, exc: Exception) -> ConfigurationError:
    last = traceback.extract_tb(exc.__traceback__)[-1]
    at = (
        ""
        if isinstance(exc, SyntaxError)
        else f" ({last.filename}, line {last.lineno})"
    )
    return ConfigurationError(
        f"module {name!r} cannot be imported: {type(exc).__name__}: {exc}{at}"
    )


def _callables(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_")
    ]
