"""A progress bar on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Self


class Progress:
    """Shows how much of an input is done, if standard error is a terminal.

    It needs tqdm, from the extra ``cli``; without it, nothing is shown.
    """

    def __init__(self, total: int | None) -> None:
        """Show an empty bar.

        Args:
            total: Size of the input in bytes, where that is known.
        """
        self._bar = None
        self._done = 0
        if sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ModuleNotFoundError:
                return
            self._bar = tqdm(total=total, unit="B", unit_scale=True)

    def advance(self, size: int) -> None:
        """One line of that many bytes is done."""
        if self._bar is not None:
            self._done += 1
            self._bar.set_postfix_str(f"{self._done} lines", refresh=False)
            self._bar.update(size)

    @contextmanager
    def hidden(self) -> Generator[None]:
        """Take the bar away while something else is written to the same terminal."""
        if self._bar is None or not sys.stdout.isatty():
            yield
            return
        self._bar.clear()
        try:
            yield
        finally:
            self._bar.refresh()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
