"""The command ``wren``: results on standard output, everything else on standard error.

Exit codes: 0 for success; 1 when a task, a backend or a store failed; 2 when the
command line or the configuration is wrong; 130 after Ctrl-C, and likewise 143 and 129
after SIGTERM and SIGHUP, everything cleaned up in each case; 141 when nobody reads the
output any more, as in ``wren run … | head``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Coroutine, Iterator, Sequence
from types import FrameType
from typing import Any, Final, cast

import anyio

import wren
from wren import (
    cli_clean,
    cli_config,
    cli_conformance,
    cli_deploy,
    cli_doctor,
    cli_emulator,
    cli_hello,
    cli_run,
)
from wren.cli_common import CLOSED_PIPE, FAILED, USAGE, Command
from wren.errors import ConfigurationError, WrenError

COMMANDS: Final[tuple[Command, ...]] = (
    cli_hello.COMMAND,
    cli_run.COMMAND,
    cli_config.COMMAND,
    cli_doctor.COMMAND,
    cli_deploy.DEPLOY,
    cli_deploy.RUNTIMES,
    cli_deploy.REMOVE,
    cli_deploy.LOGS,
    cli_clean.COMMAND,
    cli_emulator.COMMAND,
    cli_conformance.COMMAND,
)

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code.

    Args:
        argv: The command line; by default this process's.

    Raises:
        SystemExit: The command line is wrong, or asks for help.
    """
    args = _parser().parse_args(argv)
    if sys.stdout is None or sys.stderr is None:  # started without those descriptors
        return FAILED
    try:
        code = _run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Otherwise the interpreter complains when it flushes the stream at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return code


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="wren", description=wren.__doc__)
    parser.add_argument(
        "--version", action="version", version=f"wren {wren.__version__}"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        inner = commands.add_parser(
            command.name, help=command.help, description=command.help
        )
        command.configure(inner)
        inner.set_defaults(run=command.run)
    return parser


def _run(args: Namespace) -> int:
    try:
        return anyio.run(_stoppable, args.run(args))
    except WrenError as error:
        return _report(error)
    except BaseExceptionGroup as group:
        inner = list(_flat(group))
        for broken in (each for each in inner if isinstance(each, BrokenPipeError)):
            raise broken from None
        for ours in (each for each in inner if isinstance(each, WrenError)):
            return _report(ours)
        raise


def _report(error: WrenError) -> int:
    print(f"wren: {error}", file=sys.stderr)
    return USAGE if isinstance(error, ConfigurationError) else FAILED


def _flat(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group and in the groups inside it."""
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _flat(inner)
    else:
        yield error


async def _stoppable(command: Coroutine[Any, Any, int]) -> int:
    """Cancel the command at the first signal, and end the process at the second."""
    loop = asyncio.get_running_loop()
    scope = anyio.CancelScope()
    received: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        loop.call_soon_threadsafe(scope.cancel)

    before = {
        number: signal.signal(number, stop)
        for number in _STOPPING
        if signal.getsignal(number) != signal.SIG_IGN  # as under nohup
    }
    try:
        with scope:
            return await command
    except BaseException:
        if not received:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 + received[0]
