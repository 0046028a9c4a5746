"""``wren run``: apply a function to every line of a file or of standard input."""

from __future__ import annotations

import codecs
import errno
import json
import os
import stat
import sys
from argparse import ArgumentParser, Namespace
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Final

import anyio
from anyio import WouldBlock
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

import wren
from wren.cli_common import FAILED, OK, Command, add_settings, settings_of
from wren.cli_progress import Progress
from wren.errors import (
    ConfigurationError,
    DeploymentError,
    RemoteError,
    SerializationError,
    VersionMismatchError,
    WrenError,
)
from wren.jsonlines import line_task
from wren.lookup import find_function
from wren.stdio import lines, write

_UNWRITTEN: Final = 1000
"""Results that may wait for a slow reader of the output before no more are taken."""

_FATAL: Final = (ConfigurationError, DeploymentError, VersionMismatchError)
"""No line's fault, and the same for all of them."""


def _configure(parser: ArgumentParser) -> None:
    parser.description = """Apply a function to every line of a file and write the
    results, one JSON document a line, in the order of the input."""
    parser.add_argument(
        "function", metavar="MODULE:NAME", help="gets a line as str, without its end"
    )
    parser.add_argument(
        "file",
        nargs="?",
        default="-",
        metavar="FILE",
        help="default: standard input (-)",
    )
    parser.add_argument(
        "--json-lines",
        "--jsonl",
        action="store_true",
        help="each line is a JSON document; blank lines are skipped",
    )
    parser.add_argument(
        "--star",
        action="store_true",
        help="each line is a JSON array of the function's arguments",
    )
    parser.add_argument(
        "--keep-going",
        action="store_true",
        help="""write {"error": {"type": …, "message": …}, "line": n} in the place of a
        result that failed, go on, and exit with 1 at the end""",
    )
    add_settings(
        parser, "backend", "storage", "concurrency", "timeout", "retries", "chunksize"
    )


def _run(args: Namespace) -> Coroutine[Any, Any, int]:
    # Before there is an event loop: the module is free to run one while it is imported.
    function = find_function(args.function)
    return _map(function, _open(args.file), args)


def _open(name: str) -> int:
    """Return a descriptor of the input."""
    try:
        descriptor = 0 if name == "-" else os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is a directory")
    except OSError as exc:
        raise ConfigurationError(f"{name} cannot be read: {exc.strerror}") from exc
    return descriptor


async def _map(function: Callable[..., Any], source: int, args: Namespace) -> int:
    as_json = args.json_lines or args.star
    feed = _Feed(source, skip_blank=as_json)
    task = line_task(function, as_json=as_json, star=args.star)
    about = os.fstat(source)
    total = about.st_size if stat.S_ISREG(about.st_mode) else None
    code = FAILED
    send, receive = anyio.create_memory_object_stream[bytes](_UNWRITTEN)
    with Progress(total) as progress:
        async with anyio.create_task_group() as group, send:
            group.start_soon(_write_all, receive, progress)
            async with wren.Executor(**settings_of(args)) as executor:
                job = executor.map(task, feed, return_exceptions=True)
                code = await _collect(job, feed, send, progress, args.keep_going)
    return code


async def _collect(
    job: wren.Job[Any],
    feed: _Feed,
    send: MemoryObjectSendStream[bytes],
    progress: Progress,
    keep_going: bool,
) -> int:
    count = failed = 0
    async for outcome in job:
        number, size = feed.settle()
        count += 1
        if isinstance(outcome, wren.TaskCancelledError):
            await checkpoint()  # where this task is being cancelled, too, it ends here
        if isinstance(outcome, Exception):
            failed += 1
            if isinstance(outcome, _FATAL):
                raise outcome
            if not keep_going:
                _explain(number, outcome)
                return FAILED
            outcome = _record(number, outcome)
        try:
            send.send_nowait(outcome)
        except WouldBlock:
            await send.send(outcome)
        progress.advance(size)
    if failed:
        print(f"wren: {failed} of {count} lines failed", file=sys.stderr)
    return FAILED if failed else OK


class _Feed:
    """The lines as tasks, and which line each task was."""

    def __init__(self, descriptor: int, *, skip_blank: bool) -> None:
        self._descriptor = descriptor
        self._skip_blank = skip_blank
        self._unsettled: deque[tuple[int, int]] = deque()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        number = 0
        async with aclosing(lines(self._descriptor)) as source:
            async for line in source:
                number += 1
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if self._skip_blank and not line.strip():
                    continue
                self._unsettled.append((number, len(line) + 1))
                yield line

    def settle(self) -> tuple[int, int]:
        """Return number and size of the first line that has not been settled yet."""
        return self._unsettled.popleft()


async def _write_all(
    receive: MemoryObjectReceiveStream[bytes], progress: Progress
) -> None:
    """Write results, as many at a time as have gathered during the last write."""
    async for line in receive:
        ready = [line]
        try:
            while True:
                ready.append(receive.receive_nowait())
        except (WouldBlock, anyio.EndOfStream):
            ready.append(b"")
        with progress.hidden():
            try:
                await write(1, b"\n".join(ready))
            except BrokenPipeError:
                raise
            except OSError as exc:
                raise WrenError(f"standard output: {exc.strerror}") from exc


def _explain(number: int, error: Exception) -> None:
    """Say what failed, after the worker's traceback where it is the function's own."""
    notes = [] if isinstance(error, SerializationError) else _notes(error)
    text = f"wren: line {number}: {_name(error)}: {_message(error)}"
    print(*notes, text, sep="\n", file=sys.stderr)


def _record(number: int, error: Exception) -> bytes:
    described = {"type": _name(error), "message": _message(error)}
    return json.dumps({"error": described, "line": number}).encode()


def _notes(error: Exception) -> list[str]:
    return getattr(error, "__notes__", [])


def _name(error: Exception) -> str:
    return error.type_name if isinstance(error, RemoteError) else type(error).__name__


def _message(error: Exception) -> str:
    return error.message if isinstance(error, RemoteError) else str(error)


COMMAND = Command("run", "apply a function to every line of a file", _configure, _run)
