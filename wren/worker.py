"""What a worker does: request bytes in, response bytes out.

The same code runs in a process on this machine and inside a cloud's function. It needs
the standard library and cloudpickle. A request names its function by hash, carries the
tasks' arguments, and is checked before anything in it is unpickled; the response says
for each task how it ended. Whatever a task raises, `Worker.handle` returns.

A request that cannot be carried out is *refused*: none of its tasks has run, and the
response says what is missing, so that the driver can send it.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from wren import __version__, grants, importer, tasks
from wren.envelope import (
    ARGUMENTS,
    REQUEST,
    RESPONSE,
    Buffer,
    Parts,
    decode,
    encode,
    seal,
    size,
)
from wren.errors import (
    IntegrityError,
    SerializationError,
    StorageError,
)
from wren.failures import dump_failure
from wren.retrieval import Blobs, CorruptObjectError, reason, retrieve, verify
from wren.serialize import (
    ANYTHING,
    arrange,
    dump_many,
    dump_result,
    load_many,
    unpack_function,
    writable,
)
from wren.tasks import Outcome, TaskRunner

FUNCTIONS_KEPT: Final = 16
"""How many functions a warm worker remembers."""

_KIB: Final = 1024


def versions() -> list[str]:
    """Return what must agree between driver and worker: Python, wren, cloudpickle."""
    from cloudpickle import __version__ as cloudpickle_version

    return [
        f"{sys.version_info.major}.{sys.version_info.minor}",
        __version__,
        cloudpickle_version,
    ]


class RefusedError(Exception):
    """The request cannot be carried out; nothing of it has run.

    Attributes:
        reason: ``version``, ``integrity`` (of the request), ``function`` (its bytes are
            needed), ``module`` (one is missing), ``unpickle`` (the function) or
            ``argument``; of what is in storage ``grant`` (refused), ``corrupt``,
            ``transient`` or ``storage``.
        detail: What exactly, for the driver or for a person.
        position: Which of the request's tasks an argument belongs to.
    """

    def __init__(self, reason: str, detail: str, position: int = 0) -> None:
        super().__init__(reason, detail, position)
        self.reason = reason
        self.detail = detail
        self.position = position


class Worker:
    """Handles requests one after the other and keeps what later ones may need."""

    def __init__(self, name: str, root: str) -> None:
        """Make a worker.

        Args:
            name: Identifies it in statistics and errors.
            root: A private directory for the modules it receives. The caller owns it.
        """
        self.name = name
        self.retire = False
        """A task was interrupted anywhere: this process should be replaced."""

        self._root = root
        self._functions: OrderedDict[str, Callable[..., Any]] = OrderedDict()
        self._versions = versions()
        self._cold = True
        self._runner = TaskRunner()

    def handle(self, request: Buffer) -> list[Buffer]:
        """Carry out one request.

        Args:
            request: One envelope. Arguments are built over its memory where possible,
                so it must not change afterwards.

        Returns:
            The parts of one envelope. It never raises for anything a request contains.
        """
        began = time.perf_counter()
        header: dict[str, Any] = {
            "worker": self.name,
            "cold": self._cold,
            "started": time.time(),
        }
        self._cold = False
        try:
            asked, buffers = decode(request, REQUEST)
            function, arguments = self._prepare(asked, buffers)
            call = asked["call"]
            reply = _Reply(asked["reply"]) if "reply" in asked else None
        except RefusedError as exc:
            header.update(refused=exc.reason, detail=exc.detail, position=exc.position)
            return encode(RESPONSE, header, [])
        except IntegrityError as exc:
            header.update(refused="integrity", detail=str(exc))
            return encode(RESPONSE, header, [])
        except (KeyError, TypeError, ValueError) as exc:  # no driver wrote it
            header.update(refused="integrity", detail=f"malformed header: {exc!r}")
            return encode(RESPONSE, header, [])
        del buffers
        outcome = self._runner.run(function, call, arguments, asked.get("timeout"))
        self.retire = outcome.retire
        del arguments
        answer = _pack(outcome, header)
        header["output"] = self._runner.output.take()
        header["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
        header["seconds"] = time.perf_counter() - began
        parts = encode(RESPONSE, header, answer)
        return parts if reply is None else reply.commit(parts, header)

    def _prepare(
        self, asked: dict[str, Any], buffers: list[memoryview]
    ) -> tuple[Callable[..., Any], list[Any]]:
        if asked["versions"] != self._versions:
            raise RefusedError("version", ", ".join(self._versions))
        blobs = Blobs(asked.get("blobs", {}))
        carried = asked.get("function_inline", False)
        try:
            function = self._function(asked, buffers[0] if carried else None, blobs)
            return function, _arguments(asked, buffers[carried:], blobs)
        except StorageError as exc:
            raise RefusedError(reason(exc), str(exc)) from exc
        except CorruptObjectError as exc:
            raise RefusedError("corrupt", str(exc)) from exc
        except (RefusedError, IntegrityError):
            raise
        except ModuleNotFoundError as exc:
            raise RefusedError("module", exc.name or str(exc)) from exc
        except BaseException as exc:  # unpickling runs the user's code
            (name, message, text), _ = dump_failure(exc)
            raise RefusedError("unpickle", f"{name}: {message}\n{text}") from exc

    def _function(
        self, asked: dict[str, Any], carried: memoryview | None, blobs: Blobs
    ) -> Callable[..., Any]:
        identity: str = asked["function"]
        known = self._functions.get(identity)
        if known is not None:
            self._functions.move_to_end(identity)
            return known
        data: Buffer
        if carried is not None:
            data = carried
            verify(data, identity)
        elif (grant := asked.get("function_grant")) is not None:
            data = retrieve(grants.fetch, grant, identity)
        else:
            raise RefusedError("function", identity)
        function: Callable[..., Any] = unpack_function(
            writable(data), self._install, blobs.get
        )
        self._functions[identity] = function
        if len(self._functions) > FUNCTIONS_KEPT:
            self._functions.popitem(last=False)
        return function

    def _install(self, bundle: str, archive: memoryview) -> None:
        importer.install(bundle, archive, self._root)


def _arguments(
    asked: dict[str, Any], buffers: list[memoryview], blobs: Blobs
) -> list[Any]:
    spilled = asked.get("arguments")
    if spilled is not None:
        data = retrieve(grants.fetch, spilled["grant"], spilled["sha256"])
        _, buffers = decode(writable(data), ARGUMENTS)
    elif len(buffers) > 2 and buffers[-1].readonly:  # arrays that are to be written to
        buffers = [*buffers[:2], *map(writable, buffers[2:])]
    parts: Sequence[Buffer] = buffers
    layout = asked.get("layout")
    if layout is not None:
        parts = [*buffers[:2], *arrange(layout, buffers[2:], blobs.get)]
    values, failures = load_many(parts, asked.get("each"), caught=ANYTHING)
    if type(values) is not list:  # pyright: ignore[reportUnnecessaryComparison]
        raise IntegrityError("the request's arguments are not a list")
    for position, exc in failures.items():
        if isinstance(exc, ModuleNotFoundError):
            raise exc
        (name, message, text), _ = dump_failure(exc)
        detail = f"{name}: {message}\n{text}"
        raise RefusedError("argument", detail, position) from exc
    return values


def _pack(outcome: Outcome, header: dict[str, Any]) -> list[Parts]:
    """Pickle a request's outcomes and describe them in ``header``."""
    failures = outcome.failures
    many = dump_many(outcome.values, dump_result, caught=ANYTHING)
    if many.failures:
        total = len(outcome.values) + len(failures)
        returned = [position for position in range(total) if position not in failures]
        for n, exc in many.failures.items():
            failures[returned[n]] = _unpicklable(outcome.values[n], exc)
    if many.each is not None:
        header["each"] = many.each
    frames = many.frames
    described: list[list[Any]] = []
    for position in sorted(failures):
        description, pickled = dump_failure(failures[position], inside=tasks.__file__)
        if pickled is not None:
            frames.append([pickled])
        described.append([position, *description, pickled is not None])
    if described:
        header["failures"] = described
    return frames


