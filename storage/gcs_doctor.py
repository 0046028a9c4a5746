"""What `wren doctor` looks at in a bucket. Nothing is changed."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final

from wren.errors import AccessDeniedError, StorageError
from wren.storage.gcs_faults import NAME
from wren.storage.gcs_threads import Threads

if TYPE_CHECKING:
    from wren.doctor import Result
    from wren.storage.gcs_bucket import Bucket

_NEEDED: Final = tuple(
    f"storage.objects.{each}" for each in ("create", "delete", "get", "list")
)


async def diagnose(name: str, threads: Threads) -> AsyncGenerator[Result, None]:
    """Yield what was found; see `wren.doctor.Diagnosable`."""
    from wren.doctor import Result  # which imports most of wren

    try:
        yield Result(f"{NAME}: login", True, await threads.look(_login))
        allowed = await threads.look(lambda bucket: bucket.allowed(_NEEDED))
    except StorageError as exc:
        yield Result(f"{NAME}: bucket", False, str(exc), "do what the message says")
        return
    missing = sorted(set(_NEEDED) - set(allowed))
    yield Result(
        f"{NAME}: permissions",
        not missing,
        f"missing on {name}: {', '.join(missing)}" if missing else name,
        f"grant roles/storage.objectUser on gs://{name}" if missing else "",
    )
    try:
        seconds = await threads.look(lambda bucket: bucket.soft_delete_seconds())
    except AccessDeniedError:  # it takes storage.buckets.get, which nothing else needs
        return
    yield Result(
        f"{NAME}: soft delete",
        not seconds,
        f"deleted objects are kept, and paid for, for {seconds / 86400:g} days"
        if seconds
        else "deleted objects are gone",
        f"gcloud storage buckets update gs://{name} --clear-soft-delete"
        if seconds
        else "",
    )


def _login(bucket: Bucket) -> str:
    from wren.storage.gcs_grants import can_sign  # slow to import

    connected = bucket.connection.get()
    if connected.anonymous:
        return "none, as is enough for an emulator"
    kind = type(connected.credentials)
    grants = "signed URLs" if can_sign(connected.credentials) else "tokens of an hour"
    return f"{kind.__module__}.{kind.__name__}; grants are {grants}"
