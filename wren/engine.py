"""What an executor and its views share: the backend, the storage, the dispatcher.

Loaded when an executor is entered, after its backend has begun to start: worker
processes and the rest of wren then load at the same time.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from typing import Any

import anyio

from wren import registry
from wren.config import Settings
from wren.diagnose import unpicklable
from wren.dispatch import Dispatcher
from wren.errors import VersionMismatchError
from wren.functions import PackedFunction
from wren.job import Future, Job
from wren.options import Options
from wren.protocols import Compute, Storage, WorkerInfo
from wren.run import Run
from wren.serialize import Many, OverBudgetError, Pickled, dump, dump_many
from wren.source import NO_SOURCE, open_source
from wren.worker import versions


class Engine:
    """Starts jobs; owns everything that has to be closed."""

    def __init__(
        self, settings: Settings, compute: Compute, storage: Storage | None
    ) -> None:
        """Describe an engine; nothing starts before `open`.

        Args:
            settings: As the executor was asked.
            compute: Prepared. The caller closes it.
            storage: The caller's, who closes it; None opens what the settings name.
        """
        self._settings = settings
        self._compute = compute
        self._storage = storage
        self._own_storage = storage is None
        self._group = anyio.create_task_group()
        self._dispatcher: Dispatcher | None = None

    async def open(self, info: WorkerInfo) -> None:
        """Start serving.

        Args:
            info: What the workers run.

        Raises:
            VersionMismatchError: They cannot understand this driver.
        """
        _check_versions(info)
        await self._group.__aenter__()
        self._dispatcher = Dispatcher(
            self._compute,
            self._open_storage,
            self._group,
            self._settings.concurrency,
        )

    def map(
        self,
        fn: Callable[..., Any],
        call: str,
        iterables: Sequence[Iterable[Any] | AsyncIterable[Any]],
        options: Options,
    ) -> Job[Any]:
        """See `Executor.map`."""
        dispatcher = self._serving()
        source = open_source(iterables)
        run = Run(dispatcher, fn, _function(dispatcher, fn), call, source, options)
        dispatcher.start(run)
        return Job(run, run.ledger)

    def submit(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
    ) -> Future[Any]:
        """See `Executor.submit`."""
        if kwargs:
            call, item = "full", (args, kwargs)
        elif len(args) == 1:
            call, item = "item", args[0]
        else:
            call, item = "star", args
        dispatcher = self._serving()
        function = _function(dispatcher, fn)
        many = _pickle_now(item)
        run = Run(dispatcher, fn, function, call, NO_SOURCE, options)
        run.add_single(item, many)
        dispatcher.start(run)
        return Future(run, run.ledger, 0)

    async def stop(self) -> None:
        """Cancel what is left and remove what it stored. Not idempotent."""
        if self._dispatcher is not None:
            await self._dispatcher.aclose()

    async def close_storage(self) -> None:
        """Close the storage, unless it is the caller's."""
        if self._storage is not None and self._own_storage:
            await self._storage.aclose()

    async def leave(self) -> None:
        """Leave the runners' task group, after `stop`."""
        if self._dispatcher is not None:
            # The body's own exception is not its business: a group would wrap it.
            try:
                await self._group.__aexit__(None, None, None)
            except BaseExceptionGroup as exc:
                interrupt, _ = exc.split((KeyboardInterrupt, SystemExit))
                if interrupt is None:
                    raise
                # Trio raises it in whichever task runs, which may be one of these.
                raise interrupt.exceptions[0] from None

    def _serving(self) -> Dispatcher:
        assert self._dispatcher is not None  # noqa: S101  # the executor checked it
        return self._dispatcher

    def _open_storage(self) -> Storage:
        """Return the storage, opened when it is first needed."""
        if self._storage is None:
            self._storage = registry.storage_for(self._settings, lambda: self._compute)
        return self._storage


def _function(
    dispatcher: Dispatcher, fn: Callable[..., Any]
) -> PackedFunction | Pickled | None:
    if not callable(fn):
        raise TypeError(f"{fn!r} cannot be called")
    return dispatcher.packer.dump(fn)


def _pickle_now(item: Any) -> Many | None:
    """Pickle a single task's arguments at the call; None if that takes too long."""
    try:
        many = dump_many([item], lambda value: dump(value, bounded=True))
    except OverBudgetError:
        return None
    except Exception as exc:  # any object's pickling may raise anything
        raise unpicklable(item, exc, what="the argument") from exc
    for failure in many.failures.values():
        raise unpicklable(item, failure, what="the argument") from failure
    return many


def _check_versions(info: WorkerInfo) -> None:
    ours = versions()
    theirs = [info.python, info.wren, info.cloudpickle]
    if theirs != ours:
        raise VersionMismatchError(
            f"the workers of {info.name or 'the backend'} have Python, wren, "
            f"cloudpickle {', '.join(theirs)}; this driver has {', '.join(ours)}: "
            "deploy again"
        )
