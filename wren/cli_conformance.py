"""``wren conformance``: does an adapter keep its promises?

The suites and pytest run in a process of their own (`wren.conformance.run`).
"""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentParser, Namespace
from importlib.util import find_spec

import anyio

from wren import registry
from wren.cli_common import (
    FAILED,
    OK,
    USAGE,
    Command,
    add_json,
    add_settings,
    settings_of,
)
from wren.config import load
from wren.errors import ConfigurationError

_CLEANING = 60.0  # seconds for emptying the store after an interruption


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--report", metavar="FILE", help="write what became of each check, as JSON"
    )
    parser.add_argument(
        "-k", metavar="EXPR", dest="expression", help="only checks whose names match"
    )
    add_json(parser)
    add_settings(parser, "backend", "storage")
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    diff = actions.add_parser("diff", help="say what changed between two reports")
    diff.add_argument("before", metavar="BEFORE", help="a report")
    diff.add_argument("after", metavar="AFTER", help="another one")
    parser.set_defaults(before=None, after=None)


async def _run(args: Namespace) -> int:
    if find_spec("pytest") is None:
        raise ConfigurationError(
            "wren conformance needs: pip install 'wren-cloud[conformance]'"
        )
    if args.before is not None:
        return await _start("diff", args.before, args.after)
    await _open_and_close(args)
    options = {
        "--storage": args.storage,
        "--backend": args.backend,
        "--report": args.report,
        "-k": args.expression,
    }
    given = [f"{name}={value}" for name, value in options.items() if value is not None]
    return await _start("check", *given, *(["--json"] if args.json else []))


async def _open_and_close(args: Namespace) -> None:
    """Refuse a wrong configuration before a hundred checks do. Nothing is sent."""
    settings = load(**settings_of(args))
    await registry.open_compute(settings.backend, settings).aclose()
    if settings.storage is not None:
        await registry.open_storage(settings.storage, settings).aclose()


async def _start(*arguments: str) -> int:
    """Run the suites; when this is interrupted, have them clean up first."""
    command = [sys.executable, "-P", "-m", "wren.conformance.run", *arguments]
    process = await anyio.open_process(
        command,
        stdin=None,
        stdout=None,
        stderr=None,
        start_new_session=True,  # Ctrl-C reaches this process, and from here that one
    )
    try:
        code = await process.wait()
    except anyio.get_cancelled_exc_class():
        with anyio.CancelScope(shield=True):
            process.send_signal(signal.SIGINT)
            with anyio.move_on_after(_CLEANING):
                await process.wait()
        raise
    finally:
        if process.returncode is None:
            process.kill()
    return code if code in {OK, FAILED, USAGE} else FAILED


COMMAND = Command(
    "conformance", "check that an adapter keeps its promises", _configure, _run
)
