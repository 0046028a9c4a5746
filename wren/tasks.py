"""Run the tasks of one request: catch everything, keep to the time, capture output."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import CoroutineType, FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final

from wren.errors import TaskTimeoutError

if TYPE_CHECKING:
    import asyncio

COROUTINE: Final[type[Any]] = CoroutineType

_LINE: Final = 8 * 1024

TAIL: Final = 64 * 1024
"""Bytes kept of what the tasks of one request print, for each standard stream."""

_GRACE: Final = 0.5
"""Seconds that a coroutine whose time is up has for its own cleaning up."""


class Expired(BaseException):  # not an error: how a task is interrupted
    """Raised inside a task whose time is up.

    Not an `Exception`, so that a task's own ``except Exception`` does not swallow it.
    """


_BREAKS: Final = (Expired, SystemExit, KeyboardInterrupt)


class Outcome:
    """How the tasks of one request ended.

    Attributes:
        values: What the tasks returned that did return, in order.
        failures: For the others, position in the request to what was raised.
        retire: A task was interrupted; the process may be in any state.
    """

    __slots__ = ("failures", "retire", "values")

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.failures: dict[int, BaseException] = {}
        self.retire = False


class TaskRunner:
    """Calls a function for each task of a request, one after the other."""

    def __init__(self) -> None:
        self.output = Output()
        self._loop: asyncio.Runner | None = None
        self._arguments: list[Any] = []
        self._copied = False
        os.register_at_fork(after_in_child=self._stop_copy)

    def _stop_copy(self) -> None:
        """Let a copy of this process, which a task forked, begin no further task."""
        self._copied = True
        self._arguments.clear()

    def run(
        self,
        function: Callable[..., Any],
        call: str,
        arguments: list[Any],
        timeout: float | None,
    ) -> Outcome:
        """Run every task and return how each ended.

        If a task forks and both sides return, this returns in the worker alone.

        Args:
            function: The function. What it returns is awaited if it is a coroutine.
            call: How it is called: ``item``, ``star`` or ``full``.
            arguments: For each task one item, a tuple, or a tuple and a dict.
            timeout: Seconds for each task, or None.
        """
        self.output.attach()
        self._arguments = arguments
        outcome = Outcome()
        one = _caller(function, call)
        if timeout is not None:
            self._run_timed(one, arguments, timeout, outcome)
        else:
            self._run(one, arguments, outcome)
        if self._copied:
            os._exit(0)
        self._arguments = []
        return outcome

    def _run(
        self, one: Callable[[Any], Any], arguments: list[Any], outcome: Outcome
    ) -> None:
        append = outcome.values.append
        position = 0
        iterator = iter(arguments)
        while position < len(arguments):
            # One try around many calls: a task that succeeds pays nothing for it.
            try:
                for argument in iterator:
                    append(one(argument))
            except BaseException as exc:  # noqa: BLE001  # also SystemExit and the like
                outcome.failures[len(outcome.values) + len(outcome.failures)] = exc
            position = len(outcome.values) + len(outcome.failures)
        if COROUTINE in set(map(type, outcome.values)):
            self._await_all(outcome, None)

    def _run_timed(
        self,
        one: Callable[[Any], Any],
        arguments: list[Any],
        timeout: float,
        outcome: Outcome,
    ) -> None:
        for position, argument in enumerate(arguments):
            try:
                with _Alarm(timeout):
                    value = one(argument)
                if type(value) is COROUTINE:
                    # Only for one that blocks: the loop itself stops one that waits.
                    with _Alarm(timeout + _GRACE):
                        value = self._await(value, timeout)
            except (Expired, _AsyncExpired) as exc:
                outcome.failures[position] = _timed_out(timeout, exc)
                outcome.retire = True
            except BaseException as exc:  # noqa: BLE001  # also SystemExit and the like
                outcome.failures[position] = exc
            else:
                outcome.values.append(value)

    def _await_all(self, outcome: Outcome, timeout: float | None) -> None:
        returned, outcome.values = outcome.values, []
        failed = outcome.failures
        positions = (n for n in range(len(returned) + len(failed)) if n not in failed)
        for position, value in zip(list(positions), returned, strict=True):
            if self._copied:
                return
            if type(value) is not COROUTINE:
                outcome.values.append(value)
                continue
            try:
                outcome.values.append(self._await(value, timeout))
            except BaseException as exc:  # noqa: BLE001  # also SystemExit and the like
                failed[position] = exc

    def _await(
        self, coroutine: CoroutineType[Any, Any, Any], timeout: float | None
    ) -> Any:
        import asyncio

        async def bounded() -> Any:
            scope = asyncio.timeout(timeout)
            try:
                async with scope:
                    return await coroutine
            except TimeoutError as exc:
                if scope.expired():
                    where = exc.__cause__ or exc  # the cancellation: what it awaited
                    expired = _AsyncExpired().with_traceback(where.__traceback__)
                    raise expired from None
                raise

        if self._loop is None:
            self._loop = asyncio.Runner()
        try:
            return self._loop.run(bounded())
        except _BREAKS:
            # These leave asyncio's loop half way through a step.
            broken, self._loop = self._loop, None
            with suppress(*_BREAKS), _Alarm(_GRACE):
                broken.close()
            raise


class _AsyncExpired(Exception):  # noqa: N818  # not an error: how a task is interrupted
    """A coroutine's time is up."""


