"""Messages between driver and worker: whole, private, and none of them too large."""

from __future__ import annotations

import array
import mmap
import os
import socket
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wren.backends.local import channel
from wren.backends.local.channel import (
    ATTACHED,
    HELLO,
    PREFIX,
    RETIRE,
    SHARED,
    SHARED_FROM,
    BlockingChannel,
    Buffer,
    Inbox,
    Outbox,
    descriptors,
    pair,
)

LARGE = SHARED_FROM + 12_345


class Line:
    """An outbox and the inbox that gets what it frames."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.inbox = Inbox()

    def carry(self, *parts: Buffer, flags: int = 0) -> memoryview:
        """Send one message and return what arrives."""
        framed, attached = self.outbox.frame(parts, flags)
        self.inbox.feed(b"".join(framed), [os.dup(each) for each in attached])
        assert self.inbox.missing() == 0
        return self.inbox.shift()

    def close(self) -> None:
        """Release both files."""
        self.outbox.close()
        self.inbox.close()


@pytest.fixture
def line() -> Generator[Line]:
    """A fresh line."""
    line = Line()
    yield line
    line.close()


@pytest.fixture
def sockets() -> Generator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets."""
    ours, theirs = pair()
    with ours, theirs:
        yield ours, theirs


@given(
    messages=st.lists(st.lists(st.binary(max_size=60), max_size=4), max_size=5),
    cuts=st.lists(st.integers(1, 90), min_size=1),
)
def test_messages_survive_any_cutting_of_the_stream(
    messages: list[list[bytes]], cuts: list[int]
) -> None:
    """A socket keeps the order of bytes, and no boundaries."""
    outbox, inbox = Outbox(), Inbox()
    stream = b"".join(b"".join(outbox.frame(parts)[0]) for parts in messages)
    arrived: list[bytes] = []

    at = turn = 0
    while at < len(stream):
        inbox.feed(stream[at : at + cuts[turn % len(cuts)]])
        at += cuts[turn % len(cuts)]
        turn += 1
        while len(arrived) < len(messages) and not inbox.missing():
            arrived.append(bytes(inbox.shift()))

    assert arrived == [b"".join(parts) for parts in messages]


@pytest.mark.parametrize("length", [0, 1, SHARED_FROM - 1, SHARED_FROM, LARGE, 3 << 20])
def test_a_message_of_any_size_arrives(line: Line, length: int) -> None:
    """On either side of the size from which the memory file carries it."""
    message = os.urandom(length)

    assert line.carry(message) == message


def test_a_large_message_does_not_go_through_the_socket() -> None:
    """Only its length does, and the first time the file it is in."""
    outbox = Outbox()

    first, attached = outbox.frame([bytes(LARGE)])
    second, attached_again = outbox.frame([bytes(LARGE)])

    assert PREFIX.unpack(b"".join(first)) == (LARGE, SHARED | ATTACHED)
    assert PREFIX.unpack(b"".join(second)) == (LARGE, SHARED)
    assert (len(attached), attached_again) == (1, [])
    outbox.close()


def test_large_and_small_messages_follow_each_other(line: Line) -> None:
    """The memory file is written over from the start each time."""
    messages = [os.urandom(n) for n in (LARGE, 10, 2 * LARGE, LARGE, 0, LARGE + 1)]

    assert [bytes(line.carry(message)) for message in messages] == messages


def test_a_message_of_many_parts_arrives(line: Line) -> None:
    """One system call takes 1024 parts at most; some are empty."""
    parts = [bytes([n % 251]) * (n % 200) for n in range(3000)]

    assert line.carry(*parts) == b"".join(parts)


def test_parts_may_be_views(line: Line) -> None:
    """Arrays are sent from where they lie."""
    data = bytearray(os.urandom(LARGE))

    assert line.carry(memoryview(data)[7:], b"tail") == data[7:] + b"tail"