def _unpicklable(value: object, exc: BaseException) -> BaseException:
    from wren.diagnose import unpicklable

    try:
        return unpicklable(value, exc, what="the result")
    except BaseException:  # noqa: BLE001  # looking closer runs the value's own code
        return SerializationError(f"cannot pickle the result: {type(exc).__name__}")


class _Reply:
    """Where a response is stored that was dear to make, or is too large to be sent."""

    __slots__ = ("_after", "_grant", "_key", "_limit", "_place")

    def __init__(self, asked: dict[str, Any]) -> None:
        self._limit = float(asked["limit"])
        self._after = float(asked["after"])
        self._grant: dict[str, Any] = asked["grant"]
        self._key = bytes.fromhex(asked["key"])
        self._place = str(asked["place"])

    def commit(self, parts: list[Buffer], header: dict[str, Any]) -> list[Buffer]:
        """Store the response if that was asked for; return what is to be sent."""
        fits = size(parts) <= self._limit
        if fits and header["seconds"] < self._after:
            return parts
        try:
            stored = grants.store(self._grant, seal(parts, self._key, self._place))
        except Exception as exc:  # noqa: BLE001  # whatever it is, the tasks have run
            if fits:  # the response itself is intact; only its safety copy is missing
                return parts
            header = {**_identity(header), "refused": "reply", "detail": str(exc)}
            return encode(RESPONSE, header, [])
        if fits and stored == "written":
            return parts
        # Somebody wrote first, or it does not fit: the stored response is the outcome.
        return encode(RESPONSE, {**_identity(header), "stored": stored}, [])


def _identity(header: dict[str, Any]) -> dict[str, Any]:
    return {name: header[name] for name in ("worker", "cold", "started")}
