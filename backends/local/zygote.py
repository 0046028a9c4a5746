"""The process that worker processes are forked from.

It imports what a worker needs once, has a single thread and no event loop, and so can
fork a worker in a millisecond or two at any time, which neither a new interpreter nor a
fork of the driver, with its threads, could do. It is the workers' parent: it reports
how each one ended, and what it last wrote to its standard streams.

Nothing outlives the driver. When the driver closes its end of the control socket, or
dies in whatever way, this process kills every worker with all that the worker started,
removes the session directory and ends; and when this process dies, the kernel kills the
workers.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import select
import signal
import socket
import sys
from importlib import import_module
from typing import Final, NoReturn

from wren.backends.local.channel import DESCRIPTOR_BYTES, descriptors
from wren.backends.local.control import COMMAND, EVENT, FORK, NOT_FORKED

OUTPUT_TAIL: Final = 16 * 1024
"""Bytes kept of what a worker writes to its standard streams."""

_ORPHAN_CHECK_MS: Final = 5000
_READS_A_TURN: Final = 16

# From linux/prctl.h; the standard library has no prctl.
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


class _Child:
    def __init__(self, number: int, pid: int, output: int) -> None:
        self.number = number
        self.pid = pid
        self.output = output
        self.tail = bytearray()

    def drain(self) -> bool:
        """Read what the worker has written; never waits, nor goes on for ever.

        Returns:
            False when nobody has the other end any more.
        """
        for _ in range(_READS_A_TURN):
            try:
                data = os.read(self.output, 1 << 16)
            except BlockingIOError:
                break
            if not data:
                return False
            self.tail += data
            del self.tail[:-OUTPUT_TAIL]
        return True


class Zygote:
    """Forks, kills and reaps workers as the driver asks."""

    def __init__(self, control: socket.socket, session: str, memory: int) -> None:
        self._control = control
        self._control.setblocking(False)  # it never waits for a driver that is busy
        self._reports = bytearray()
        self._session = session
        self._memory = memory
        self._children: dict[int, _Child] = {}
        self._driver = os.getppid()
        self._poll = select.poll()

    def run(self) -> None:
        """Serve until the driver is gone, then leave nothing behind."""
        wake, signalled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, _wake_only)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        self._poll.register(wake, select.POLLIN)
        self._poll.register(self._control, select.POLLIN)
        try:
            while self._serve_once(wake):
                pass
        finally:
            self._end()

    def _serve_once(self, wake: int) -> bool:
        ready = self._poll.poll(_ORPHAN_CHECK_MS)
        # A copy of the driver's socket in a process that it forked keeps this one open.
        if os.getppid() != self._driver:
            return False
        for descriptor, events in ready:
            if descriptor == wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 1 << 12)
            elif descriptor == self._control.fileno():
                if events & select.POLLOUT:
                    self._send_reports()
                if events & ~select.POLLOUT and not self._obey():
                    return False
            else:
                for child in self._children.values():
                    if child.output == descriptor and not child.drain():
                        self._poll.unregister(descriptor)
        self._reap()
        return True

    def _obey(self) -> bool:
        try:
            data, ancillary, _, _ = self._control.recvmsg(
                COMMAND.size, DESCRIPTOR_BYTES, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:  # the driver is gone and has not read everything
            return False
        if len(data) < COMMAND.size:
            return False
        operation, number = COMMAND.unpack(data)
        if operation == FORK:
            self._fork(number, descriptors(ancillary))
        else:
            for child in self._children.values():
                if child.number == number:
                    _kill_group(child.pid)
        return True

    def _fork(self, number: int, received: list[int]) -> None:
        if not received:  # the kernel drops what this process has no room for
            self._report(number, NOT_FORKED, os.strerror(errno.EMFILE).encode())
            return
        opened = list(received)
        try:
            readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            opened += readable, writable
            os.set_blocking(writable, True)
            pid = os.fork()
        except OSError as exc:  # a limit of this machine; the other workers go on
            self._report(number, NOT_FORKED, str(exc).encode())
            for descriptor in opened:
                os.close(descriptor)
            return
        if pid == 0:
            self._become_worker(number, received[0], writable)
        os.close(received[0])
        os.close(writable)
        self._children[pid] = _Child(number, pid, readable)
        self._poll.register(readable, select.POLLIN)

    def _become_worker(self, number: int, descriptor: int, output: int) -> NoReturn:
        """Turn the forked process into a worker. It never returns."""
        status = 1
        try:
            os.setsid()  # a group of its own, for killing it with all its children
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # daemons that a task leaves are its own
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(output, 1)
            os.dup2(output, 2)
            kept = {0, 1, 2, descriptor}
            for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # pathlib is slow
                if int(name) not in kept:
                    with contextlib.suppress(OSError):
                        os.close(int(name))
            if self._memory:
                _limit_memory(self._memory)
            from wren.backends.local.serve import serve

            serve(socket.socket(fileno=descriptor), f"local-{number}", self._session)
            status = 0
        except BaseException:  # noqa: BLE001  # this copy must not go on
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)

    def _reap(self) -> None:
        while True:
            try:
                # Look first: while it is not reaped, its group's number is not reused.
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            _kill_group(found.si_pid)
            _, status = os.waitpid(found.si_pid, 0)
            child = self._children.pop(found.si_pid, None)
            if child is None:  # an orphan that was a worker's child
                continue
            child.drain()
            with contextlib.suppress(KeyError):  # its output had ended before
                self._poll.unregister(child.output)
            os.close(child.output)
            self._kill_orphans()
            code = os.waitstatus_to_exitcode(status)
            self._report(child.number, code, child.tail)

    def _report(self, number: int, status: int, output: bytes | bytearray) -> None:
        self._reports += EVENT.pack(number, status, len(output)) + output
        self._send_reports()

    def _send_reports(self) -> None:
        """Send what the socket takes now, and the rest when it takes more."""
        try:
            del self._reports[: self._control.send(self._reports)]
        except BlockingIOError:
            pass
        except OSError:  # the driver is gone
            self._reports.clear()
        more = select.POLLOUT if self._reports else 0
        self._poll.modify(self._control, select.POLLIN | more)

    def _kill_orphans(self) -> None:
        """Kill what a dead worker started and put into a session of its own.

        As this process is a subreaper, the kernel has made such a process its child.
        """
        for pid in children(os.getpid()):
            if pid not in self._children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _end(self) -> None:
        with contextlib.suppress(OSError):
            self._control.close()
        for pid in list(self._children):
            _kill_group(pid)
        self._reap_all()
        import shutil

        shutil.rmtree(self._session, ignore_errors=True)

    def _reap_all(self) -> None:
        while True:
            self._kill_orphans()
            try:
                pid, _ = os.waitpid(-1, 0)
            except ChildProcessError:
                return
            self._children.pop(pid, None)


def children(pid: int) -> list[int]:
    """Return the direct children of a process, whichever of its threads made them."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  # pathlib is slow
    except OSError:
        return found
    for thread in threads:
        path = f"/proc/{pid}/task/{thread}/children"
        with contextlib.suppress(OSError), open(path) as listing:  # noqa: PTH123
            found += map(int, listing.read().split())
    return found


def _kill_group(pid: int) -> None:
    # A worker that has just been forked may not lead its group yet.
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _limit_memory(megabytes: int) -> None:
    import resource

    limit = megabytes << 20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _wake_only(_signal: int, _frame: object) -> None:
    """Exists so that the signal interrupts the poll instead of being ignored."""


def main(session: str, memory: int) -> None:
    """Run the zygote; the control socket is its standard input."""
    control = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # Whatever the driver, or its thread, blocks or ignores is no business of a task's.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    import_module("wren.backends.local.serve")  # what every worker needs

    # A task's pickles refer to __main__ by name; this program's own must not answer.
    sys.modules["__main__"].__dict__.clear()
    sys.modules["__main__"].__dict__["__name__"] = "__main__"
    gc.collect()
    gc.freeze()  # the workers share these pages as long as nobody touches them
    Zygote(control, session, memory).run()
    os._exit(0)  # nothing is left to do, and the driver is waiting
