"""Requests authorised in advance: signed URLs, and tokens where nobody can sign."""

from __future__ import annotations

import math
import time
from datetime import UTC, timedelta
from typing import Final, Literal, NamedTuple
from urllib.parse import quote

from google.auth import compute_engine, downscoped
from google.auth.credentials import Credentials, Signing

from wren.errors import AccessDeniedError, TransientError, UnsupportedError
from wren.protocols import Grant
from wren.storage.gcs_bucket import Bucket
from wren.storage.gcs_connection import Connected
from wren.storage.gcs_errors import explained
from wren.storage.gcs_faults import NAME

_LONGEST: Final = 7 * 24 * 3600
"""Seconds: https://cloud.google.com/storage/docs/access-control/signed-urls."""

_ONCE: Final = {"x-goog-if-generation-match": "0"}
_READER: Final = "inRole:roles/storage.objectViewer"
_CREATOR: Final = "inRole:roles/storage.objectCreator"
_WRITER: Final = "inRole:roles/storage.objectUser"


def make_grant(
    bucket: Bucket,
    name: str,
    key: str,
    method: Literal["GET", "PUT"],
    *,
    seconds: float,
    if_absent: bool,
) -> Grant:
    """Authorise one request; see `GcsStorage.grant`. Blocks.

    Args:
        bucket: Where the object is.
        name: Its full name.
        key: For errors.
        method: What may be done.
        seconds: For how long, from now.
        if_absent: Only if there is no object.
    """
    connection = bucket.connection
    connected = connection.get()
    if connected.anonymous:
        raise AccessDeniedError(
            "without credentials nothing can be granted: set"
            " GOOGLE_APPLICATION_CREDENTIALS",
            store=NAME,
            key=key,
        )
    wanted = _Wanted(
        bucket.name,
        name,
        key,
        method,
        dict(_ONCE) if method == "PUT" and if_absent else {},
    )
    if connection.may_sign and can_sign(connected.credentials):
        try:
            return _signed(connected, wanted, seconds)
        except AccessDeniedError:
            if isinstance(connected.credentials, Signing):
                raise
            # The service account of this machine may lack the permission to sign for
            # itself. It does not come by and by, so this is not tried again.
            connection.may_sign = False
    return _by_token(connected, wanted)


class _Wanted(NamedTuple):
    """What is to be granted."""

    bucket: str
    name: str
    key: str
    method: Literal["GET", "PUT"]
    headers: dict[str, str]


def _signed(connected: Connected, wanted: _Wanted, seconds: float) -> Grant:
    valid = max(1, math.ceil(seconds))
    if valid > _LONGEST:
        text = "a signed URL is valid for seven days at most"
        raise UnsupportedError(text, store=NAME, key=wanted.key)
    signer: dict[str, str] = {}
    if isinstance(connected.credentials, compute_engine.Credentials):
        signer = {
            "service_account_email": connected.credentials.service_account_email,
            "access_token": connected.credentials.token or "",
        }
    blob = connected.client.bucket(wanted.bucket).blob(wanted.name)
    expires = time.time() + valid
    with explained(wanted.bucket, wanted.key):
        url = blob.generate_signed_url(
            timedelta(seconds=valid),
            method=wanted.method,
            headers=dict(wanted.headers),  # the client adds to it
            version="v4",
            **signer,
        )
    return Grant(method=wanted.method, url=url, headers=wanted.headers, expires=expires)


def _by_token(connected: Connected, wanted: _Wanted) -> Grant:
    # Who may create, but not delete, cannot replace an object either.
    writer = _CREATOR if wanted.headers else _WRITER
    role = _READER if wanted.method == "GET" else writer
    resource = f"projects/_/buckets/{wanted.bucket}"
    path = f"{resource}/objects/{wanted.name}"
    quoted = path.replace("\\", r"\\").replace("'", r"\'")
    rule = downscoped.AccessBoundaryRule(
        f"//storage.googleapis.com/{resource}",
        [role],
        downscoped.AvailabilityCondition(f"resource.name.startsWith('{quoted}')"),
    )
    narrow = downscoped.Credentials(
        connected.credentials, downscoped.CredentialAccessBoundary([rule])
    )
    with explained(wanted.bucket, wanted.key):
        narrow.refresh(connected.auth)
    if narrow.token is None or narrow.expiry is None:
        raise TransientError("no token was issued", store=NAME, key=wanted.key)
    address = f"{wanted.bucket}/{quote(wanted.name, safe='/~')}"
    return Grant(
        method=wanted.method,
        url=f"{connected.client.api_endpoint}/{address}",
        headers=wanted.headers | {"Authorization": f"Bearer {narrow.token}"},
        expires=narrow.expiry.replace(tzinfo=UTC).timestamp(),
    )


def can_sign(credentials: Credentials) -> bool:
    """Say whether there is a key to sign with, or a service that may be asked to."""
    return isinstance(credentials, Signing | compute_engine.Credentials)
