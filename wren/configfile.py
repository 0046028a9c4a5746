"""The files that hold settings: where they are looked for, and what is in them.

The search begins in the current directory and goes up to the home directory, or to the
root when the current directory is not below home. It ends at the first directory that
has a ``wren.toml``, or a ``pyproject.toml`` with a table ``[tool.wren]``; files above
are not read. An empty ``wren.toml`` is thus a way to end it.

In a directory that everybody may write to, such as ``/tmp``, the files of other users
do not count: settings say which code runs and where data goes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias, cast

from wren.errors import ConfigurationError

_Table: TypeAlias = dict[str, Any]


def tables() -> list[tuple[Path, _Table]]:
    """Return the files found and the settings in each, the most important one last.

    Raises:
        ConfigurationError: A file cannot be read, or is not what it should be.
    """
    for directory in _directories():
        project = _read(directory / "pyproject.toml", ("tool", "wren"))
        own = _read(directory / "wren.toml", ())
        if project or own:
            return [found for found in (project, own) if found]
    return []


def _directories() -> Iterator[Path]:
    try:
        here = Path.cwd()
    except FileNotFoundError:  # it was removed
        return
    try:
        home = Path.home()
    except RuntimeError:  # a user without an account, as in some containers
        home = None
    for directory in (here, *here.parents):
        yield directory
        if directory == home:
            return


def _read(path: Path, names: tuple[str, ...]) -> tuple[Path, _Table] | None:
    """Return the table of that name in a file, or None if there is no such table."""
    if not _is_trusted(path):
        return None
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ConfigurationError(f"{path} cannot be read: {exc.strerror}") from exc
    if names and b"wren" not in data:
        return None
    import tomllib  # many programs have no file at all

    try:
        table = tomllib.loads(data.decode())
    except ValueError as exc:
        raise ConfigurationError(f"{path} is not TOML: {exc}") from exc
    for name in names:
        if name not in table:
            return None
        inner: object = table[name]
        if not isinstance(inner, dict):
            raise ConfigurationError(f"{path}: {name} must be a table")
        table = cast("_Table", inner)
    return path, table


def _is_trusted(path: Path) -> bool:
    """Say whether this is a file, and none that another user may have put there."""
    try:
        file = path.stat()
        folder = path.parent.stat()
    except OSError:
        return False
    ours = file.st_uid in (0, os.getuid())
    return stat.S_ISREG(file.st_mode) and (ours or not folder.st_mode & stat.S_IWOTH)
