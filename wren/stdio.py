"""Lines from a file descriptor, and bytes to one, on the event loop.

A pipe or a terminal may keep its reader waiting for ever, and a pipe its writer. No
thread is left in such a call: it could not be cancelled, and would keep the process
from ending.
"""

from __future__ import annotations

import os
import select
import stat
from collections.abc import AsyncGenerator
from typing import Final

import anyio
from anyio import to_thread

_PIECE: Final = 256 * 1024


async def lines(descriptor: int) -> AsyncGenerator[bytes, None]:
    r"""Yield each line without its end, which is ``\n`` or ``\r\n``.

    Lines come as they arrive, also from a pipe whose writer is slow. Memory is bounded
    by the longest line. The last one may lack an end.
    """
    waits = _waits(descriptor)
    rest: list[bytes] = []
    while piece := await _read(descriptor, waits):
        rest.append(piece)
        if b"\n" in piece:
            *whole, last = b"".join(rest).split(b"\n")
            rest = [last]
            for line in whole:
                yield line.removesuffix(b"\r")
    if any(rest):
        yield b"".join(rest)


async def write(descriptor: int, data: bytes) -> None:
    """Write everything.

    Raises:
        BrokenPipeError: Nobody will read it.
        OSError: The system refuses, such as for a full disk.
    """
    view = memoryview(data)
    waits = _waits(descriptor)
    while view:
        if waits:
            await anyio.wait_writable(descriptor)
            # As much as a pipe takes without waiting once it says that it is writable.
            view = view[os.write(descriptor, view[: select.PIPE_BUF]) :]
        else:
            view = view[await to_thread.run_sync(os.write, descriptor, view) :]


def _waits(descriptor: int) -> bool:
    """Say whether reads and writes may wait for another process or for a person.

    Selectors refuse what is always ready: files, and devices such as /dev/null.
    """
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor)


async def _read(descriptor: int, waits: bool) -> bytes:
    if not waits:
        return await to_thread.run_sync(os.read, descriptor, _PIECE)
    await anyio.wait_readable(descriptor)
    return os.read(descriptor, _PIECE)
