"""The driver's view of one worker process."""

from __future__ import annotations

import array
import contextlib
import select
import socket
from collections.abc import Sequence
from typing import Final

import anyio
from anyio import to_thread

from wren.backends.local.channel import (
    DESCRIPTOR_BYTES,
    RETIRE,
    Buffer,
    Inbox,
    Outbox,
    descriptors,
    size,
)
from wren.backends.local.launcher import ZygoteProcess
from wren.backends.local.watch import watch
from wren.errors import DeploymentError, WorkerLostError

_IN_LOOP: Final = 4 << 20
"""Bytes copied on the event loop, in about a millisecond; more in a thread."""

_RECEIVE: Final = 1 << 18


class WorkerProcess:
    """One worker: takes one request at a time."""

    def __init__(self, zygote: ZygoteProcess, number: int) -> None:
        self.number = number
        self.retired = False
        self._zygote = zygote
        self._socket = zygote.fork(number)
        self._outbox = Outbox()
        self._inbox = Inbox()
        self._greeted = False
        self._gone = False
        self._stopped = False
        self._unsent = b""
        self._watch = watch(self._socket, self._on_readable)
        self._poll = select.poll()  # unlike recv, it raises nothing in the usual case
        self._poll.register(self._socket, select.POLLIN)

    def alive(self) -> bool:
        """Whether an idle worker is still there to take a request."""
        return not (self._gone or self._poll.poll(0))

    def send_small(self, parts: Sequence[Buffer]) -> None:
        """Begin to send a request that goes through the socket; never waits."""
        pending, _ = self._outbox.frame(parts)
        data = b"".join(pending)
        try:
            sent = self._socket.send(data)
        except OSError:  # full, or the process is dead and receiving will say how
            sent = 0
        self._unsent = data[sent:]

    async def send_large(self, parts: Sequence[Buffer]) -> None:
        """Send a request through the memory file."""
        if size(parts) > _IN_LOOP:
            pending, attach = await to_thread.run_sync(self._outbox.frame, parts)
        else:
            pending, attach = self._outbox.frame(parts)
        rights = array.array("i", attach)
        with contextlib.suppress(OSError):  # receiving will say what happened
            self._socket.sendmsg(
                pending,
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if attach else [],
            )

    async def started(self, seconds: float) -> None:
        """Wait until the process has started.

        Args:
            seconds: How long that may take.

        Raises:
            WorkerLostError: It ended.
            DeploymentError: It did not start in time.
        """
        if self._greeted:
            return
        with anyio.move_on_after(seconds):
            await self._zygote.flush()
            await self._message()
            self._inbox.shift()
            self._greeted = True
            return
        raise DeploymentError(f"a worker process did not start within {seconds:g} s")

    async def receive(self) -> memoryview:
        """Return the response to the request that was sent.

        Raises:
            WorkerLostError: The process ended; says how.
        """
        if self._unsent:
            await self._send_rest()
        await self._message()
        if self._inbox.large() > _IN_LOOP:
            response = await to_thread.run_sync(self._inbox.shift)
        else:
            response = self._inbox.shift()
        self.retired = bool(self._inbox.flags & RETIRE)
        return response

    async def _message(self) -> None:
        """Wait until a message is complete."""
        while self._inbox.missing():
            if self._gone:
                if self._stopped:
                    raise WorkerLostError("the executor was closed meanwhile")
                raise await self._zygote.end_of(self.number)
            await self._watch.wait()

    def _on_readable(self) -> bool:
        """Read what has arrived; True if a message is complete or the process gone."""
        try:
            data, ancillary, _, _ = self._socket.recvmsg(
                _RECEIVE, DESCRIPTOR_BYTES, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return False
        except OSError:
            data, ancillary = b"", []
        if not data:
            self._gone = True
            self._watch.close()
            return True
        self._inbox.feed(data, descriptors(ancillary))
        return not self._inbox.missing()

    async def _send_rest(self) -> None:
        while self._unsent and not self._gone:
            await anyio.wait_writable(self._socket)
            try:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
            except BlockingIOError:
                continue
            except OSError:
                self._unsent = b""  # dead; receiving will say how it ended

    async def flush(self) -> None:
        """Wait until the zygote has been sent what was asked of it for this worker."""
        await self._zygote.flush()

    async def killed(self, seconds: float) -> None:
        """Kill the process and wait until it can do nothing any more.

        Args:
            seconds: How long to wait. What a task has forked may hold on to the socket,
                by whose end a process is known to be gone.
        """
        self._zygote.kill(self.number)
        with anyio.move_on_after(seconds, shield=True):
            await self._zygote.flush()
            while not self._gone:
                await self._watch.wait()

    def stop(self) -> None:
        """Kill the process; who waits for its response gets `WorkerLostError`."""
        self._stopped = True
        self._zygote.kill(self.number)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def discard(self) -> None:
        """Kill the process and release what belongs to it. Idempotent.

        If the zygote is busy, it learns that only in `flush`.
        """
        if self._socket.fileno() < 0:
            return
        self._watch.close()
        self._zygote.kill(self.number)
        self._zygote.forget(self.number)
        self._socket.close()
        self._outbox.close()
        self._inbox.close()
