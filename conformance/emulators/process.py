"""A server in a process of its own that never outlives the process that started it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from wren.conformance.emulators import guard
from wren.conformance.emulators.errors import EmulatorError

T = TypeVar("T")

READY_SECONDS: Final = 45.0
"""Far more than a server needs, since a busy machine is no reason to fail."""

_PAUSE: Final = 0.05
_SHOWN: Final = 4000  # characters of output in a message


class ServerProcess:
    """A server, its private directory and a tail of its output.

        with ServerProcess("s3") as process:
            process.start([python, "-m", "server"], environment)
            process.wait_until(answers)

    When the block is left, or this process ends in any way, SIGKILL included, the
    server and its children get SIGTERM and after three seconds SIGKILL, and then the
    directory is removed. A guard sees to it: a small process of its own.

    Not safe for use by several threads at once. After ``os.fork`` it belongs to the
    parent.
    """

    def __init__(self, name: str) -> None:
        """Describe a server.

        Args:
            name: For messages, and for the name of its directory.
        """
        self.name = name
        self._guard: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None
        self._group = 0
        self._code: int | None = None

    def __enter__(self) -> Self:
        # -I and -S: whatever is in this environment, the guard starts, and starts fast.
        command = [sys.executable, "-I", "-S", guard.__file__]
        self._guard = subprocess.Popen(  # noqa: S603
            [*command, str(os.getpid()), self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        try:
            self._directory = Path(self._hear())
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def directory(self) -> Path:
        """A private directory, the server's current one, for as long as it runs."""
        if self._directory is None:
            raise EmulatorError(f"{self.name}: the server's process was not entered")
        return self._directory

    @property
    def pid(self) -> int:
        """The server's process id and process group; 0 before it is started."""
        return self._group

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when the server has ended."""
        descriptor: int = self._pipe().fileno()
        return descriptor

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Run the server. Once.

        Args:
            command: The program and its arguments.
            environment: All of its variables, but ``HOME`` and ``TMPDIR``: these are
                the private directory, so that nothing is read from or left in others.
        """
        private = {"HOME": str(self.directory), "TMPDIR": str(self.directory)}
        order = {"command": [*command], "environment": {**environment, **private}}
        assert self._guard is not None  # it has told its directory
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `_hear` says so
            self._guard.stdin.write(json.dumps(order).encode() + b"\n")
        self._group = int(self._hear())

    def wait_until(
        self, ready: Callable[[], T | None], seconds: float = READY_SECONDS
    ) -> T:
        """Call a function until it returns something else than None; return that.

        Raises:
            EmulatorError: The server ended, or the time is over. The message has the
                end of the server's output.
        """
        deadline = time.monotonic() + seconds
        while True:
            found = ready()
            if self.exit_code() is not None:
                raise self.failure()
            if found is not None:
                return found
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._error(f"not ready after {seconds:g} seconds")
            select.select([self], [], [], min(_PAUSE, left))

    def exit_code(self) -> int | None:
        """Return the code the server ended with, negative for a signal, or None."""
        if self._code is None and select.select([self], [], [], 0)[0]:
            self._code = int(self._hear())
        return self._code

    def failure(self) -> EmulatorError:
        """Return what to raise when the server has ended and should not have."""
        return self._error(f"ended with exit code {self.exit_code()}")

    def output(self) -> str:
        """Return the end of what the server has written, 64 KiB or more if there is."""
        with contextlib.suppress(FileNotFoundError):
            data = (self.directory / guard.LOG).read_bytes()
            return data.decode(errors="replace")
        return ""

    def stop(self) -> None:
        """End the server and remove its directory. Idempotent."""
        running, self._guard = self._guard, None
        if running is None:
            return
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.close()
        try:
            running.wait(guard.GRACE * 4)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
        finally:
            running.stdout.close()
        if running.returncode != 0:  # it was killed itself, and ended nothing
            if self._group:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._group, signal.SIGKILL)
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)

    def _pipe(self) -> Any:
        if self._guard is None:
            raise EmulatorError(f"{self.name}: the server was stopped")
        return self._guard.stdout

    def _hear(self) -> Any:
        line: bytes = self._pipe().readline()
        if not line:
            raise EmulatorError(f"{self.name}: the server's guard ended early")
        return json.loads(line)

    def _error(self, what: str) -> EmulatorError:
        said = self.output().strip()[-_SHOWN:]
        return EmulatorError(
            f"the {self.name} server {what}; its output:\n{said or '(none)'}"
        )
