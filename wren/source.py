"""Where a job's tasks come from: a sized, a lazy or an asynchronous input."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Iterator,
    Sequence,
    Sized,
)
from itertools import islice
from time import perf_counter
from typing import Any, Final, cast

import anyio

from wren.errors import TaskCancelledError

_PULL_SECONDS: Final = 0.001
"""How long a lazy input is pulled before the event loop gets its turn."""

_CLOSE_SECONDS: Final = 1.0

_CLOSE_FAILED: Final = "an input of a job failed while it was closed"

_log: Final = logging.getLogger("wren")

_SLICED: Final = (list, tuple, range)


class Source:
    """The items of one job, in order, each taken once."""

    def __init__(self) -> None:
        self.exhausted = False
        self.length: int | None = None
        """Number of items, where the input says it."""

    @property
    def stable(self) -> bool:
        """The items are all there before the first is taken, and stay."""
        return False

    def take(self, most: int) -> list[Any]:
        """Return up to ``most`` further items; none when there are none at the moment.

        Raises:
            Exception: What the input raises.
        """
        raise AssertionError

    def want(self, count: int) -> None:
        """Say how many items may lie ready; nothing to inputs that never wait."""

    def close(self) -> None:
        """Take no more."""
        self.exhausted = True


class SlicedSource(Source):
    """One or more lists, tuples or ranges."""

    def __init__(self, inputs: Sequence[Sequence[Any]]) -> None:
        super().__init__()
        self._inputs = inputs
        self._position = 0
        self.length = min(map(len, inputs))
        self.exhausted = self.length == 0

    @property
    def stable(self) -> bool:
        """See `Source.stable`."""
        return True

    def take(self, most: int) -> list[Any]:
        """See `Source.take`."""
        begin = self._position
        end = min(begin + most, cast("int", self.length))
        slices = [list(values[begin:end]) for values in self._inputs]
        self._position = end
        self.exhausted = self.exhausted or end == self.length
        items = slices[0] if len(slices) == 1 else list(zip(*slices, strict=False))
        if len(items) < end - begin:  # a list that was shortened meanwhile
            self.exhausted = True
        return items


class LazySource(Source):
    """Any other iterables."""

    def __init__(self, inputs: Sequence[Iterable[Any]]) -> None:
        super().__init__()
        if all(isinstance(values, Sized) for values in inputs):
            self.length = min(len(cast("Sized", values)) for values in inputs)
        self._iterator: Iterator[Any] = (
            iter(inputs[0]) if len(inputs) == 1 else zip(*inputs, strict=False)
        )

    def close(self) -> None:
        """See `Source.close`. A generator that nobody else holds cleans up now."""
        super().close()
        self._iterator = iter(())

    def take(self, most: int) -> list[Any]:
        """See `Source.take`."""
        items: list[Any] = []
        if self.exhausted:
            return items
        until = perf_counter() + _PULL_SECONDS
        for item in islice(self._iterator, most):
            items.append(item)
            if perf_counter() > until:
                return items
        if len(items) < most:
            self.exhausted = True
        return items


class AsyncSource(Source):
    """Asynchronous iterables, or a mixture; a task of the job pulls them."""

    def __init__(self, inputs: Sequence[Iterable[Any] | AsyncIterable[Any]]) -> None:
        super().__init__()
        self._inputs = inputs
        self._items: deque[Any] = deque()
        self._room = anyio.Event()
        self._wanted = 0
        self._error: Exception | None = None
        self._ended = False

    def want(self, count: int) -> None:
        """See `Source.want`."""
        self._wanted = count
        if len(self._items) < count:
            self._room.set()

    def take(self, most: int) -> list[Any]:
        """See `Source.take`."""
        count = min(most, len(self._items))
        items = [self._items.popleft() for _ in range(count)]
        if not self._items and self._ended:
            if self._error is not None and not items:
                error, self._error = self._error, None
                raise error
            self.exhausted = self.exhausted or self._error is None
        return items

    async def pull(self, ready: Any) -> None:
        """Pull the inputs until they end.

        Args:
            ready: Called when there is something new to take.
        """
        iterators: list[AsyncIterator[Any]] = []
        try:
            iterators.extend(map(_aiter, self._inputs))
            while not self.exhausted:
                while len(self._items) >= self._wanted:
                    self._room = anyio.Event()
                    await self._room.wait()
                row = [await anext(iterator) for iterator in iterators]
                self._items.append(row[0] if len(row) == 1 else tuple(row))
                ready()
        except StopAsyncIteration:
            pass
        except Exception as exc:  # noqa: BLE001  # the input's own; the job raises it
            self._error = exc
        except BaseException as exc:
            if not self.exhausted:  # not because the job has ended
                self._error = cancelled_input(exc)
            if _is_cancelled() or not isinstance(exc, anyio.get_cancelled_exc_class()):
                raise
        finally:
            self._ended = True
            if not self._items and self._error is None:
                self.exhausted = True
            for iterator in iterators:
                await _close(iterator)
            ready()


async def _close(iterator: AsyncIterator[Any]) -> None:
    """Let an input clean up, which may be an asynchronous generator in the middle."""
    if (aclose := getattr(iterator, "aclose", None)) is None:
        return
    with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSE_SECONDS):
        try:
            await aclose()
        except Exception:  # noqa: BLE001  # whatever the input raises
            _log.exception(_CLOSE_FAILED)
        except anyio.get_cancelled_exc_class():
            if _is_cancelled():  # it takes too long
                raise
            _log.exception(_CLOSE_FAILED)


def _is_cancelled() -> bool:
    """Whether a cancellation is meant for this code.

    On asyncio an input raises the same when it awaits what somebody else has cancelled,
    and that is its own failure.
    """
    return anyio.current_effective_deadline() == -math.inf


def cancelled_input(cause: BaseException) -> TaskCancelledError:
    """Return how a job ends whose input was cancelled, or interrupted."""
    error = TaskCancelledError("the job's input was cancelled")
    error.__cause__ = cause
    return error


def _aiter(values: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(values, AsyncIterable):
        return aiter(values)
    return _from_sync(values)


async def _from_sync(values: Iterable[Any]) -> AsyncIterator[Any]:
    for value in values:
        yield value


def open_source(inputs: Sequence[Iterable[Any] | AsyncIterable[Any]]) -> Source:
    """Return the source for the arguments of one `Executor.map`.

    Raises:
        TypeError: An argument cannot be iterated over, or there is none.
    """
    if not inputs:
        raise TypeError("map needs at least one iterable")
    if any(isinstance(values, AsyncIterable) for values in inputs):
        return AsyncSource(inputs)
    sync = cast("Sequence[Iterable[Any]]", inputs)
    if all(type(values) in _SLICED for values in sync):
        return SlicedSource(cast("Sequence[Sequence[Any]]", sync))
    return LazySource(sync)


NO_SOURCE: Final = SlicedSource(((),))
"""Of a job whose tasks are given in another way."""
