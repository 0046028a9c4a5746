"""Large objects in parts."""

from __future__ import annotations

import anyio
import pytest

from wren.errors import StorageError, TransientError
from wren.storage.parts import ranges, read_parts, write_parts

pytestmark = pytest.mark.anyio

DATA = bytes(range(256)) * 5


def test_ranges_cover_all_and_overlap_nowhere() -> None:
    """A byte too few or twice is a broken object."""
    assert ranges(0, 4) == []
    assert ranges(8, 4) == [(0, 4), (4, 8)]
    assert ranges(9, 4) == [(0, 4), (4, 8), (8, 9)]


@pytest.mark.parametrize("part", [7, 128, 1280, 4096])
async def test_parts_read_make_the_slice(part: int) -> None:
    """In their order, whatever order they come in."""

    async def read(start: int, stop: int) -> bytes:
        for _ in range(start % 3):
            await anyio.lowlevel.checkpoint()
        return DATA[start:stop]

    assert await read_parts(read, 5, 1201, part=part) == DATA[5:1201]


async def test_parts_written_make_the_object() -> None:
    """Each part once, numbered from 0."""
    parts: dict[int, bytes] = {}

    async def write(number: int, data: memoryview) -> None:
        assert number not in parts
        parts[number] = bytes(data)

    await write_parts(write, DATA, part=100)

    assert sorted(parts) == list(range(13))
    assert b"".join(parts[number] for number in sorted(parts)) == DATA


async def test_a_short_part_is_no_data() -> None:
    """What is missing must not come back as zeros."""

    async def read(start: int, stop: int) -> bytes:
        return DATA[start : stop - 1]

    with pytest.raises(StorageError, match="99 bytes instead of 100"):
        await read_parts(read, 0, 1000, part=100)


async def test_the_first_failure_ends_the_others() -> None:
    """It comes out as itself, not in a group, and nothing is left running."""
    ended: list[int] = []

    async def write(number: int, _data: memoryview) -> None:
        if number == 3:
            raise TransientError("no")
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(number)

    with pytest.raises(TransientError, match="no"):
        await write_parts(write, DATA, part=100)

    assert sorted(ended) == [0, 1, 2, 4, 5, 6, 7]


async def test_few_parts_are_in_flight() -> None:
    """One large object must not fill the pool."""
    flying = most = 0

    async def read(start: int, stop: int) -> bytes:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await anyio.lowlevel.checkpoint()
        flying -= 1
        return DATA[start:stop]

    await read_parts(read, 0, 1280, part=10)

    assert most == 8
