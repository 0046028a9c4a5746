"""`Executor`: the door."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, final, overload

from wren import registry
from wren.config import Runtime, Settings, load
from wren.errors import ConfigurationError
from wren.options import Overrides, options_of

if TYPE_CHECKING:
    from typing import Unpack

    import anyio

    from wren.engine import Engine
    from wren.job import Future, Job
    from wren.protocols import Compute, Storage

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")


class _Core:
    """The life of an executor: made, open, closed."""

    def __init__(
        self, settings: Settings, compute: Compute | None, storage: Storage | None
    ) -> None:
        self._settings = settings
        self._given_compute = compute
        self._given_storage = storage
        self._compute: Compute | None = None
        self._engine: Engine | None = None
        self._entered = False
        self._closed = False
        self._closing: anyio.Event | None = None

    async def open(self) -> None:
        """Start the backend, then everything else."""
        if self._entered:
            raise ConfigurationError(
                "an Executor is entered once; make another one for another 'async with'"
            )
        self._entered = True
        self._compute = self._given_compute or registry.open_compute(
            self._settings.backend, self._settings
        )
        try:
            info = await self._compute.prepare()
            # Not before: while this is loaded, a backend's processes start.
            from wren.engine import Engine

            engine = Engine(self._settings, self._compute, self._given_storage)
            await engine.open(info)
        except BaseException:
            self._closed = True
            import anyio

            with anyio.CancelScope(shield=True):
                await self._close_compute()
            raise
        self._engine = engine

    def engine(self) -> Engine:
        """Return what starts jobs.

        Raises:
            ConfigurationError: The executor is not open.
        """
        if self._closed:
            raise ConfigurationError("this Executor is closed; make another one")
        if self._engine is None:
            raise ConfigurationError(
                "this Executor is not open: use it inside "
                "'async with wren.Executor() as executor:'"
            )
        return self._engine

    async def close(self) -> None:
        """Cancel what is left, clean up, stop the backend.

        Idempotent; whoever comes later returns no sooner than the first.
        """
        self._closed = True
        if self._engine is None:
            return
        import anyio

        with anyio.CancelScope(shield=True):
            if self._closing is not None:
                await self._closing.wait()
                return
            self._closing = anyio.Event()
            try:
                await self._close_all(self._engine)
            finally:
                self._closing.set()

    async def _close_all(self, engine: Engine) -> None:
        # The storage last, when no worker is left that could still write to it. And
        # always all three: asyncio's own cancellation knows nothing of a shield.
        try:
            await engine.stop()
        finally:
            try:
                await self._close_compute()
            finally:
                await engine.close_storage()

    async def _close_compute(self) -> None:
        if self._compute is not None and self._given_compute is None:
            await self._compute.aclose()

    async def leave(self) -> None:
        """Close, and wait for everything to end."""
        try:
            await self.close()
        finally:
            if self._engine is not None:
                await self._engine.leave()


@final
class Executor:
    """Runs functions on the workers of one backend.

    Enter it once with ``async with``, keep it for the life of the application, and use
    it from any number of tasks of the event loop at the same time. Leaving waits for
    nothing that was not awaited: what is left is cancelled, workers are stopped, what
    jobs stored is removed.

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
            backend: Where functions run: a name (``WREN_BACKEND``), or a `Compute`,
                which is then not closed with the executor.
            storage: Where goes what does not fit into a request: a URL
                (``WREN_STORAGE``), or a `Storage`, which is then not closed either.
            runtime: What the deployed function needs.
            concurrency: Most invocations in flight (``WREN_CONCURRENCY``).
            timeout: Seconds that one task may take (``WREN_TIMEOUT``); a task that
                takes longer is stopped and ends with `TaskTimeoutError`.
            retries: Further attempts for a task whose worker was lost
                (``WREN_RETRIES``). A task's own exception is not retried. With 0, a
                task that may have run never runs again; tasks then go one by one,
                unless ``chunksize`` is given, and those of a lost chunk are all lost.
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
        self._core = _Core(
            settings,
            None if isinstance(backend, str) else backend,
            None if isinstance(storage, str) else storage,
        )
        self._options = options_of(settings)

    async def __aenter__(self) -> Self:
        await self._core.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._core.leave()

    async def aclose(self) -> None:
        """Close before the end of ``async with``: cancel all jobs, stop the backend.

        Idempotent, and done when it returns, also if another task has begun to close.
        Any use afterwards is a `ConfigurationError`.
        """
        await self._core.close()

    def options(self, **overrides: Unpack[Overrides]) -> Executor:
        """Return a view of this executor whose calls have other defaults.

        It shares everything with this one and needs no ``async with`` of its own.

        Args:
            overrides: As for `map`.

        Raises:
            ConfigurationError: An option is unknown or has a bad value.
        """
        view = object.__new__(Executor)
        view._core = self._core
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
                zipped and end with the shortest, like those of the built-in `map`. They
                must not change before their task has its outcome. An input with a
                length is sent as fast as workers take it. Another is read only
                ``buffer`` tasks ahead of what you have read of the results, so that it
                may be endless; awaiting the job lifts that bound.
            overrides: ``timeout``, ``retries``, ``chunksize``, ``concurrency``: as of
                the executor, for this job. ``return_exceptions``: put failures into
                their places among the results. ``retry_on``: exceptions of the task
                for which it is tried again, too, at most ``retries`` times.
                ``buffer``: tasks in flight or unread of an input without a length.
                ``commit_after``: seconds of work after which a response is stored
                before it is sent, so that it cannot get lost; 0 for always.

        Returns:
            The job; see there how to get at the results.

        Raises:
            SerializationError: The function cannot be pickled; names the attribute. An
                argument that cannot be is its task's failure; so is, of all tasks, a
                function that takes longer to pickle than the event loop may wait.
            ConfigurationError: A bad option, or the executor is not open.
            TypeError: An argument cannot be iterated over.
        """
        call = "item" if len(iterables) == 1 else "star"
        options = self._options.override(overrides)
        return self._core.engine().map(fn, call, iterables, options)

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
        options = self._options.override(overrides)
        return self._core.engine().map(fn, "star", (iterable,), options)

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

        Every argument is the function's; options go through `options`. Arguments must
        not change before there is an outcome: large arrays are sent from where they
        lie, and a new attempt pickles again.

        Raises:
            SerializationError: The function or an argument cannot be pickled; names the
                attribute. Nothing was sent. What takes longer to pickle than the event
                loop may wait is pickled later, and fails at the ``await``.
            ConfigurationError: The executor is not open.
        """
        return self._core.engine().submit(fn, args, kwargs, self._options)
