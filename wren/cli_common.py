"""What the commands share: declaration, options, exit codes, output."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, NamedTuple

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
CLOSED_PIPE: Final = 141
"""As shells report a program that SIGPIPE ended: nobody reads the output any more."""


class Command(NamedTuple):
    """One command."""

    name: str
    help: str
    """One line, for the list of commands."""

    configure: Callable[[ArgumentParser], None]
    """Adds its arguments."""

    run: Callable[[Namespace], Coroutine[Any, Any, int]]
    """Returns what the event loop shall run, and that returns the exit code.

    The call itself happens before there is an event loop.
    """


def add_settings(parser: ArgumentParser, *names: str) -> None:
    """Add options for settings; one that is not given is left to the configuration.

    Args:
        parser: Gets the options.
        names: Of backend, storage, concurrency, timeout, retries and chunksize.
    """
    group = parser.add_argument_group("settings", "others: see wren config")
    for name in names:
        kind, metavar, text = _OPTIONS[name]
        group.add_argument(f"--{name}", type=kind, metavar=metavar, help=text)
    parser.set_defaults(settings=names)


def settings_of(args: Namespace) -> dict[str, Any]:
    """Return the settings that the command line gives, for `wren.config.load`."""
    return {name: getattr(args, name) for name in args.settings}


_OPTIONS: Final[dict[str, tuple[type[str | int | float], str, str]]] = {
    "backend": (str, "NAME", "where functions run"),
    "storage": (str, "URL", "the store"),
    "concurrency": (int, "N", "most invocations in flight"),
    "timeout": (float, "SECONDS", "limit for each task"),
    "retries": (int, "N", "new attempts after faults of infrastructure"),
    "chunksize": (int, "N", "tasks in one invocation; by default adaptive"),
}


def add_json(parser: ArgumentParser) -> None:
    """Add the option ``--json``."""
    parser.add_argument("--json", action="store_true", help="for programs to read")


def print_json(value: object) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2))


def print_table(rows: Iterable[Sequence[object]]) -> None:
    """Print rows in columns that are as wide as they need to be."""
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
