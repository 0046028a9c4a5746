"""The contracts an adapter fulfils. Importing this module imports no cloud library."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol, TypeAlias, runtime_checkable

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Contiguous bytes. A memoryview here has format ``"B"`` and one dimension."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What a listing says about one object."""

    key: str
    """Full key, never relative to the listed prefix."""

    size: int
    """Length in bytes."""

    modified: datetime
    """Time of last write, timezone-aware UTC; stores round it to a second."""

    etag: str
    """Opaque; differs whenever the content differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One request on one object, authorised in advance, for whoever holds it.

    A worker needs neither a credential nor a cloud library to use it: the standard
    library's HTTP client is enough, or plain file access where the URL is ``file:``.
    `repr` leaves out the query string and the headers, because they are the secret.
    """

    method: Literal["GET", "PUT"]
    url: str = field(repr=False)
    """``https:``, ``http:`` (emulators on loopback) or ``file:``."""

    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """To be sent as they are; the signature may cover them."""

    expires: float = math.inf
    """Seconds since the epoch after which the store refuses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageCapabilities:
    """What a store can do. A capability it lacks is refused with `UnsupportedError`."""

    conditional_put: bool = True
    """``put(if_absent=True)``, decided by the store."""

    grants: bool = True
    """`Storage.grant`."""

    conditional_grants: bool = True
    """``grant(method="PUT", if_absent=True)``: the grant keeps the condition."""

    private: bool = False
    """Only this user's processes can reach the objects, so that nothing read from the
    store needs to be verified. True only where the operating system guarantees it."""


class Storage(Protocol):
    """A flat map from keys to immutable byte strings.

    The interface follows object stores, not file systems: no directories, no append,
    no rename. A method not listed here is not portable across the three clouds.

    Guarantees, each checked in ``tests/storage/test_contract.py``:

    * A put is atomic. Readers see the whole old object or the whole new one, also when
      the writer dies in the middle.
    * A get, head or listing that starts after a put or delete has returned sees it.
    * Cancelling a call leaves the store usable; a cancelled put either happened
      entirely or not at all.
    * The caller's buffers are not kept after a call has returned.
    * No call blocks the event loop, and any number may run at once.

    Keys are ``/``-separated and 1 to 1024 bytes long in UTF-8, the limit of [S3] and
    [GCS]. A key with an empty, ``.`` or ``..`` segment, a leading or trailing slash, a
    control character or a lone surrogate is refused with `ValueError` before anything
    is sent; `wren.storage.keys.check_key` is the rule.

    [S3]: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
    [GCS]: https://cloud.google.com/storage/docs/objects#naming
    """

    @property
    def name(self) -> str:
        """The adapter's name in errors and reports, such as ``"s3"``."""
        ...

    @property
    def capabilities(self) -> StorageCapabilities:
        """What this store can do."""
        ...

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """Return an object's bytes in the half-open range ``[start, stop)``.

        Args:
            key: The object.
            start: First byte, counted from 0.
            stop: One past the last byte; None or anything beyond the end means the
                end. A range that lies wholly beyond the end is ``b""``.

        Raises:
            KeyNotFoundError: No such object.
            ValueError: ``start`` is negative or ``stop < start``; nothing was sent.
        """
        ...

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """Store an object, replacing any other under the same key.

        Args:
            key: The object.
            data: The whole content.
            if_absent: Write only when nothing is there. The store decides, so exactly
                one of any number of concurrent callers succeeds.

        Raises:
            KeyExistsError: ``if_absent`` and the key is taken.
            UnsupportedError: ``if_absent`` and the store has no conditional writes.
        """
        ...

    async def head(self, key: str) -> ObjectInfo:
        """Describe an object without reading it.

        Raises:
            KeyNotFoundError: No such object.
        """
        ...

    async def delete(self, keys: Iterable[str]) -> None:
        """Remove objects. Removing one that is not there succeeds.

        Raises:
            TypeError: ``keys`` is a single string; nothing was deleted.
        """
        ...

    def list(
        self, prefix: str = "", *, start_after: str = ""
    ) -> AsyncIterator[ObjectInfo]:
        """Yield every object whose key starts with ``prefix``, in UTF-8 byte order.

        ``prefix`` is compared byte by byte: ``"a"`` matches ``"a/x"`` and ``"ab"``. An
        object that exists throughout is never missed.

        Args:
            prefix: What the keys begin with.
            start_after: Yield only keys greater than this one.
        """
        ...

    async def grant(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        *,
        expires_in: float,
        if_absent: bool = False,
    ) -> Grant:
        """Authorise one request on one object for somebody without credentials.

        A ``file:`` grant is a path: its expiry and condition are kept by `wren.grants`,
        not by the file system.

        Args:
            key: The object.
            method: What the holder may do.
            expires_in: Seconds from now for which it is valid.
            if_absent: The PUT succeeds only when nothing is there. The condition is
                part of the authorisation: the holder cannot leave it out.

        Raises:
            UnsupportedError: The store cannot make such a grant.
        """
        ...

    async def aclose(self) -> None:
        """Release connections. Idempotent; any other call afterwards is an error."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a platform allows. Dispatch stays within; the adapter refuses the rest."""

    concurrency: int
    """Most invocations in flight."""

    request_bytes: float = math.inf
    """Largest request, as wren counts it: before any encoding by the adapter."""

    response_bytes: float = math.inf
    """Largest response, counted likewise."""

    seconds: float = math.inf
    """The platform ends an invocation after this long."""

    direct_seconds: float = math.inf
    """The platform may drop the connection after this long while the function goes on.
    Tasks that may take longer commit their response to storage."""

    start_seconds: float = 60.0
    """How long a worker may take from request to running (a cold start)."""

    queue: int = 0
    """Requests that the adapter takes beyond ``concurrency`` and holds ready, so that a
    worker that becomes free need not wait for the driver. They have not started."""

    lossless: bool = False
    """A response can only be lost with its worker, so committing protects nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """What a deployed worker runs; compared with the driver before anything is sent."""

    python: str
    """``"3.11"``: pickled code does not survive a change of the minor version."""

    wren: str
    cloudpickle: str

    name: str = ""
    """The deployed function, or another name a person can look up."""


@runtime_checkable
class Compute(Protocol):
    """Runs requests on workers: one request, one response, one execution.

    Guarantees:

    * `invoke` executes a request at most once and never retries by itself.
    * Cancelling `invoke` before the request was sent means it is not executed;
      cancelling it afterwards returns promptly, and the worker is stopped where that is
      possible.
    * After `aclose` no process, socket, thread or temporary file is left.
    """

    @property
    def name(self) -> str:
        """The adapter's name in errors and statistics, such as ``"aws"``."""
        ...

    @property
    def limits(self) -> Limits:
        """What the platform allows. Constant after `prepare`."""
        ...

    async def prepare(self) -> WorkerInfo:
        """Find or deploy a matching function and say what it runs. Idempotent.

        Raises:
            CredentialsError: Not allowed to.
            DeploymentError: There is none and it cannot be made.
        """
        ...

    async def invoke(
        self,
        request: Sequence[Buffer],
        *,
        timeout: float,  # noqa: ASYNC109  # the adapter's clock
    ) -> Buffer:
        """Send one request to one worker and return its response.

        Args:
            request: The parts of one envelope, to be sent one after the other. They
                are not joined, so that large arrays need not be copied.
            timeout: Seconds from being sent until the response; ``inf`` for none. Time
                spent waiting for a free worker (`Limits.queue`) does not count.

        Raises:
            ThrottledError: Not executed: the platform is at its limit.
            ComputeError: Not executed: the connection failed, or another cause.
            DeploymentError: Not executed: no such function, or it does not start.
            PayloadTooLargeError: Not executed, or the response did not fit.
            WorkerLostError: May have been executed: the worker died, the connection was
                reset, or the answer was no envelope.
            TaskTimeoutError: ``timeout`` passed. The worker was stopped if possible.
        """
        ...

    async def aclose(self) -> None:
        """Stop workers and release connections. Idempotent."""
        ...


@runtime_checkable
class HasStorage(Protocol):
    """What a `Compute` may offer besides: a store that needs no configuration."""

    def open_storage(self) -> Storage:
        """Return the store, for when none is configured. Does no I/O by itself."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One deployed function."""

    name: str
    info: WorkerInfo
    created: datetime
    size: int
    """Bytes of the archive."""


class Deployer(Protocol):
    """Puts functions on a platform. Separate: a driver need not have the right."""

    async def deploy(self) -> Deployment:
        """Create the function this configuration asks for; unchanged, do nothing."""
        ...

    def list(self) -> AsyncIterator[Deployment]:
        """Yield every function that wren has deployed."""
        ...

    async def remove(self, name: str) -> None:
        """Delete a function. Removing one that is not there succeeds."""
        ...

    def logs(self, name: str) -> AsyncIterator[str]:
        """Yield the function's recent log lines, oldest first."""
        ...


@runtime_checkable
class HasDeployer(Protocol):
    """What a `Compute` offers besides, where functions have to be deployed."""

    def open_deployer(self) -> Deployer:
        """Return the deployer, which shares this adapter's connections.

        Does no I/O by itself. What the deployer opens is released by
        `Compute.aclose`.
        """
        ...
