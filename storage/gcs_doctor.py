"""What `wren doctor` looks at in a bucket. Nothing is changed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from wren.errors import AccessDeniedError, StorageError
from wren.storage.gcs_bucket import Bucket
from wren.storage.gcs_connection import TIMEOUTS, Connected
from wren.storage.gcs_errors import NAME, explained
from wren.storage.gcs_grants import can_sign

if TYPE_CHECKING:
    from wren.doctor import Result

T = TypeVar("T")

_NEEDED: Final = tuple(
    f"storage.objects.{each}" for each in ("create", "delete", "get", "list")
)


class Look(Protocol):
    """Makes a request in a thread, and makes it again while the fault may pass."""

    async def __call__(self, call: Callable[[], T]) -> T:
        """Return what the call returns."""
        ...


async def diagnose(bucket: Bucket, look: Look) -> AsyncGenerator[Result, None]:
    """Yield what was found; see `wren.doctor.Diagnosable`."""
    from wren.doctor import Result  # which imports most of wren

    try:
        connected = await look(bucket.connection.get)
        yield Result(f"{NAME}: login", True, _login(connected))
        allowed = await look(partial(_allowed, bucket))
    except StorageError as exc:
        yield Result(f"{NAME}: bucket", False, str(exc), "do what the message says")
        return
    missing = sorted(set(_NEEDED) - set(allowed))
    yield Result(
        f"{NAME}: permissions",
        not missing,
        f"missing on {bucket.name}: {', '.join(missing)}" if missing else bucket.name,
        f"grant roles/storage.objectUser on gs://{bucket.name}" if missing else "",
    )
    try:
        seconds = await look(partial(_soft_delete_seconds, bucket))
    except AccessDeniedError:  # it takes storage.buckets.get, which nothing else needs
        return
    yield Result(
        f"{NAME}: soft delete",
        not seconds,
        f"deleted objects are kept, and paid for, for {seconds / 86400:g} days"
        if seconds
        else "deleted objects are gone",
        f"gcloud storage buckets update gs://{bucket.name} --clear-soft-delete"
        if seconds
        else "",
    )


def _login(connected: Connected) -> str:
    if connected.anonymous:
        return "none, as is enough for an emulator"
    kind = type(connected.credentials)
    grants = "signed URLs" if can_sign(connected.credentials) else "tokens of an hour"
    return f"{kind.__module__}.{kind.__name__}; grants are {grants}"


def _allowed(bucket: Bucket) -> list[str]:
    found = bucket.connection.get().client.bucket(bucket.name)
    with explained(bucket.name):
        return found.test_iam_permissions(_NEEDED, timeout=TIMEOUTS, retry=None)


def _soft_delete_seconds(bucket: Bucket) -> int:
    found = bucket.connection.get().client.bucket(bucket.name)
    with explained(bucket.name):
        found.reload(timeout=TIMEOUTS, retry=None)
    return found.soft_delete_policy.retention_duration_seconds or 0
