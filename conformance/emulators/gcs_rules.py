"""What a request needs, who answers it, and what it is about.

Belongs to `gcs_server`; see there for what may be imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from gcp_storage_emulator.handlers import buckets, objects
from gcp_storage_emulator.storage import Storage

from .gcs_identity import Holder  # noqa: TID251, TID252
from .gcs_messages import RefusalError, Request, Response  # noqa: TID251, TID252
from .gcs_objects import (  # noqa: TID251, TID252
    MemoryStorage,
    compose,
    describe,
    download,
    list_objects,
    resume,
    upload,
)

Handler = Callable[[Request, Response, Storage], object]


class Rule(NamedTuple):
    """What a request to one of the emulator's handlers needs, and who answers it."""

    permission: str
    run: Callable[[Request, Response, MemoryStorage], object]
    reads: bool = False


_RULES: Final[Mapping[Handler, Rule]] = {
    objects.ls: Rule("list", list_objects, reads=True),
    objects.get: Rule("get", describe, reads=True),
    objects.download: Rule("get", download, reads=True),
    objects.insert: Rule("create", objects.insert),
    objects.xml_upload: Rule("create", upload),
    objects.upload_partial: Rule("", resume),
    objects.compose: Rule("create", compose),
    objects.copy: Rule("create", objects.copy),
    objects.rewrite: Rule("create", objects.rewrite),
    objects.delete: Rule("delete", objects.delete),
    objects.patch: Rule("update", objects.patch),
    buckets.get: Rule("buckets.get", buckets.get),
    buckets.test_iam_permissions: Rule("", buckets.test_iam_permissions),
}


def rule_for(handler: Handler) -> Rule:
    """Return the rule; what is none of our business needs an administrator."""
    return _RULES.get(handler) or Rule("buckets.update", handler)


def target(request: Request, handler: Handler) -> tuple[str, str]:
    """Return bucket and name of the object that a request reads or changes.

    The name is empty where the request is about the bucket.
    """
    params = request.params
    if "dest_bucket_name" in params:
        return params["dest_bucket_name"], params["dest_object_id"]
    bucket = params.get("bucket_name", "")
    if handler is objects.insert:
        name = request.argument("name")
        if name is None:
            resource: dict[str, Any] = request.data or {}
            name = resource.get("meta", resource).get("name")
        return bucket, name or ""
    return bucket, params.get("object_id", "")


def authorize(
    holder: Holder, permission: str, bucket: str, name: str, *, exists: bool
) -> None:
    """Refuse what the holder may not do.

    Raises:
        RefusalError: Status 403, or 401 if nobody in particular asks.
    """
    if not permission:
        return
    where = f"{bucket}/objects/{name}" if name else f"{bucket}/"
    needed = [permission if "." in permission else f"objects.{permission}"]
    if permission == "create" and exists:
        needed.append("objects.delete")  # replacing is deleting, too
    for each in needed:
        full = f"storage.{each}"
        if full not in holder.permissions or not where.startswith(holder.within):
            who = holder.email or "Anonymous caller"
            raise RefusalError(
                403 if holder.email else 401,
                f"{who} does not have {full} access to the Google Cloud Storage"
                f" object. Permission '{full}' denied on resource (or it may not"
                " exist).",
                "AccessDenied" if holder.email else "AuthenticationRequired",
            )
