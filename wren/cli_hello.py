"""``wren hello``: call a function on every worker, and show who answered."""

from __future__ import annotations

import os
import platform
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import wren
from wren import registry
from wren.cli_common import (
    FAILED,
    OK,
    Command,
    add_json,
    add_settings,
    print_json,
    print_table,
    settings_of,
)
from wren.config import load

_MOST: Final = 100
_ROUNDS: Final = 4
_HOLD: Final = 0.05
"""Seconds for which a task keeps its worker, so that the next one goes to another."""


class _Answer(NamedTuple):
    backend: str
    worker: str
    python: str
    host: str
    pid: int
    start: str
    seconds: float
    """From the request to its answer, without the time that the task only waited."""


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise ArgumentTypeError(f"{text!r}: expected a whole number, 1 or more")
    return int(text)


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--count",
        type=_count,
        metavar="N",
        help=f"workers to reach (default: all, but {_MOST} at most)",
    )
    add_json(parser)
    add_settings(parser, "backend", "storage", "concurrency")


async def _run(args: Namespace) -> int:
    given = settings_of(args)
    settings = load(**given)
    compute = registry.open_compute(settings.backend, settings)
    try:
        async with wren.Executor(backend=compute, storage=given["storage"]) as executor:
            slots = min(
                compute.limits.concurrency, settings.concurrency or _MOST, _MOST
            )
            wanted = args.count or slots
            answers = await _greet(executor, compute.name, wanted)
    finally:
        await compute.aclose()
    if args.json:
        print_json([answer._asdict() for answer in answers])
    else:
        print_table([_Answer._fields, *(_shown(answer) for answer in answers)])
    print(f"wren: {len(answers)} of {wanted} workers answered", file=sys.stderr)
    return OK if answers else FAILED


async def _greet(executor: wren.Executor, backend: str, wanted: int) -> list[_Answer]:
    """Return the first answer of each worker, calling until enough have answered."""
    answers: dict[str, _Answer] = {}
    hold = _HOLD
    for _ in range(_ROUNDS):
        futures = [executor.submit(_greeter(hold)) for _ in range(wanted)]
        for future in futures:
            python, host, pid = await future
            stats = future.stats
            assert stats is not None  # noqa: S101  # it has its outcome
            answers.setdefault(
                stats.worker,
                _Answer(
                    backend,
                    stats.worker,
                    python,
                    host,
                    pid,
                    "cold" if stats.cold else "warm",
                    max(stats.finished - stats.queued - hold, 0.0),
                ),
            )
        if len(answers) >= wanted:
            break
        hold *= 2
    return sorted(answers.values())


def _greeter(hold: float) -> Callable[[], tuple[str, str, int]]:
    """Make the function; nested, so that it travels whole: no worker has this file."""

    def greet() -> tuple[str, str, int]:
        time.sleep(hold)
        return platform.python_version(), platform.node(), os.getpid()

    return greet


def _shown(answer: _Answer) -> tuple[Any, ...]:
    return (*answer[:-1], f"{answer.seconds:.4f}")


COMMAND = Command(
    "hello", "call a function on every worker and show who answers", _configure, _run
)
