"""Every exception wren raises on purpose, told apart by what the caller can do.

    WrenError
    ├── ConfigurationError        wrong before anything was sent: fix the call
    │   └── CredentialsError      missing, expired or denied; says which permission
    ├── StorageError              a store refused or failed an operation
    │   ├── KeyNotFoundError      also a KeyError
    │   ├── KeyExistsError        a put with if_absent=True lost
    │   ├── AccessDeniedError     also a CredentialsError; says what to change
    │   ├── UnsupportedError      this store cannot do that, and never will
    │   └── TransientError        worth trying again: timeouts, 429, 5xx
    ├── ComputeError              the platform refused or failed an invocation
    │   ├── ThrottledError        not executed; come back later
    │   ├── WorkerLostError       may have been executed; its answer is lost
    │   ├── DeploymentError       the worker does not exist or does not start
    │   └── PayloadTooLargeError  over a limit of the platform; not executed
    ├── InvalidStateError         a task has no outcome yet
    ├── TaskTimeoutError          the task ran out of time; also a TimeoutError
    ├── TaskCancelledError        the task was cancelled before it had an outcome
    ├── SerializationError        a function, argument or result cannot travel
    ├── VersionMismatchError      driver and worker run different versions
    ├── RemoteError               stands in for an exception that cannot be rebuilt here
    └── IntegrityError            bytes are truncated, altered or signed by someone else

A task that raises ends with its own exception, not with one of these. A library's
exception, where there is one, is always `__cause__`. Instances survive pickling,
because they cross from worker to driver.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager


class WrenError(Exception):
    """Base class: ``except WrenError`` catches all of wren and none of your code."""

    def __reduce__(self) -> tuple[object, ...]:
        # BaseException pickles only args; what subclasses add travels as state.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    cls: type[WrenError], args: tuple[object, ...], state: dict[str, object]
) -> WrenError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(WrenError):
    """A setting or an argument is wrong, or an optional package is missing."""


class CredentialsError(ConfigurationError):
    """Credentials are missing, expired or lack a permission; the message says which."""


class StorageError(WrenError):
    """A store refused or failed an operation.

    Attributes:
        store: Name of the adapter, such as ``"s3"``.
        key: The key concerned, or ``""`` when there is none.
    """

    def __init__(self, message: str = "", *, store: str = "", key: str = "") -> None:
        super().__init__(message)
        self.store = store
        self.key = key

    def __str__(self) -> str:
        where = f"{self.store}:{self.key}" if self.key else self.store
        return ": ".join(part for part in (where, *map(str, self.args)) if part)


class KeyNotFoundError(StorageError, KeyError):
    """No object has this key."""


class KeyExistsError(StorageError):
    """`Storage.put` with ``if_absent=True`` found an object already there."""


class AccessDeniedError(StorageError, CredentialsError):
    """Credentials are missing, wrong or expired, or a permission is denied.

    The message names the setting to change or the permission to grant. Never raised for
    an object that is absent, unless the store itself hides the difference.
    """


class UnsupportedError(StorageError):
    """The store lacks the capability; trying again cannot help."""


class TransientError(StorageError):
    """The store may accept the same call later."""


class ComputeError(WrenError):
    """The platform refused or failed an invocation.

    Attributes:
        may_have_run: False when the request certainly did not reach user code, so
            that sending it again cannot execute anything twice.
    """

    may_have_run = False


class ThrottledError(ComputeError):
    """The platform is at its limit. Nothing was executed.

    Attributes:
        retry_after: Seconds the platform asked to wait, or None.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class WorkerLostError(ComputeError):
    """The worker died or its answer was lost. The task may have been executed.

    Attributes:
        exit_code: The process's exit code; negative for a signal; None if unknown.
        output: The tail of what the worker wrote to its standard streams.
    """

    may_have_run = True

    def __init__(
        self, message: str = "", *, exit_code: int | None = None, output: str = ""
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.output = output


class DeploymentError(ComputeError):
    """The worker is missing, does not start, or lacks a module that is needed."""


class PayloadTooLargeError(ComputeError):
    """A request or response exceeds the platform's limit and could not be spilled."""


class InvalidStateError(WrenError):
    """`Future.result` or `Future.exception` of a task that has no outcome yet."""


class TaskTimeoutError(WrenError, TimeoutError):
    """The task did not finish within its ``timeout``; it was stopped."""


class TaskCancelledError(WrenError):
    """The task was cancelled before it had an outcome.

    An ordinary exception on every event loop: whoever awaits a task that somebody else
    cancelled is not being cancelled itself.
    """


class SerializationError(WrenError):
    """Something cannot be pickled or unpickled; the message names the attribute."""


class VersionMismatchError(WrenError):
    """Driver and worker differ in a way that makes pickles unsafe; names both sides."""


class RemoteError(WrenError):
    """Stands in for a task's exception that cannot be rebuilt in this process.

    Attributes:
        type_name: Qualified name of the exception's class on the worker.
        message: Its text.
        traceback: The worker's traceback as text.
    """

    def __init__(
        self, type_name: str = "", message: str = "", traceback: str = ""
    ) -> None:
        super().__init__(type_name, message, traceback)
        self.type_name = type_name
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


class IntegrityError(WrenError):
    """Bytes are truncated or altered, or carry a foreign signature. Never unpickled."""


@contextmanager
def translate(
    classify: Callable[[Exception], type[StorageError]],
    expected: tuple[type[Exception], ...],
    store: str,
    key: str = "",
) -> Generator[None]:
    """Raise wren's exception in place of a library's.

    Args:
        classify: Chooses wren's class for one of the library's exceptions.
        expected: What to translate. Anything else passes through untouched, so a
            bug in an adapter keeps its own traceback and its own type.
        store: Recorded on the raised error.
        key: Recorded on the raised error.

    Raises:
        StorageError: Of the class chosen, with the original as `__cause__`.
    """
    try:
        yield
    except expected as exc:
        raise classify(exc)(str(exc), store=store, key=key) from exc
