"""Broken loopback platforms. A program: its argument names the one to run."""

from __future__ import annotations

import os
import select
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Sequence

from wren.conformance.loopback_run import CRASHED, Outcome, Run
from wren.conformance.loopback_server import Options, Platform, main


class _DeafRun(Run):
    def finish(self, request: bytes, client: socket.socket, seconds: float) -> Outcome:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            return super().finish(request, ours, seconds)


class Deaf(Platform):
    """Does not notice that a client has gone."""

    run: type[Run] = _DeafRun


class _StuffedRun(Run):
    def drain(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as pipe:
            gone = select.poll()
            gone.register(pipe, 0)
            gone.poll()


class Stuffed(Platform):
    """Does not read what tasks print."""

    run: type[Run] = _StuffedRun


class Leaky(Platform):
    """Gives workers its own environment, which is that of the driver."""

    def environment(self, directory: str) -> dict[str, str]:
        """See `Platform.environment`."""
        return {**os.environ, **super().environment(directory)}


class Untidy(Platform):
    """Has one directory for everything."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self._shared = tempfile.mkdtemp(prefix="wren-loopback-")

    def directory(self) -> str:
        """See `Platform.directory`."""
        return self._shared

    def leave(self, directory: str) -> None:
        """See `Platform.leave`."""

    def end(self) -> None:
        """See `Platform.end`."""
        super().end()
        shutil.rmtree(self._shared, ignore_errors=True)


class _FertileRun(Run):
    program: Sequence[str] = (
        "-c",
        "from wren.conformance import loopback_worker as worker\n"
        "worker.end_children = lambda: None\n"
        "worker.main()",
    )


class Fertile(Platform):
    """Has workers that leave alone what tasks have started."""

    run: type[Run] = _FertileRun


class Frail(Platform):
    """Loses all its workers when it loses one."""

    def invoke(self, name: str, request: bytes, client: socket.socket) -> Outcome:
        """See `Platform.invoke`."""
        outcome = super().invoke(name, request, client)
        if outcome.status == CRASHED:
            for run in list(self.runs):
                run.kill()
        return outcome


class Loyal(Platform):
    """Lets what runs come to its end."""

    run: type[Run] = _DeafRun

    def end(self) -> None:
        """See `Platform.end`."""
        while self.runs:
            time.sleep(0.05)


if __name__ == "__main__":
    kinds = (Deaf, Stuffed, Leaky, Untidy, Fertile, Frail, Loyal)
    main({kind.__name__: kind for kind in kinds}[sys.argv[1]])
