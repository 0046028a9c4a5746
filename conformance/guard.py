"""Ends a check that hangs, and all checks in good order when the user interrupts."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from functools import wraps
from inspect import iscoroutinefunction
from types import FrameType
from typing import Any, TypeAlias

import anyio
import pytest

Test: TypeAlias = Callable[..., Coroutine[Any, Any, None]]


class Guard:
    """A pytest plugin, for checks that run on asyncio in the main thread.

    A `KeyboardInterrupt` would be raised wherever the event loop happens to be, and
    tear it down with fixtures still open. Here the check is cancelled instead, its
    fixtures clean up, and no other check begins.
    """

    def __init__(self, seconds: float) -> None:
        """Say how long a check may take."""
        self._seconds = seconds
        self._session: pytest.Session | None = None
        self._cancel: Callable[[], object] | None = None  # the check that is running
        self._interrupted = False

    def interrupt(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal; the second one ends the process."""
        if self._interrupted:
            os._exit(128 + number)
        self._interrupted = True
        if self._session is not None:
            self._session.shouldstop = signal.strsignal(number) or "interrupted"
        if self._cancel is not None:
            self._cancel()

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Learn what to stop."""
        self._session = session

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        """Watch over a check."""
        if isinstance(item, pytest.Function) and iscoroutinefunction(item.obj):
            item.obj = self._watched(item.obj)

    def _watched(self, test: Test) -> Test:
        @wraps(test)
        async def watched(**arguments: Any) -> None:
            loop = asyncio.get_running_loop()
            with anyio.fail_after(self._seconds) as scope:
                self._cancel = lambda: loop.call_soon_threadsafe(scope.cancel)
                try:
                    await test(**arguments)
                finally:
                    self._cancel = None
            if self._interrupted:
                pytest.skip("interrupted")

        return watched
