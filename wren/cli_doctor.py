"""``wren doctor``: does the set-up work, and if not, what mends it?"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from contextlib import aclosing

from wren.cli_common import (
    FAILED,
    OK,
    Command,
    add_json,
    add_settings,
    print_json,
    settings_of,
)
from wren.doctor import Result, examine


def _configure(parser: ArgumentParser) -> None:
    add_json(parser)
    add_settings(parser, "backend", "storage", "concurrency")


async def _run(args: Namespace) -> int:
    results: list[Result] = []
    async with aclosing(examine(**settings_of(args))) as checks:
        async for result in checks:
            results.append(result)
            if not args.json:
                _show(result)
    sound = all(result.ok for result in results)
    if args.json:
        print_json({"ok": sound, "checks": [each._asdict() for each in results]})
    return OK if sound else FAILED


def _show(result: Result) -> None:
    print(f"{'ok' if result.ok else 'FAILED':6}  {result.name}: {result.detail}")
    if result.fix:
        print(f"        fix: {result.fix}", flush=True)


COMMAND = Command(
    "doctor", "check the set-up, and say how to mend what fails", _configure, _run
)
