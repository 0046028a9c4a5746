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
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from wren.conformance.loopback_worker import HELLO, LENGTH

CRASHED: Final = 502
NOT_STARTED: Final = 503

_TAIL: Final = 16 * 1024
_END_SECONDS: Final = 5.0
_WORDS_SECONDS: Final = 1.0
_PAUSE: Final = 0.005


@dataclass(frozen=True)
class Outcome:
    """How an invocation ended."""

    status: int
    body: bytes


class Run:
    """One invocation: a process in a session and a directory of its own.

    Attributes:
        program: What Python runs.
    """

    program: Sequence[str] = ("-m", "wren.conformance.loopback_worker")

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
                [sys.executable, *self.program, str(theirs.fileno())],
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
        with self._process.stdout as pipe:
            while data := os.read(pipe.fileno(), 1 << 16):
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
        # Its end is only looked at: while nobody has waited for it, no other process
        # group gets its number.
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT
        deadline = time.monotonic() + _END_SECONDS
        while time.monotonic() < deadline:
            if os.waitid(os.P_PID, self._process.pid, look) is not None:
                break
            time.sleep(_PAUSE)
        self.kill()
        about = {
            "code": self._process.returncode,
            "output": self._tail.decode(errors="replace"),
        }
        return Outcome(status, json.dumps(about).encode())

    def kill(self) -> None:
        """End the process with its group, and wait for its last words. Idempotent."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._drainer.join(_WORDS_SECONDS)

    def close(self) -> None:
        """Leave nothing but the log."""
        self.kill()
        self._connection.close()
        self._lines.extend(self._tail.decode(errors="replace").splitlines())
