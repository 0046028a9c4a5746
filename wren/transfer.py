"""What works with every store, because of what `Storage` promises."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

from anyio import create_memory_object_stream, create_task_group

from wren.errors import StorageError
from wren.protocols import Storage

_PAGE: Final = 1000
_COPIES: Final = 16


async def delete_prefix(store: Storage, prefix: str) -> int:
    """Delete every object whose key starts with ``prefix``.

    It is compared byte by byte: end it in a slash to spare its neighbours. Idempotent;
    after an interruption, call it again.

    Returns:
        How many objects were found and deleted.
    """
    total = 0
    page: list[str] = []
    async for info in store.list(prefix):
        page.append(info.key)
        if len(page) == _PAGE:
            await store.delete(page)
            total += len(page)
            page = []
    if page:
        await store.delete(page)
    return total + len(page)


async def copy(
    source: Storage, destination: Storage, key: str, *, to: str | None = None
) -> None:
    """Copy one object, replacing any other that has its key. It is held in memory.

    Args:
        source: Where the object is.
        destination: Where it shall be; may be the same store.
        key: Its key.
        to: Its new key; the old one if None.

    Raises:
        KeyNotFoundError: No such object.
    """
    await destination.put(key if to is None else to, await source.get(key))


async def copy_prefix(source: Storage, destination: Storage, prefix: str) -> int:
    """Copy every object whose key starts with ``prefix``, 16 at a time.

    Idempotent; after an interruption, call it again.

    Returns:
        How many objects were copied.

    Raises:
        StorageError: The first failure. Copies that were under way are cancelled.
    """
    total = 0
    failures: list[StorageError] = []
    keys, work = create_memory_object_stream[str]()

    async def find() -> None:
        nonlocal total
        async with keys:
            async for info in source.list(prefix):
                await keys.send(info.key)
                total += 1

    async def copy_some() -> None:
        async for key in work:
            await copy(source, destination, key)

    async def attempt(step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except StorageError as exc:
            failures.append(exc)
            group.cancel_scope.cancel()

    async with keys, work, create_task_group() as group:
        group.start_soon(attempt, find)
        for _ in range(_COPIES):
            group.start_soon(attempt, copy_some)
    if failures:
        raise failures[0]
    return total


async def read_stream(
    store: Storage, key: str, part_size: int = 8 * 1024 * 1024
) -> AsyncGenerator[bytes]:
    """Yield an object's bytes in order, without holding all of them.

    Args:
        store: Where the object is.
        key: Its key. The object must not be overwritten meanwhile.
        part_size: Bytes of each part; only the last is shorter, and none is empty.

    Raises:
        KeyNotFoundError: No such object; raised when the first part is asked for.
        ValueError: ``part_size`` is not positive.
    """
    if part_size < 1:
        raise ValueError(f"part_size must be positive, not {part_size}")
    start = 0
    while part := await store.get(key, start=start, stop=start + part_size):
        yield part
        start += len(part)
        if len(part) < part_size:
            break