def _timed_out(timeout: float, exc: BaseException) -> TaskTimeoutError:
    error = TaskTimeoutError(f"the task ran longer than its timeout of {timeout:g} s")
    # The traceback ends in the user's code, not in what the alarm interrupted there.
    last: TracebackType | None = None
    tb = exc.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code.co_filename != __file__:
            last = tb
        tb = tb.tb_next
    if last is not None:
        last.tb_next = None
    return error.with_traceback(exc.__traceback__)


def _caller(function: Callable[..., Any], call: str) -> Callable[[Any], Any]:
    match call:
        case "item":
            return function
        case "star":
            return lambda arguments: function(*arguments)
        case _:
            return lambda arguments: function(*arguments[0], **arguments[1])


class _Alarm:
    """Raises `Expired` in the main thread after a time.

    Interrupts Python code, endless loops included, but no call into C that never
    returns: for that the driver has a deadline of its own. Off the main thread, where
    signals do not arrive, it does nothing.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._armed = threading.current_thread() is threading.main_thread()

    def __enter__(self) -> None:
        if self._armed:
            signal.signal(signal.SIGALRM, _expire)
            signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def __exit__(self, *_: object) -> None:
        if self._armed:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _expire(_signal: int, _frame: FrameType | None) -> None:
    raise Expired


class _Tail(io.BufferedIOBase):
    """Passes bytes on to a descriptor, line by line, and remembers the last."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._kept = bytearray()
        self._passed = 0
        self._lock = threading.RLock()

    @property
    def name(self) -> int:
        return self._descriptor

    def fileno(self) -> int:
        return self._descriptor

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        kept = self._kept
        with self._lock:
            before = len(kept)
            kept.extend(data)
            written = len(kept) - before
            if kept.find(b"\n", before) >= 0 or len(kept) - self._passed > _LINE:
                self._pass_on()
        return written

    def flush(self) -> None:
        if self._kept:
            with self._lock:
                self._pass_on()

    def close(self) -> None:
        """Stay open: the tasks that share the request may have something to print."""
        self.flush()

    def _pass_on(self) -> None:
        kept = self._kept
        # A copy, and counted as passed: a timeout may end this, and a signal handler
        # print meanwhile.
        pending = kept[self._passed :]
        self._passed = len(kept)
        while pending:
            try:
                del pending[: os.write(self._descriptor, pending)]
            except OSError:  # a task closed it; what was printed is still kept
                break
        if len(kept) > 2 * TAIL:
            del kept[:-TAIL]
            self._passed = len(kept)

    def take(self) -> str:
        """Return and forget what is remembered."""
        if not self._kept:
            return ""
        with self._lock:
            self._pass_on()
            text = self._kept[-TAIL:].decode(errors="replace")
            self._kept.clear()
            self._passed = 0
        return text


class _Stream(io.TextIOWrapper):
    def detach(self) -> Any:
        """Stay usable, for the same reason as `_Tail.close`."""
        return self.buffer


class Output:
    """This process's ``sys.stdout`` and ``sys.stderr``, with a memory."""

    def __init__(self) -> None:
        self._tails = [_Tail(1), _Tail(2)]
        self._streams = [
            _Stream(tail, "utf-8", "backslashreplace", write_through=True)
            for tail in self._tails
        ]

    def attach(self) -> None:
        """Take over the standard streams, also after a task replaced them.

        They are always the same, since handlers of `logging` hold on to them.
        """
        sys.stdout, sys.stderr = self._streams

    def take(self) -> str:
        """Return and forget the tail of what was printed since the last call."""
        out, err = self._tails
        return out.take() + err.take()
