"""Keeps one server running for as long as its owner lives, and clears up after both.

`wren.conformance.emulators.process` runs this file as a program of its own, with the
owner's process id and a name as arguments. They speak in lines of JSON:

* standard output, to the owner: the private directory that was made, then the id of
  the server's process group, then the server's exit code once it has ended;
* standard input, from the owner: the command and its environment, once. The end of
  this pipe means that the owner wants the server stopped, or is dead. The kernel
  closes it even when the owner is killed with SIGKILL, which nothing could catch.

The guard is in a session of its own, out of reach of signals for its owner's group and
terminal. The server leads a process group, so that its children end with it. Only the
standard library is used, since the environment that wren runs in is not asked for.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from io import FileIO
from pathlib import Path
from typing import IO, Any, Final

LOG: Final = "output.log"
GRACE: Final = 3.0
"""Seconds from SIGTERM to SIGKILL. Azurite is known to miss the first."""

_KEPT: Final = 64 << 10
_FULL: Final = 4 * _KEPT
_LOOK: Final = 1.0  # seconds between two looks at what sends no event
_SHORT_LOOK: Final = 0.05
_CHUNK: Final = 64 << 10


class Log:
    """A file with the end of what was written to it, bounded in size."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] = path.open("ab")

    def write(self, data: bytes) -> None:
        """Append, and drop the oldest part of a file that has become long."""
        self._file.write(data)
        self._file.flush()
        if self._file.tell() <= _FULL:
            return
        shorter = self._path.with_suffix(".new")
        shorter.write_bytes(self._path.read_bytes()[-_KEPT:])
        self._file.close()
        shorter.replace(self._path)  # who reads sees one file or the other
        self._file = self._path.open("ab")


def main(owner: int, name: str) -> None:
    """Serve one owner; return when the server and its directory are gone."""
    signals, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: None)
    directory = Path(tempfile.mkdtemp(prefix=f"wren-{name}-"))
    try:
        _tell(str(directory))
        with FileIO(0, closefd=False) as orders:  # unbuffered: select() sees the rest
            order = orders.readline()
        if order:
            Guard(owner, directory, signals).run(json.loads(order))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _tell(fact: object) -> None:
    """Send one line to the owner, who may be gone."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(fact).encode() + b"\n")


class Guard:
    """One server, from its start until its owner needs it no more."""

    def __init__(self, owner: int, directory: Path, signals: int) -> None:
        self._owner = owner
        self._directory = directory
        self._signals = signals
        self._log = Log(directory / LOG)
        self._selector = selectors.DefaultSelector()
        for descriptor in (0, signals):
            self._selector.register(descriptor, selectors.EVENT_READ)

    def run(self, order: dict[str, Any]) -> None:
        """Start the server, and return when it must be, and is, gone."""
        try:
            server = subprocess.Popen(  # noqa: S603
                order["command"],
                env=order["environment"],
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                process_group=0,
            )
        except OSError as error:
            self._log.write(f"{error}\n".encode())
            _tell(0)
            _tell(127)
            self._wait_for_owner()
            return
        with server:
            _tell(server.pid)
            self._serve(server)

    def _serve(self, server: subprocess.Popen[bytes]) -> None:
        output = server.stdout
        assert isinstance(output, FileIO)  # a pipe, with no buffer
        os.set_blocking(output.fileno(), False)
        self._selector.register(output, selectors.EVENT_READ)
        deadline: float | None = None
        while not _ended(server.pid):
            unwanted = self._look(_LOOK if deadline is None else _SHORT_LOOK)
            self._copy(output)
            if deadline is None and unwanted:
                deadline = time.monotonic() + GRACE
                os.killpg(server.pid, signal.SIGTERM)
            if deadline is not None and time.monotonic() > deadline:
                break
        # Until the server is waited for, its id can be no other group's.
        os.killpg(server.pid, signal.SIGKILL)
        code = server.wait()
        self._copy(output)
        if deadline is None:
            _tell(code)
            self._wait_for_owner()

    def _copy(self, output: FileIO) -> None:
        """Take what the server has written; at its end, look there no more."""
        while data := output.read(_CHUNK):
            self._log.write(data)
        if data is not None and output in self._selector.get_map():
            self._selector.unregister(output)

    def _wait_for_owner(self) -> None:
        """Keep the directory: the owner wants to know why the server ended."""
        while not self._look(_LOOK):
            pass

    def _look(self, seconds: float) -> bool:
        """Wait for something to happen; say whether the server is unwanted now."""
        ready = {key.fd for key, _ in self._selector.select(seconds)}
        if 0 in ready:
            self._selector.unregister(0)  # it stays readable
            return True
        if self._signals in ready:
            received = set(os.read(self._signals, _CHUNK))
            if received != {signal.SIGCHLD}:
                return True
        # Another child of the owner, forked and not executed, can hold the pipe open.
        return os.getppid() != self._owner


def _ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
