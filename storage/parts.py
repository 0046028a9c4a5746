"""Large objects, moved in parts that travel at the same time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import anyio
from anyio import to_thread

from wren.errors import StorageError
from wren.protocols import Buffer

PART: Final = 8 * 1024 * 1024
"""Bytes. S3 takes none below 5 MiB but the last, and small ones cost a request each."""

_AT_ONCE: Final = 8
"""Parts of one object in flight, so that one large object does not fill the pool."""


def ranges(size: int, part: int = PART) -> list[tuple[int, int]]:
    """Return the half-open ranges that cover ``size`` bytes."""
    return [(start, min(start + part, size)) for start in range(0, size, part)]


async def read_parts(
    read: Callable[[int, int], Awaitable[Buffer]],
    start: int,
    stop: int,
    *,
    part: int = PART,
) -> bytes:
    """Return bytes ``start`` to ``stop`` of an object, read in concurrent ranges.

    Args:
        read: Returns the half-open range it is given, of the one version of the object
            that all calls are to read.
        start: First byte.
        stop: One past the last byte; not beyond the object's end.
        part: Bytes of one range.

    Raises:
        StorageError: A range came back with another length.
    """
    parts: dict[int, Buffer] = {}

    async def fetch(first: int, last: int) -> None:
        data = await read(start + first, start + last)
        if len(data) != last - first:
            raise StorageError(f"read {len(data)} bytes instead of {last - first}")
        parts[first] = data

    await _each(fetch, ranges(stop - start, part))
    # Joining large parts releases the interpreter's lock; one copy of all does not.
    return await to_thread.run_sync(b"".join, [parts[first] for first in sorted(parts)])


async def write_parts(
    write: Callable[[int, memoryview], Awaitable[None]],
    data: Buffer,
    *,
    part: int = PART,
) -> None:
    """Write an object's content in concurrent parts, numbered from 0.

    Args:
        write: Stores one part. Parts finish in any order.
        data: The whole content; the views passed on are released with it.
        part: Bytes of all parts but the last.
    """
    view = memoryview(data)

    async def send(first: int, last: int) -> None:
        await write(first // part, view[first:last])

    await _each(send, ranges(len(view), part))


async def _each(
    step: Callable[[int, int], Awaitable[None]], spans: list[tuple[int, int]]
) -> None:
    """Await the step on each span, a few at a time; the first failure ends all."""
    todo: Iterator[tuple[int, int]] = iter(spans)

    async def work() -> None:
        for first, last in todo:
            await step(first, last)

    try:
        async with anyio.create_task_group() as group:
            for _ in range(min(_AT_ONCE, len(spans))):
                group.start_soon(work)
    except ExceptionGroup as failed:
        first = failed.exceptions[0]  # callers expect the store's error, not a group
        raise first from first.__cause__
