"""As much of HTTP/1.1 as a proxy needs that passes messages on as they are."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Final, NamedTuple

LIMIT: Final = 1 << 20
"""Bytes of a message's head, or of a chunk's first line, at most."""

_END: Final = b"\r\n\r\n"
_PIECE: Final = 1 << 18
_FRAMING: Final = frozenset({"content-length", "transfer-encoding"})
_NO_BODY: Final = frozenset({204, 304})


class Head(NamedTuple):
    """A message without its body."""

    raw: bytes
    """As it was sent, with the empty line at its end."""

    start: str
    """The first line: of a request ``PUT /key HTTP/1.1``, of an answer the status."""

    headers: Mapping[str, str]
    """Names in small letters. Of a header that comes twice the last one."""

    @property
    def method(self) -> str:
        """Of a request."""
        return self.start.split(" ", 2)[0]

    @property
    def target(self) -> str:
        """Of a request: the path with its query, as it was sent."""
        return self.start.split(" ", 2)[1]

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.start.split(" ", 2)[1])

    @property
    def waits(self) -> bool:
        """The client asks for leave before it sends the body."""
        return self.headers.get("expect", "").lower() == "100-continue"

    @property
    def closes(self) -> bool:
        """The connection ends with this message."""
        old = "HTTP/1.0" in self.start
        said = self.headers.get("connection", "").lower()
        return "close" in said or (old and "keep-alive" not in said)

    @property
    def chunked(self) -> bool:
        """The body comes in chunks."""
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    @property
    def length(self) -> int | None:
        """Bytes of the body, where that is said."""
        said = self.headers.get("content-length")
        return None if said is None or self.chunked else int(said)

    def request_length(self) -> int | None:
        """Return the bytes of a request's body; None if it comes in chunks."""
        return None if self.chunked else self.length or 0

    def answer_length(self, method: str) -> int | None:
        """Return the bytes of an answer's body; None if only its end shows them.

        Args:
            method: That of the request.
        """
        status = self.status
        if method == "HEAD" or status in _NO_BODY or status < 200:
            return 0
        return self.length

    def without(self, *names: str, **added: object) -> bytes:
        """Return the head with some headers left out and others added.

        Args:
            names: What to leave out, in small letters.
            added: New ones; an underscore in the name stands for a hyphen.
        """
        lines = self.raw.removesuffix(_END).split(b"\r\n")
        kept = [
            line
            for number, line in enumerate(lines)
            if not number or _name(line) not in names
        ]
        new = (f"{key.replace('_', '-')}: {value}" for key, value in added.items())
        return b"\r\n".join([*kept, *map(str.encode, new)]) + _END

    def reframed(self, length: int) -> bytes:
        """Return the head for a body of so many bytes, whatever it was framed by."""
        return self.without(*_FRAMING, content_length=length)


def _name(line: bytes) -> str:
    return line.partition(b":")[0].decode("latin-1").strip().lower()


async def read_head(reader: asyncio.StreamReader) -> Head:
    """Read a message's head.

    Raises:
        asyncio.IncompleteReadError: The connection ended before or within it.
    """
    raw = await reader.readuntil(_END)
    start, *lines = raw.removesuffix(_END).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Head(raw, start, headers)


async def pass_body(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    head: Head,
    length: int | None,
) -> None:
    """Pass a body on as it comes, in pieces, with the sizes of its chunks.

    Args:
        reader: Where it comes from.
        writer: Where it goes.
        head: What came before it.
        length: Bytes; None if it is chunked or ends with the connection.
    """
    if length is not None:
        await _pass(reader, writer, length)
    elif head.chunked:
        while True:
            line = await reader.readuntil(b"\r\n")
            writer.write(line)
            size = int(line.partition(b";")[0], 16)
            if not size:
                break
            await _pass(reader, writer, size + 2)
        while line != b"\r\n":  # trailers, such as a checksum
            line = await reader.readuntil(b"\r\n")
            writer.write(line)
        await writer.drain()
    else:
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int
) -> None:
    while left:
        piece = await reader.read(min(left, _PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        writer.write(piece)
        await writer.drain()
        left -= len(piece)


async def read_body(
    reader: asyncio.StreamReader, head: Head, length: int | None
) -> bytes:
    """Return a whole body, without the sizes of its chunks.

    Args:
        reader: Where it comes from.
        head: What came before it.
        length: Bytes; None if it is chunked or ends with the connection.
    """
    if length is not None:
        return await reader.readexactly(length)
    if not head.chunked:
        return await reader.read()
    parts: list[bytes] = []
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        if not size:
            break
        parts.append(await reader.readexactly(size))
        await reader.readuntil(b"\r\n")
    while line != b"\r\n":
        line = await reader.readuntil(b"\r\n")
    return b"".join(parts)


def write_answer(
    status: int, headers: Mapping[str, str], body: bytes, *, method: str, closes: bool
) -> bytes:
    """Return an answer that no server has given.

    Args:
        status: Such as 503.
        headers: Without the length.
        body: Its length is announced to a HEAD, too, which gets no body.
        method: That of the request.
        closes: Say that the connection ends with it.
    """
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"content-length: {len(body)}")
    if closes:
        lines.append("connection: close")
    head = "\r\n".join(lines).encode("latin-1") + _END
    return head if method == "HEAD" else head + body


def reset_when_closed(writer: asyncio.StreamWriter) -> None:
    """Let closing a connection send RST, so that it does not look like a good end.

    That is what closing does without lingering:
    https://man7.org/linux/man-pages/man7/socket.7.html
    """
    opened: socket.socket | None = writer.get_extra_info("socket")
    if opened is not None and opened.fileno() >= 0:
        with suppress(OSError):  # the other side was faster
            opened.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
