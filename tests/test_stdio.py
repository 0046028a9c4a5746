from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import anyio
import pytest

from wren.stdio import lines, write

# Reads and writes happen once a selector has said that they will not wait. The watch
# over blocking calls cannot know that.
pytestmark = [pytest.mark.anyio, pytest.mark.blocking]


@pytest.fixture
def pipe() -> Generator[tuple[int, int]]:
    """A pipe's two ends; either may be closed by the test."""
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            continue


def file(tmp_path: Path, content: bytes) -> int:
    path = tmp_path / "input"
    path.write_bytes(content)
    return os.open(path, os.O_RDONLY)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"\n", [b""]),
        (b"a", [b"a"]),
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\r\n\r\nb\r", [b"a", b"", b"b\r"]),
        (b"\n\na", [b"", b"", b"a"]),
        (b"x" * 1_000_000 + b"\nb", [b"x" * 1_000_000, b"b"]),
    ],
)
async def test_a_file_is_cut_into_lines(
    content: bytes, expected: list[bytes], tmp_path: Path
) -> None:
    """With or without an end of the last line, and however long one is."""
    descriptor = file(tmp_path, content)

    found = [line async for line in lines(descriptor)]

    os.close(descriptor)
    assert found == expected


async def test_a_device_without_content_has_no_lines() -> None:
    """Selectors refuse /dev/null, which is what a program gets under cron."""
    descriptor = os.open(os.devnull, os.O_RDONLY)

    found = [line async for line in lines(descriptor)]

    os.close(descriptor)
    assert found == []


async def test_a_line_is_given_before_the_next_one_exists(
    pipe: tuple[int, int],
) -> None:
    """A slow source, such as the end of a log, is served as it goes."""
    reader, writer = pipe
    stream = aiter(lines(reader))

    os.write(writer, b"one\ntw")
    first = await anext(stream)
    os.write(writer, b"o\n")
    second = await anext(stream)
    os.close(writer)
    rest = [line async for line in stream]

    assert (first, second, rest) == (b"one", b"two", [])


async def test_waiting_for_input_can_be_cancelled(pipe: tuple[int, int]) -> None:
    """Ctrl-C at an idle terminal ends the program, without a key being pressed."""
    reader, _ = pipe

    with anyio.move_on_after(0.01) as scope:
        async for _ in lines(reader):
            pytest.fail("nothing was written")

    assert scope.cancelled_caught


async def test_waiting_for_input_leaves_the_loop_free(pipe: tuple[int, int]) -> None:
    """Workers go on while nobody types."""
    reader, writer = pipe
    found: list[bytes] = []

    async def read() -> None:
        found.extend([line async for line in lines(reader)])

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        os.write(writer, b"typed\n")
        os.close(writer)

    assert found == [b"typed"]


async def test_everything_is_written_to_a_slow_reader(pipe: tuple[int, int]) -> None:
    """More than a pipe holds, without blocking the loop that the reader runs on."""
    reader, writer = pipe
    data = b"".join(b"%d\n" % number for number in range(100_000))
    found: list[bytes] = []

    async def read() -> None:
        found.extend([line async for line in lines(reader)])

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await write(writer, data)
        os.close(writer)

    assert b"".join(line + b"\n" for line in found) == data


async def test_a_write_that_waits_can_be_cancelled(pipe: tuple[int, int]) -> None:
    """Ctrl-C works while a pager shows the first page."""
    _, writer = pipe

    with anyio.move_on_after(0.01) as scope:
        await write(writer, b"x" * 1_000_000)

    assert scope.cancelled_caught


async def test_a_reader_that_left_is_reported(pipe: tuple[int, int]) -> None:
    """So that ``| head`` ends the program."""
    reader, writer = pipe
    os.close(reader)

    with pytest.raises(BrokenPipeError):
        await write(writer, b"x")


async def test_a_file_is_written(tmp_path: Path) -> None:
    """Selectors refuse files."""
    descriptor = os.open(tmp_path / "output", os.O_WRONLY | os.O_CREAT)

    await write(descriptor, b"a" * 1_000_000)

    os.close(descriptor)
    assert (tmp_path / "output").read_bytes() == b"a" * 1_000_000
