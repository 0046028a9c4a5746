"""Messages between driver and worker process over a socket pair.

A small message is written to the socket. A large one is written to a memory file of the
sender's, and only its length travels on the socket, with the file's descriptor the
first time: four plain copies between warm pages, where a socket would need as many and
a system call for every 200 KiB. One memory file a direction is enough, because the two
sides take turns: a request is read before its response is written, and the response
before the next request.

    offset  size  field
    0       8     length of the message in bytes
    8       4     flags
    12      4     zero, so that an array that follows is aligned
"""

from __future__ import annotations

import array
import mmap
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

PREFIX: Final = struct.Struct("<QI4x")
SHARED: Final = 1
"""The message is in the sender's memory file."""
ATTACHED: Final = 2
"""The descriptor of that file comes with this prefix."""
RETIRE: Final = 4
"""The worker asks to be replaced after this response."""
HELLO: Final = 8
"""The worker has started; there is no message."""

SHARED_FROM: Final = 128 * 1024
"""Bytes from which a message goes through the memory file. Below, the socket is faster;
and its buffer, of about 200 KiB, takes a smaller message whole."""

KEPT: Final = 64 << 20
"""Bytes of a memory file that stay allocated between messages. Warm pages are written
five times as fast as fresh ones."""

_SOCKET_BUFFER: Final = 1 << 20
_IOV_MAX: Final = 1024
_HUGE: Final = 2 << 20
DESCRIPTOR_BYTES: Final = socket.CMSG_SPACE(array.array("i").itemsize)


def size(parts: Sequence[Buffer]) -> int:
    """Return the length of all parts together, in bytes."""
    return sum(map(len, parts))


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets with room for a small message."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
    return ends


def descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came with a socket message."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


class MemoryFile:
    """One direction's file for large messages, which exists only in memory."""

    def __init__(self, descriptor: int | None = None) -> None:
        """Open one.

        Args:
            descriptor: The other side's file; None makes a new one.
        """
        self.descriptor = -1
        self.descriptor = (
            os.memfd_create("wren", os.MFD_CLOEXEC)
            if descriptor is None
            else descriptor
        )
        self.attached = descriptor is not None
        """The other side has its descriptor."""
        self._size = 0

    def write(self, parts: Sequence[Buffer]) -> None:
        """Write a message. Releases the interpreter lock while it copies."""
        self._size = max(self._size, size(parts))
        pending = iter(parts)
        position = 0
        while batch := list(islice(pending, _IOV_MAX)):
            position = self._write_batch(batch, position)

    def _write_batch(self, batch: list[Buffer], position: int) -> int:
        while batch:
            done = os.pwritev(self.descriptor, batch, position)
            position += done
            while batch and done >= len(batch[0]):
                done -= len(batch.pop(0))
            if batch and done:
                batch[0] = memoryview(batch[0])[done:]
        return position

    def trim(self) -> None:
        """Give back what a huge message took, once the other side has read it."""
        if self._size > KEPT:
            os.ftruncate(self.descriptor, KEPT)
            self._size = KEPT

    def read(self, size: int) -> memoryview:
        """Copy a message out of the file, into private, writable memory."""
        region = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if size >= _HUGE:
            region.madvise(mmap.MADV_HUGEPAGE)
        view = memoryview(region)
        position = 0
        while position < size:
            done = os.preadv(self.descriptor, [view[position:]], position)
            if not done:
                raise EOFError(
                    "the other side's memory file is shorter than its message"
                )
            position += done
        return view

    def __del__(self) -> None:
        # Not on demand: a thread that was not waited for may still be copying, and the
        # descriptor's number could by then belong to another file.
        if self.descriptor >= 0:
            os.close(self.descriptor)


class Outbox:
    """Frames messages for sending; keeps this side's memory file."""

    def __init__(self) -> None:
        self._file: MemoryFile | None = None

    def frame(
        self, parts: Sequence[Buffer], flags: int = 0
    ) -> tuple[list[Buffer], list[int]]:
        """Return what to send on the socket, and the descriptors to go with it.

        A large message is in the memory file when this returns.
        """
        length = size(parts)
        if self._file is not None:
            self._file.trim()
        if length < SHARED_FROM:
            return [PREFIX.pack(length, flags), *parts], []
        if self._file is None:
            self._file = MemoryFile()
        file = self._file  # this may run in a thread, and be closed meanwhile
        file.write(parts)
        attach: list[int] = []
        flags |= SHARED
        if not file.attached:
            attach.append(file.descriptor)
            flags |= ATTACHED
            file.attached = True
        return [PREFIX.pack(length, flags)], attach

    def close(self) -> None:
        """Release the memory file."""
        self._file = None


class Inbox:
    """Puts messages together from what arrives; keeps the other side's memory file."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._file: MemoryFile | None = None
        self.flags = 0
        """Flags of the message last returned."""

    def feed(self, data: Buffer, attached: Sequence[int] = ()) -> None:
        """Take what arrived on the socket."""
        self._pending += data
        for descriptor in attached:
            self._file = MemoryFile(descriptor)

    def missing(self) -> int:
        """Return how many bytes have to arrive before `shift` can return a message."""
        held = len(self._pending)
        if held < PREFIX.size:
            return PREFIX.size - held
        size, flags = PREFIX.unpack_from(self._pending)
        inline = 0 if flags & SHARED else size
        return max(0, PREFIX.size + inline - held)

    def large(self) -> int:
        """Return the size of the complete message if it is in the memory file, or 0."""
        size, flags = PREFIX.unpack_from(self._pending)
        return size if flags & SHARED else 0

    def shift(self) -> memoryview:
        """Return the message that is complete, in memory of its own."""
        size, self.flags = PREFIX.unpack_from(self._pending)
        if self.flags & SHARED:
            del self._pending[: PREFIX.size]
            if self._file is None:
                raise EOFError("a message in a memory file that never came")
            return self._file.read(size)
        end = PREFIX.size + size
        if len(self._pending) == end:
            whole, self._pending = self._pending, bytearray()
            return memoryview(whole)[PREFIX.size :]
        message = self._pending[PREFIX.size : end]
        del self._pending[:end]
        return memoryview(message)

    def close(self) -> None:
        """Release the other side's memory file."""
        self._file = None


class BlockingChannel:
    """The worker's end: it has nothing else to do while it waits."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._outbox = Outbox()
        self._inbox = Inbox()

    def receive(self) -> memoryview | None:
        """Return the next request, or None when the driver is gone."""
        while missing := self._inbox.missing():
            data, ancillary, _, _ = self._socket.recvmsg(
                max(missing, 1 << 16), DESCRIPTOR_BYTES, socket.MSG_CMSG_CLOEXEC
            )
            if not data:
                return None
            self._inbox.feed(data, descriptors(ancillary))
        return self._inbox.shift()

    def send(self, parts: Sequence[Buffer], flags: int = 0) -> None:
        """Send a response."""
        pending, attach = self._outbox.frame(parts, flags)
        if attach:
            rights = array.array("i", attach)
            self._socket.sendmsg(
                pending, [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            )
            return  # a prefix alone is never split
        self._socket.sendall(b"".join(pending))

    def greet(self) -> None:
        """Say that this worker has started."""
        self._socket.sendall(PREFIX.pack(0, HELLO))
