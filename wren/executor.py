"""`Executor`: the door."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast, final, overload

import anyio

from wren import registry
from wren.config import Runtime, Settings, load
from wren.diagnose import unpicklable
from wren.dispatch import Dispatcher
from wren.errors import ConfigurationError, VersionMismatchError
from wren.functions import PackedFunction
from wren.job import Future, Job
from wren.options import Options, Overrides, options_of
from wren.protocols import Compute, Storage, WorkerInfo
from wren.run import Run
from wren.serialize import Many, OverBudgetError, Pickled, dump, dump_many
from wren.source import NO_SOURCE, Source, open_source
from wren.worker import versions

if TYPE_CHECKING:
    from typing import Unpack

    from anyio.abc import TaskGroup

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")


class _Engine:
    """What an executor and its views share: the backend, the storage, the dispatcher."""

    def __init__(
        self, settings: Settings, compute: Compute | None, storage: Storage | None
    ) -> None:
        self.settings = settings
        self.dispatcher: Dispatcher | None = None
        self.closed = False
        self._given = compute, storage
        self.compute = compute
        self._storage = storage
        self._group: TaskGroup | None = None

    async def open(self) -> None:
        """Start the backend and the runners."""
        if self._group is not None or self.closed:
            raise ConfigurationError(
                "an Executor is entered once; make another one for another 'async with'"
            )
        if self.compute is None:
            self.compute = registry.open_compute(self.settings.backend, self.settings)
        try:
            _check_versions(await self.compute.prepare())
        except BaseException:
            await self._close_parts()
            raise
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self.dispatcher = Dispatcher(self.compute, self.open_storage, self._group)

    def open_storage(self) -> Storage:
        """Return the storage, opened when it is first needed."""
        if self._storage is None:
            if self.settings.storage is not None:
                self._storage = registry.open_storage(
                    self.settings.storage, self.settings
                )
            elif (own := getattr(self.compute, "open_storage", None)) is not None:
                self._storage = cast("Storage", own())
            else:
                raise ConfigurationError(
                    f"the backend {self.settings.backend!r} has no storage of its own: "
                    "set WREN_STORAGE, such as s3://bucket/prefix"
                )
        return self._storage

    async def close(self) -> None:
        """Cancel what is left, clean up, stop the backend. Idempotent."""
        if self.closed:
            return
        self.closed = True
        with anyio.CancelScope(shield=True):
            if self.dispatcher is not None:
                await self.dispatcher.aclose()
            await self._close_parts()

    async def _close_parts(self) -> None:
        compute, storage = self._given
        try:
            if self._storage is not None and storage is None:
                await self._storage.aclose()
        finally:
            if self.compute is not None and compute is None:
                await self.compute.aclose()

    async def leave(self) -> None:
        """Close, and leave the runners' task group."""
        try:
            await self.close()
        finally:
            if self._group is not None:
                # The body's own exception is not its business: a group would wrap it.
                await self._group.__aexit__(None, None, None)