def test_a_partial_write_to_the_memory_file_is_continued(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may write less than it is given, and ends in the middle of a part."""
    whole = os.pwritev

    def stingy(descriptor: int, parts: list[Buffer], position: int) -> int:
        return whole(descriptor, [b"".join(parts)[:50_001]], position)

    monkeypatch.setattr(os, "pwritev", stingy)
    parts = [os.urandom(40_000) for _ in range(5)]

    assert line.carry(*parts) == b"".join(parts)


@pytest.mark.parametrize("length", [100, LARGE])
def test_what_arrives_is_private_and_writable(line: Line, length: int) -> None:
    """Arrays are built over it, and the task may change them."""
    first = line.carry(bytes(length))
    first[:] = b"x" * length
    second = line.carry(bytes(length))

    assert bytes(second) == bytes(length)
    assert bytes(first) == b"x" * length


def test_a_huge_message_leaves_little_behind(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file keeps some warm pages, not the largest message there ever was."""
    monkeypatch.setattr(channel, "KEPT", 2 * LARGE)
    _, (descriptor,) = line.outbox.frame([bytes(5 * LARGE)])

    line.outbox.frame([b"next"])

    assert os.fstat(descriptor).st_size == 2 * LARGE


def test_flags_arrive(line: Line) -> None:
    """They say what to do with the worker; the memory file's own are beside them."""
    line.carry(b"x", flags=RETIRE)
    assert line.inbox.flags == RETIRE

    line.carry(bytes(LARGE), flags=RETIRE)
    assert line.inbox.flags & RETIRE

    line.carry(b"x")
    assert line.inbox.flags == 0


def test_a_file_that_is_too_short_is_an_error_not_a_hang() -> None:
    """A worker that dies while it writes leaves one."""
    outbox, inbox = Outbox(), Inbox()
    framed, (descriptor,) = outbox.frame([bytes(LARGE)])
    os.ftruncate(descriptor, LARGE - 1)
    inbox.feed(b"".join(framed), [os.dup(descriptor)])

    with pytest.raises(EOFError, match="shorter"):
        inbox.shift()
    outbox.close()
    inbox.close()


def test_a_file_that_never_came_is_an_error() -> None:
    """The kernel drops a descriptor for which the receiver has no room."""
    inbox = Inbox()
    inbox.feed(PREFIX.pack(LARGE, SHARED | ATTACHED))

    with pytest.raises(EOFError, match="never came"):
        inbox.shift()


def test_closing_gives_every_descriptor_back(
    own_descriptors: Callable[[], int],
) -> None:
    """Also that of a file that another one has replaced."""
    before = own_descriptors()
    line = Line()
    line.carry(bytes(LARGE))
    line.inbox.feed(b"", [os.memfd_create("another")])

    line.close()
    line.close()

    assert own_descriptors() == before


def test_only_descriptors_are_taken_for_descriptors() -> None:
    """Other ancillary data, and a number that was cut off, is none."""
    rights = array.array("i", [5, 6]).tobytes()
    kind = (socket.SOL_SOCKET, socket.SCM_RIGHTS)

    assert descriptors([(*kind, rights + b"\0")]) == [5, 6]
    assert descriptors([(socket.SOL_SOCKET, 99, rights)]) == []


# --- the worker's end -----------------------------------------------------------------


def test_a_worker_greets(sockets: tuple[socket.socket, socket.socket]) -> None:
    """By that the driver knows that the time limit of a task can begin."""
    ours, theirs = sockets
    BlockingChannel(theirs).greet()

    assert PREFIX.unpack(ours.recv(100)) == (0, HELLO)


@pytest.mark.parametrize("length", [5, SHARED_FROM - 1, LARGE])
def test_both_ends_of_a_socket_exchange_messages(
    sockets: tuple[socket.socket, socket.socket], length: int
) -> None:
    """Also one that the socket does not take at once."""
    ours, theirs = (BlockingChannel(each) for each in sockets)
    message = os.urandom(length)

    def echo() -> None:
        while (request := theirs.receive()) is not None:
            theirs.send([request], RETIRE)

    thread = threading.Thread(target=echo)
    thread.start()
    for _ in range(3):
        ours.send([message[:2], message[2:]])
        received = ours.receive()
        assert received is not None
        assert bytes(received) == message
    sockets[0].shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize("rest", [b"", b"wr", PREFIX.pack(10, 0) + b"half"])
def test_the_end_of_the_driver_is_the_end_of_requests(
    sockets: tuple[socket.socket, socket.socket], rest: bytes
) -> None:
    """Also in the middle of one."""
    ours, theirs = sockets
    ours.sendall(rest)
    ours.shutdown(socket.SHUT_WR)

    assert BlockingChannel(theirs).receive() is None


def test_programs_that_a_task_starts_do_not_inherit_the_memory_file(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    """It would outlive the worker in them, and show them what others are sent."""
    ours, theirs = sockets
    sender, receiver = BlockingChannel(ours), BlockingChannel(theirs)
    sender.send([bytes(LARGE)])
    receiver.receive()

    found = [
        int(entry.name)
        for entry in Path("/proc/self/fd").iterdir()
        if entry.is_symlink() and str(entry.readlink()).startswith("/memfd:wren")
    ]
    assert len(found) == 2
    assert not any(map(os.get_inheritable, found))


def test_a_region_is_not_tied_to_the_file(line: Line) -> None:
    """A shared mapping would show the next message to the holder of this one."""
    arrived = line.carry(bytes(LARGE))

    assert isinstance(arrived.obj, mmap.mmap)
    line.outbox.frame([b"\xff" * LARGE])
    assert bytes(arrived) == bytes(LARGE)
