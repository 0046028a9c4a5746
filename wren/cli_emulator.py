"""``wren emulator``: run a program against a cloud's services on this machine."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import ExitStack
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import anyio
from anyio import from_thread, to_thread
from anyio.abc import Process

from wren.cli_common import OK, Command, add_json, print_json, print_table
from wren.config import environment_with, variable
from wren.conformance.emulators.catalogue import EMULATORS, entry
from wren.errors import ConfigurationError

if TYPE_CHECKING:
    from wren.conformance.emulators.emulator import Emulator
    from wren.conformance.emulators.install import Recipe
    from wren.conformance.emulators.process import ServerProcess

_FORWARDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _configure(parser: ArgumentParser) -> None:
    parser.description = """Run a program against servers that stand in for a cloud, on
    this machine and for this machine only."""
    actions = parser.add_subparsers(title="emulators", metavar="NAME", required=True)
    for name, each in EMULATORS.items():
        _configure_emulator(actions.add_parser(name, help=each.help), name, each.help)
    installing = actions.add_parser("install", help="install servers, once for a user")
    installing.add_argument(
        "names", nargs="*", metavar="NAME", help="default: all emulators"
    )
    installing.set_defaults(action=_install)
    listing = actions.add_parser("list", help="show which are installed")
    add_json(listing)
    listing.set_defaults(action=_list)


def _configure_emulator(parser: ArgumentParser, name: str, text: str) -> None:
    parser.description = f"""{text}. With a command, run that with the variables by
    which it finds the servers, and end with its exit code. Without, print the variables
    and serve until a signal comes."""
    add_json(parser)
    parser.add_argument(
        "command", nargs="*", metavar="COMMAND", help="after --, with its arguments"
    )
    parser.set_defaults(action=_emulate, name=name)


def _run(args: Namespace) -> Coroutine[Any, Any, int]:
    started: Coroutine[Any, Any, int] = args.action(args)
    return started


async def _install(args: Namespace) -> int:
    from wren.conformance.emulators.install import install, is_installed

    def work(recipe: Recipe) -> str:
        return str(install(recipe, check=from_thread.check_cancelled).path)

    entries = [entry(name) for name in args.names or EMULATORS]
    # Two emulators may need the same.
    for recipe in dict.fromkeys(each for one in entries for each in one.recipes()):
        what = f"{recipe.name} {recipe.version}"
        if not is_installed(recipe):
            print(f"wren: installing {what} …", file=sys.stderr, flush=True)
        print_table([(what, await to_thread.run_sync(work, recipe))])
    return OK


async def _list(args: Namespace) -> int:
    from wren.conformance.emulators.install import is_installed

    rows = [
        (name, all(map(is_installed, each.recipes())), each.help)
        for name, each in EMULATORS.items()
    ]
    if args.json:
        names = ("name", "installed", "help")
        print_json([dict(zip(names, row, strict=True)) for row in rows])
    else:
        print_table(
            (name, "installed" if there else "not installed", text)
            for name, there, text in rows
        )
    return OK


async def _emulate(args: Namespace) -> int:
    if args.command and args.json:
        raise ConfigurationError("--json is for an emulator without a command")
    with ExitStack() as stack:
        # If it is cancelled, it is started first, so that it is stopped as usual.
        emulator = await to_thread.run_sync(
            stack.enter_context, entry(args.name).serve()
        )
        variables = {**emulator.environment, variable("storage"): emulator.url}
        if not args.command:
            _announce(emulator, variables, as_json=args.json)
            await _wait_for_end(emulator)
        code = await _run_command(
            args.command, environment_with(variables, without=emulator.unset)
        )
        for process in emulator.processes:
            if process.exit_code() is not None:
                raise process.failure()
        return code


def _announce(
    emulator: Emulator, variables: Mapping[str, str], *, as_json: bool
) -> None:
    if as_json:
        print_json({"environment": dict(variables), "unset": list(emulator.unset)})
    else:
        for name in emulator.unset:
            print(f"unset {name}")
        for name, value in variables.items():
            print(f"export {name}={shlex.quote(value)}")
    sys.stdout.flush()  # who reads it through a pipe waits for no more
    print(f"wren: {emulator.name} is ready; Ctrl-C ends it", file=sys.stderr)


async def _wait_for_end(emulator: Emulator) -> None:
    async def watch(process: ServerProcess) -> None:
        await anyio.wait_readable(process.fileno())
        raise process.failure()

    async with anyio.create_task_group() as group:
        for process in emulator.processes:
            group.start_soon(watch, process)


async def _run_command(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command in the place of this one, and return its exit code.

    Until it ends, it gets this process's signals, and decides what they mean.
    """
    with _Forwarding() as forwarding:
        try:
            process = await anyio.open_process(
                command, stdin=None, stdout=None, stderr=None, env=environment
            )
        except OSError as error:
            raise ConfigurationError(f"{command[0]}: {error.strerror}") from error
        forwarding.to(process)
        code = await process.wait()
    return code if code >= 0 else 128 - code


class _Forwarding:
    """Passes this process's signals on to another one that runs in its place."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._early: list[int] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in _FORWARDED:
            if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
                self._before[number] = signal.signal(number, self._received)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def to(self, process: Process) -> None:
        """Say which process; it gets what came before, too."""
        self._process = process
        for number in self._early:
            self._received(number, None)

    def _received(self, number: int, _frame: FrameType | None) -> None:
        if self._process is None:
            self._early.append(number)
        elif number != signal.SIGINT or not _in_foreground():
            self._process.send_signal(signal.Signals(number))


def _in_foreground() -> bool:
    """Say whether Ctrl-C is sent to the whole group of this process by its terminal."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:  # it has none
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)


COMMAND = Command(
    "emulator", "run a program against a cloud on this machine", _configure, _run
)
