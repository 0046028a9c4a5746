"""A worker of the loopback platform: a process that carries out one request."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Final

from wren.worker import Worker

HELLO: Final = b"+"
"""What a worker sends when it has started."""

LENGTH: Final = struct.Struct("<Q")
"""What comes before the response. Its end is no sign: a copy of the socket may be open
in a process that the task has started."""

_PR_SET_CHILD_SUBREAPER: Final = 36  # from linux/prctl.h


def main() -> None:
    """Serve the request that comes from the socket whose descriptor is the argument."""
    process = os.getpid()
    os.set_inheritable(int(sys.argv[1]), False)
    connection = socket.socket(fileno=int(sys.argv[1]))
    # So that daemons which the task leaves become children of this process.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    worker = Worker(f"loopback-{process}", str(Path("modules").resolve()))
    connection.sendall(HELLO)
    request = bytearray()
    while data := connection.recv(1 << 18):
        request += data
    response = b"".join(worker.handle(request))
    if os.getpid() != process:
        os._exit(0)  # the copy that a task's own fork left behind
    end_children()
    connection.sendall(LENGTH.pack(len(response)) + response)


def end_children() -> None:
    """Kill what the task has started."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    while True:
        for pid in map(int, children.read_text().split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


if __name__ == "__main__":
    main()
