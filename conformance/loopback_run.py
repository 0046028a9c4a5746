"""One invocation on the loopback platform: a process, its output and its end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from dataclasses import dataclass
from typing import Final

from wren.conformance.loopback_worker import HELLO, LENGTH

CRASHED: Final = 502
NOT_STARTED: Final = 503

_TAIL: Final = 16 * 1024
_END_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Outcome:
    """How an invocation ended."""

    status: int
    body: bytes


class Run:
    """One invocation: a process in a session and a directory of its own."""

    def __init__(
        self, directory: str, environment: dict[str, str], lines: deque[str]
    ) -> None:
        """Start the process.

        Args:
            directory: Where it runs.
            environment: All of its variables.
            lines: What it prints is added here in the end.
        """
        self.directory = directory
        self._lines = lines
        self._tail = bytearray()
        self._connection, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # this interpreter
                [
                    *(sys.executable, "-m", "wren.conformance.loopback_worker"),
                    str(theirs.fileno()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=directory,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._drainer = threading.Thread(target=self.drain)
        self._drainer.start()

    def drain(self) -> None:
        """Read what the process writes, until nobody can write any more."""
        assert self._process.stdout is not None
        while data := os.read(self._process.stdout.fileno(), 1 << 16):
            self._tail += data
            del self._tail[:-_TAIL]

    def finish(self, request: bytes, client: socket.socket, seconds: float) -> Outcome:
        """Carry out a request.

        Args:
            request: The request.
            client: Who waits for the outcome.
            seconds: How long to wait for it.

        Raises:
            ConnectionError: The client has gone.
            TimeoutError: The time is over; `wait` gets the response nevertheless.
        """
        if self._connection.recv(len(HELLO)) != HELLO:
            return self._crash(NOT_STARTED)
        with contextlib.suppress(OSError):  # it has died, and receiving says so
            self._connection.sendall(request)
            self._connection.shutdown(socket.SHUT_WR)
        ready, _, _ = select.select([self._connection, client], [], [], seconds)
        if not ready:
            raise TimeoutError
        if client in ready and not client.recv(1, socket.MSG_PEEK):
            raise ConnectionError
        response = self.wait()
        if response is None:
            return self._crash(CRASHED)
        return Outcome(200, response)

    def wait(self) -> bytes | None:
        """Return the response when it comes; None if the process ends without one."""
        head = self._receive(LENGTH.size)
        if len(head) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack(head)
        response = self._receive(length)
        return response if len(response) == length else None

    def _receive(self, count: int) -> bytes:
        data = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while len(data) < count:
                piece = self._connection.recv(min(count - len(data), 1 << 18))
                if not piece:
                    break
                data += piece
        return bytes(data)

    def _crash(self, status: int) -> Outcome:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self.kill()
        about = {
            "code": self._process.returncode,
            "output": self._tail.decode(errors="replace"),
        }
        return Outcome(status, json.dumps(about).encode())

    def kill(self) -> None:
        """End the process with its children, and wait for its last words."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._drainer.join()

    def close(self) -> None:
        """Leave nothing but the log."""
        self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._connection.close()
        self._lines.extend(self._tail.decode(errors="replace").splitlines())