@final
class Executor:
    """Runs functions on the workers of one backend.

    Enter it once with ``async with``, keep it for the life of the application, and use it
    from any number of tasks of the event loop at the same time. Leaving waits for nothing
    that was not awaited: what is left is cancelled, workers are stopped, what jobs stored
    is removed.

    A function may be of any kind: a lambda, a closure, a `functools.partial`, a bound
    method, a callable object, a class, or an ``async def``, which the worker awaits.
    Modules of your own that it needs travel with it.
    """

    def __init__(
        self,
        *,
        backend: str | Compute | None = None,
        storage: str | Storage | None = None,
        runtime: Runtime | None = None,
        concurrency: int | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        chunksize: int | None = None,
    ) -> None:
        """Describe an executor; nothing starts before it is entered.

        What is None here is taken from the environment, then from ``wren.toml`` or
        ``[tool.wren]`` in ``pyproject.toml``, then from the defaults.

        Args:
            backend: Where functions run: a name (``WREN_BACKEND``), or a `Compute`, which
                is then not closed with the executor.
            storage: Where goes what does not fit into a request: a URL
                (``WREN_STORAGE``), or a `Storage`, which is then not closed either.
            runtime: What the deployed function needs.
            concurrency: Most invocations in flight (``WREN_CONCURRENCY``).
            timeout: Seconds that one task may take (``WREN_TIMEOUT``); a task that takes
                longer is stopped and ends with `TaskTimeoutError`.
            retries: Further attempts for a task whose worker was lost
                (``WREN_RETRIES``). A task's own exception is not retried.
            chunksize: Tasks in one request (``WREN_CHUNKSIZE``); None adapts it.

        Raises:
            ConfigurationError: A setting is unknown or has a bad value.
        """
        settings = load(
            backend=backend if isinstance(backend, str) else None,
            storage=storage if isinstance(storage, str) else None,
            runtime=runtime,
            concurrency=concurrency,
            timeout=timeout,
            retries=retries,
            chunksize=chunksize,
        )
        self._engine = _Engine(
            settings,
            None if isinstance(backend, str) else backend,
            None if isinstance(storage, str) else storage,
        )
        self._options = options_of(settings)

    async def __aenter__(self) -> Self:
        await self._engine.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._engine.leave()

    async def aclose(self) -> None:
        """Close before the end of ``async with``: cancel every job and stop the backend.

        Idempotent. Any use afterwards is a `ConfigurationError`.
        """
        await self._engine.close()

    def options(self, **overrides: Unpack[Overrides]) -> Executor:
        """Return a view of this executor whose calls have other defaults.

        It shares everything with this one and needs no ``async with`` of its own.

        Args:
            overrides: As for `map`.

        Raises:
            ConfigurationError: An option is unknown or has a bad value.
        """
        view = object.__new__(Executor)
        view._engine = self._engine
        view._options = self._options.override(overrides)
        return view

    @overload
    def map(
        self,
        fn: Callable[[A], Coroutine[Any, Any, R]],
        iterable: Iterable[A] | AsyncIterable[A],
        /,
        **overrides: Unpack[Overrides],
    ) -> Job[R]: ...
    @overload
    def map(
        self,
        fn: Callable[[A], R],
        iterable: Iterable[A] | AsyncIterable[A],
        /,
        **overrides: Unpack[Overrides],
    ) -> Job[R]: ...
    @overload
    def map(
        self,
        fn: Callable[[A, B], Coroutine[Any, Any, R]],
        first: Iterable[A] | AsyncIterable[A],
        second: Iterable[B] | AsyncIterable[B],
        /,
        **overrides: Unpack[Overrides],
    ) -> Job[R]: ...
    @overload
    def map(
        self,
        fn: Callable[[A, B], R],
        first: Iterable[A] | AsyncIterable[A],
        second: Iterable[B] | AsyncIterable[B],
        /,
        **overrides: Unpack[Overrides],
    ) -> Job[R]: ...
    @overload
    def map(
        self,
        fn: Callable[..., Coroutine[Any, Any, R]],
        /,
        *iterables: Iterable[Any] | AsyncIterable[Any],
        **overrides: Unpack[Overrides],
    ) -> Job[R]: ...
    @overload
    def map(
        self,
        fn: Callable[..., R],
        /,
        *iterables: Iterable[Any] | AsyncIterable[Any],
        **overrides: Unpack[Overrides],
    ) -> Job[R]: ...
    def map(
        self,
        fn: Callable[..., Any],
        /,
        *iterables: Iterable[Any] | AsyncIterable[Any],
        **overrides: Unpack[Overrides],
    ) -> Job[Any]:
        """Call a function for every item of an input, and start at once.

        Args:
            fn: The function.
            iterables: Its arguments: sized, lazy or asynchronous iterables; several are
                zipped and end with the shortest, like those of the built-in `map`. An
                input with a length is sent as fast as workers take it. Another is read
                only ``buffer`` tasks ahead of what you have read of the results, so that
                it may be endless; awaiting the job lifts that bound.
            overrides: ``timeout``, ``retries``, ``chunksize``, ``concurrency``: as of the
                executor, for this job. ``return_exceptions``: put failures into their
                places among the results. ``retry_on``: exceptions of the task for which
                it is tried again, too, at most ``retries`` times. ``buffer``: tasks in
                flight or unread of an input without a length. ``commit_after``: seconds
                of work after which a response is stored before it is sent, so that it
                cannot get lost; 0 for always.

        Returns:
            The job; see there how to get at the results.

        Raises:
            SerializationError: The function cannot be pickled; names the attribute.
            ConfigurationError: A bad option, or the executor is not open.
            TypeError: An argument cannot be iterated over.
        """
        call = "item" if len(iterables) == 1 else "star"
        return self._start(fn, call, open_source(iterables), overrides)

    @overload
    def starmap(
        self,
        fn: Callable[..., Coroutine[Any, Any, R]],
        iterable: Iterable[Iterable[Any]] | AsyncIterable[Iterable[Any]],
        /,
        **overrides: Unpack[Overrides],
    ) -> Job[R]: ...
    @overload
    def starmap(
        self,
        fn: Callable[..., R],
        iterable: Iterable[Iterable[Any]] | AsyncIterable[Iterable[Any]],
        /,
        **overrides: Unpack[Overrides],
    ) -> Job[R]: ...
    def starmap(
        self,
        fn: Callable[..., Any],
        iterable: Iterable[Iterable[Any]] | AsyncIterable[Iterable[Any]],
        /,
        **overrides: Unpack[Overrides],
    ) -> Job[Any]:
        """Call ``fn(*item)`` for every item of an input; otherwise like `map`."""
        return self._start(fn, "star", open_source((iterable,)), overrides)

    @overload
    def submit(
        self,
        fn: Callable[P, Coroutine[Any, Any, R]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Future[R]: ...
    @overload
    def submit(
        self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[R]: ...
    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """Call a function once, and start at once.

        Every argument is the function's; options go through `options`.

        Raises:
            SerializationError: The function or an argument cannot be pickled; names the
                attribute. Nothing was sent.
            ConfigurationError: The executor is not open.
        """
        if kwargs:
            call, item = "full", (args, kwargs)
        elif len(args) == 1:
            call, item = "item", args[0]
        else:
            call, item = "star", args
        dispatcher = self._dispatcher()
        many = _pickle_now(item)
        run = Run(
            dispatcher,
            fn,
            _function(dispatcher, fn),
            call,
            NO_SOURCE,
            self._options,
        )
        run.add_single(item, many)
        dispatcher.start(run)
        return Future(run, run.ledger, 0)

    def _start(
        self, fn: Callable[..., Any], call: str, source: Source, overrides: Overrides
    ) -> Job[Any]:
        dispatcher = self._dispatcher()
        options: Options = self._options.override(overrides)
        run = Run(dispatcher, fn, _function(dispatcher, fn), call, source, options)
        dispatcher.start(run)
        return Job(run, run.ledger)

    def _dispatcher(self) -> Dispatcher:
        engine = self._engine
        if engine.closed:
            raise ConfigurationError("this Executor is closed; make another one")
        if engine.dispatcher is None:
            raise ConfigurationError(
                "this Executor is not open: use it inside 'async with wren.Executor() as "
                "executor:'"
            )
        return engine.dispatcher


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
    except Exception as exc:  # noqa: BLE001  # any object's pickling may raise anything
        raise unpicklable(item, exc, what="the argument") from exc
    for exc in many.failures.values():
        raise unpicklable(item, exc, what="the argument") from exc
    return many


def _check_versions(info: WorkerInfo) -> None:
    ours = versions()
    theirs = [info.python, info.wren, info.cloudpickle]
    if theirs != ours:
        raise VersionMismatchError(
            f"the workers of {info.name or 'the backend'} have Python, wren, cloudpickle "
            f"{', '.join(theirs)}; this driver has {', '.join(ours)}: deploy again"
        )
