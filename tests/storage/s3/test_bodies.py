"""A body is one content, however it is read: by botocore, or by aiohttp."""

from __future__ import annotations

import io
from typing import Any

import pytest

from wren.storage.s3_bodies import body, own

DATA = bytes(range(256)) * 4096 * 2 + b"end"


def test_a_short_body_is_sent_at_once() -> None:
    """The client needs no more than that."""
    assert body(memoryview(b"short")) == b"short"


def test_a_long_body_is_a_file_to_whoever_signs_it() -> None:
    """botocore looks for the length, reads from where it is, and goes back."""
    file: Any = body(DATA)

    assert file.seek(0, io.SEEK_END) == len(DATA)
    assert file.seek(-2, io.SEEK_CUR) == len(DATA) - 2
    assert file.read() == b"nd"
    assert file.seek(1) == 1
    assert file.read(3) == DATA[1:4]
    assert file.tell() == 4
    assert file.read(-1) == DATA[4:]
    assert file.read(9) == b""


@pytest.mark.anyio
async def test_a_long_body_is_sent_in_pieces_that_are_no_copies() -> None:
    """From its beginning, whatever was read before; as often as it is sent."""
    file: Any = body(DATA)
    file.read(5)

    for _ in range(2):
        pieces = [piece async for piece in file]
        assert b"".join(pieces) == DATA
        assert len(pieces) > 2
        assert {id(piece.obj) for piece in pieces} == {id(DATA)}


@pytest.mark.anyio
async def test_what_can_change_is_copied_and_let_go() -> None:
    """Its owner may reuse it at once."""
    for data in (bytearray(b"short"), bytearray(DATA)):
        before = bytes(data)

        mine = await own(data)
        data.clear()

        assert mine == before
    assert await own(DATA) is DATA
    assert await own(memoryview(DATA)[1:]) == DATA[1:]
