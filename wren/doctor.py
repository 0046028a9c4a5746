"""Checks of a set-up: whether it works, and how to mend what does not.

An adapter may have checks of its own, for credentials, permissions and what is
deployed: see `Diagnosable`.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from importlib.metadata import version
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, runtime_checkable

import anyio
from anyio import to_thread

import wren
from wren import grants, registry
from wren.config import Settings, load, mask_url
from wren.errors import (
    ComputeError,
    ConfigurationError,
    CredentialsError,
    KeyExistsError,
    KeyNotFoundError,
    StorageError,
    TransientError,
    UnsupportedError,
    VersionMismatchError,
    WrenError,
)
from wren.protocols import Compute, Storage
from wren.spill import JOBS
from wren.worker import versions

_SECONDS: Final = 120.0
"""A check that takes longer has failed. A first deployment fits in."""

_PROBE: Final = b"wren doctor was here"


class Result(NamedTuple):
    """How one check ended."""

    name: str
    ok: bool
    detail: str
    """What was found."""

    fix: str = ""
    """What to do about it; empty if nothing is wrong."""


@runtime_checkable
class Diagnosable(Protocol):
    """What a `Compute` or a `Storage` may offer besides its own protocol."""

    def diagnose(self) -> AsyncIterator[Result]:
        """Yield the results of checks that only this adapter can make.

        They change nothing. A failure is a result, not an exception.
        """
        ...


class _Patient:
    """What is examined. Later checks use what earlier ones have opened."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.key = f"{JOBS}doctor-{secrets.token_hex(8)}/probe"
        self.compute: Compute | None = None
        self.storage: Storage | None = None

    def open_compute(self) -> Compute:
        if self.compute is None:
            self.compute = registry.open_compute(self.settings.backend, self.settings)
        return self.compute

    def open_storage(self) -> Storage:
        if self.storage is None:
            self.storage = registry.storage_for(self.settings, self.open_compute)
        return self.storage

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True):
            for opened in (self.storage, self.compute):
                if opened is not None:
                    await opened.aclose()


async def examine(**arguments: Any) -> AsyncGenerator[Result, None]:
    """Yield the result of each check, as soon as it is there.

    Checks that build upon one that failed are left out.

    Args:
        **arguments: As for `wren.config.load`.
    """
    yield Result("versions", True, _versions())
    try:
        settings = load(**arguments)
    except ConfigurationError as exc:
        yield Result("configuration", False, str(exc), _fix(exc))
        return
    yield Result("configuration", True, _summary(settings))
    patient = _Patient(settings)
    try:
        for checks in (_STORAGE, _BACKEND):
            for name, check, fix in checks:
                result = await _try(name, check(patient), fix)
                yield result
                if not result.ok:
                    break
        for adapter in (patient.storage, patient.compute):
            if isinstance(adapter, Diagnosable):
                async for result in adapter.diagnose():
                    yield result
    finally:
        await patient.aclose()


def _versions() -> str:
    python, ours, cloudpickle = versions()
    theirs = f"cloudpickle {cloudpickle}, anyio {version('anyio')}"
    return f"Python {python}, wren {ours}, {theirs}"


def _summary(settings: Settings) -> str:
    url = settings.storage
    return f"backend {settings.backend}, storage {mask_url(url) if url else 'its own'}"


async def _try(name: str, check: Awaitable[str], fix: str) -> Result:
    try:
        with anyio.fail_after(_SECONDS):
            return Result(name, True, await check)
    except UnsupportedError as exc:  # refused, as it should be
        return Result(name, True, f"not supported: {exc}")
    except WrenError as exc:
        return Result(name, False, str(exc), _fix(exc) or fix)
    except TimeoutError:
        return Result(name, False, f"no answer within {_SECONDS:g} s", fix)


def _fix(exc: WrenError) -> str:
    if isinstance(exc, CredentialsError):
        return "log in again, or grant what the message names"
    if isinstance(exc, ConfigurationError):
        return "correct the setting; its source is in: wren config"
    if isinstance(exc, TransientError):
        return "try again; if it stays, look at the network and the service's status"
    return ""


async def _put_and_get(patient: _Patient) -> str:
    storage = patient.open_storage()
    await storage.put(patient.key, _PROBE)
    info = await storage.head(patient.key)
    whole = await storage.get(patient.key)
    part = await storage.get(patient.key, start=2, stop=4)
    if (info.size, whole, part) != (len(_PROBE), _PROBE, _PROBE[2:4]):
        raise StorageError("what was read is not what was written", store=storage.name)
    return storage.name


async def _put_if_absent(patient: _Patient) -> str:
    storage = patient.open_storage()
    try:
        await storage.put(patient.key, b"", if_absent=True)
    except KeyExistsError:
        return "an object that exists is kept"
    raise StorageError("if_absent replaced an object that exists", store=storage.name)


async def _list(patient: _Patient) -> str:
    storage = patient.open_storage()
    keys = [info.key async for info in storage.list(patient.key)]
    if keys != [patient.key]:
        raise StorageError("a listing lacks what was written", store=storage.name)
    return "a new object is in it"


async def _grant(patient: _Patient) -> str:
    storage = patient.open_storage()
    grant = await storage.grant(patient.key, "GET", expires_in=_SECONDS)
    data = await to_thread.run_sync(grants.fetch, grants.to_json(grant))
    if data != _PROBE:
        raise StorageError("a grant read something else", store=storage.name)
    return "an object can be read without credentials"


async def _delete(patient: _Patient) -> str:
    storage = patient.open_storage()
    await storage.delete([patient.key])
    try:
        await storage.head(patient.key)
    except KeyNotFoundError:
        return "a deleted object is gone"
    raise StorageError("a deleted object is still there", store=storage.name)


async def _start(patient: _Patient) -> str:
    compute = patient.open_compute()
    info = await compute.prepare()
    theirs = [info.python, info.wren, info.cloudpickle]
    if theirs != versions():
        raise VersionMismatchError(
            f"{info.name} has Python, wren, cloudpickle {', '.join(theirs)}"
        )
    return f"{info.name}, {compute.limits.concurrency} at a time"


async def _run(patient: _Patient) -> str:
    def add(first: int, second: int) -> int:  # nested: so it travels whole
        return first + second

    compute = patient.open_compute()
    async with wren.Executor(backend=compute, storage=patient.storage) as executor:
        answer = await executor.submit(add, 40, 2)
    if answer != 42:
        raise ComputeError(f"40 + 2 was answered with {answer!r}")
    return "a function was called and has answered"


_Check: TypeAlias = tuple[str, Callable[[_Patient], Awaitable[str]], str]

_STORAGE: Final[tuple[_Check, ...]] = (
    ("storage: put and get", _put_and_get, "see what the store's own tools say to it"),
    (
        "storage: put if absent",
        _put_if_absent,
        "take a store with conditional writes: results could be overwritten",
    ),
    ("storage: list", _list, "take a store that lists what was just written"),
    (
        "storage: grant",
        _grant,
        "see whether the URL can be reached from here and the credentials are right",
    ),
    ("storage: delete", _delete, "look for versioning, retention or legal holds"),
)
_BACKEND: Final[tuple[_Check, ...]] = (
    ("backend: start", _start, "deploy again, with this Python and this wren"),
    ("backend: call", _run, "look at the logs of the function"),
)
