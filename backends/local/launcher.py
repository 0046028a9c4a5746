"""The driver's hold on the zygote: start it, have it fork and kill, hear of deaths."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import anyio

from wren.backends.local.channel import pair
from wren.backends.local.control import (
    COMMAND,
    CUT_OFF,
    EVENT,
    FORK,
    KILL,
    NOT_FORKED,
)
from wren.errors import ComputeError, DeploymentError, WorkerLostError

_END_SECONDS: Final = 5.0
_GONE: Final = frozenset({errno.EPIPE, errno.ECONNRESET, errno.EBADF})


class ZygoteProcess:
    """Starts the zygote, and has it fork and kill workers."""

    def __init__(
        self, environment: Mapping[str, str], session: Path, memory: int | None
    ) -> None:
        """Start the process; it becomes useful some 50 ms later.

        Args:
            environment: What the workers' environment shall be.
            session: The directory to remove when this process dies.
            memory: Limit of each worker's data, in MB.
        """
        self._control, theirs = socket.socketpair()
        self._stderr = os.fdopen(os.memfd_create("wren-stderr"), "r+b")
        home = str(Path(__file__).parents[3])
        program = (
            "import sys\n"
            "try: import wren.backends.local.zygote as zygote\n"
            "except ImportError:\n"
            f"    sys.path.append({home!r})\n"
            "    import wren.backends.local.zygote as zygote\n"
            f"zygote.main({str(session)!r}, {memory or 0})"
        )
        try:
            self._process = subprocess.Popen(  # noqa: S603  # this interpreter
                [sys.executable, "-P", "-c", program],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                env=dict(environment),
                start_new_session=True,
            )
        except OSError as exc:
            self._control.close()
            self._stderr.close()
            raise DeploymentError(f"cannot start {sys.executable}: {exc}") from exc
        finally:
            theirs.close()
        self._control.setblocking(False)
        self._events = bytearray()
        self._exits: dict[int, tuple[int, str]] = {}
        self._known: set[int] = set()
        self._commands: deque[tuple[bytes, int, socket.socket | None]] = deque()
        self._sent = 0
        # Late: they load what need not be loaded at the start.
        self._reading: anyio.Lock | None = None
        self._writing: anyio.Lock | None = None
        self._flushing: anyio.CancelScope | None = None

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process.poll() is None

    def fork(self, number: int) -> socket.socket:
        """Have a worker forked and return the driver's end of its socket.

        What is sent there before the worker has started waits in the socket.
        """
        ours, theirs = pair()
        ours.setblocking(False)
        self._known.add(number)
        self._command(FORK, number, theirs)
        return ours

    def kill(self, number: int) -> None:
        """Have a worker killed with everything that it started."""
        self._command(KILL, number)

    def _command(
        self, operation: bytes, number: int, attached: socket.socket | None = None
    ) -> None:
        """Send a command after those before it: now, or in `flush`."""
        if self._reading is None or not self._reading.locked():
            self._drain()  # else somebody waits for what this would take away
        self._commands.append((COMMAND.pack(operation, number), number, attached))
        self._send_commands()

    def _send_commands(self) -> None:
        """Send what the socket takes now."""
        while self._commands:
            command, number, attached = self._commands[0]
            rights = array.array("i", [] if attached is None else [attached.fileno()])
            try:
                self._control.sendmsg(
                    [command],
                    [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else [],
                )
            except BlockingIOError:
                return
            except OSError as exc:
                # Dead: its workers are, too, and a new one's socket will say so.
                if exc.errno not in _GONE:  # too many descriptors are on their way
                    self._take_event(number, NOT_FORKED, str(exc))
            self._forget_command()

    def _forget_command(self) -> None:
        _, _, attached = self._commands.popleft()
        self._sent += 1
        if attached is not None:
            attached.close()

    async def flush(self) -> None:
        """Wait until every command up to now has been sent."""
        last = self._sent + len(self._commands)
        if self._sent == last:
            return
        if self._writing is None:
            self._writing = anyio.Lock()
        async with self._writing:
            with anyio.CancelScope() as self._flushing:
                while self._sent < last:
                    await anyio.wait_writable(self._control)
                    self._send_commands()

    async def end_of(self, number: int) -> ComputeError:
        """Return the error that says how a worker ended whose socket is closed."""
        with anyio.move_on_after(_END_SECONDS):
            async with self._reader():
                while number not in self._exits:
                    await anyio.wait_readable(self._control)
                    if not self._drain():
                        return await self._own_end()
        # A worker's process ends just after its socket; if not, a task closed that.
        return _ending(*self._exits.pop(number, (CUT_OFF, "")))

    def _reader(self) -> anyio.Lock:
        """Return what is held while waiting for events."""
        if self._reading is None:
            self._reading = anyio.Lock()
        return self._reading

    def _drain(self) -> bool:
        """Take the events that have arrived; False when there will be no more."""
        open_ = True
        while open_:
            try:
                data = self._control.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            open_ = bool(data)
            self._events += data
        while len(self._events) >= EVENT.size:
            number, code, length = EVENT.unpack_from(self._events)
            end = EVENT.size + length
            if len(self._events) < end:
                break
            output = self._events[EVENT.size : end].decode(errors="replace")
            del self._events[:end]
            self._take_event(number, code, output)
        return open_

    def _take_event(self, number: int, code: int, output: str) -> None:
        if number in self._known:  # else nobody will ask
            self._exits[number] = code, output

    async def _own_end(self) -> ComputeError:
        with anyio.move_on_after(_END_SECONDS):
            await self._wait()
        code = self._process.poll()
        if code is None or code <= 0:
            return WorkerLostError(
                "the worker process and the process it was forked from are gone"
            )
        self._stderr.seek(0)
        text = self._stderr.read().decode(errors="replace").strip()
        return DeploymentError(
            "the interpreter that worker processes are forked from did not start "
            f"({sys.executable}, exit code {code}):\n{text}"
        )

    async def _wait(self) -> None:
        """Wait until the process has ended."""
        if self._process.poll() is not None:
            return
        descriptor = os.pidfd_open(self._process.pid)
        try:
            await anyio.wait_readable(descriptor)
        finally:
            os.close(descriptor)

    def forget(self, number: int) -> None:
        """Drop what is known of a worker, and its end when that is reported."""
        self._known.discard(number)
        self._exits.pop(number, None)

    async def aclose(self) -> None:
        """End the zygote and with it every worker; returns when all are gone."""
        while self._commands:
            self._forget_command()
        if self._flushing is not None:  # nothing says so of a socket that is closed
            self._flushing.cancel()
        with contextlib.suppress(OSError):
            # Not only closed: a process that the driver forked may have a copy.
            self._control.shutdown(socket.SHUT_WR)
        try:
            with anyio.move_on_after(_END_SECONDS) as scope:
                async with self._reader():
                    while self._drain():
                        await anyio.wait_readable(self._control)
                await self._wait()
            if scope.cancelled_caught:
                self._process.kill()
                await self._wait()  # so that who waits for the socket goes on, too
            self._process.wait()
        finally:
            # Whoever interrupts this leaves it to the zygote to end by itself: if that
            # were killed, what tasks have put into sessions of their own would stay.
            self._control.close()
            self._stderr.close()


def _ending(code: int, output: str) -> ComputeError:
    if code == NOT_FORKED:
        return ComputeError(f"a worker process could not be started: {output}")
    if code == CUT_OFF:
        text = "the task closed descriptors of its worker process, which was then ended"
    elif code >= 0:
        text = f"the task ended its worker process with exit code {code}"
    else:
        text = f"the worker process was killed by {_name(-code)}"
        if -code == signal.SIGKILL:
            text += "; suspected: out of memory"
    return WorkerLostError(text, exit_code=code, output=output)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
