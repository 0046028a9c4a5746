"""Requests authorised in advance: signed URLs, and tokens where nobody can sign."""

from __future__ import annotations

import math
import time
from datetime import UTC, timedelta
from typing import Final, Literal
from urllib.parse import quote

from google.auth import compute_engine, downscoped
from google.auth.credentials import Credentials, Signing

from wren.errors import AccessDeniedError, TransientError, UnsupportedError
from wren.protocols import Grant
from wren.storage.gcs_bucket import Bucket
from wren.storage.gcs_connection import Connected
from wren.storage.gcs_errors import NAME, explained

_LONGEST: Final = 7 * 24 * 3600
"""Seconds: https://cloud.google.com/storage/docs/access-control/signed-urls."""

_ONCE: Final = {"x-goog-if-generation-match": "0"}
_READER: Final = "inRole:roles/storage.objectViewer"
_CREATOR: Final = "inRole:roles/storage.objectCreator"
_WRITER: Final = "inRole:roles/storage.objectUser"


class Grants:
    """Makes grants for one bucket. Its methods block; many threads may use it."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._may_sign = True

    def make(
        self,
        name: str,
        key: str,
        method: Literal["GET", "PUT"],
        *,
        seconds: float,
        if_absent: bool,
    ) -> Grant:
        """Authorise one request. See `GcsStorage.grant`.

        Args:
            name: The object's full name.
            key: For errors.
            method: What may be done.
            seconds: For how long, from now.
            if_absent: Only if there is no object.
        """
        connected = self._bucket.connection.get()
        if connected.anonymous:
            raise AccessDeniedError(
                "without credentials nothing can be granted: set"
                " GOOGLE_APPLICATION_CREDENTIALS",
                store=NAME,
                key=key,
            )
        headers = dict(_ONCE) if method == "PUT" and if_absent else {}
        if self._may_sign and can_sign(connected.credentials):
            try:
                return self._signed(connected, name, key, method, seconds, headers)
            except AccessDeniedError:
                if isinstance(connected.credentials, Signing):
                    raise
                # The service account of this machine may lack the permission to sign
                # for itself. It does not come by and by, so this is not tried again.
                self._may_sign = False
        return self._by_token(connected, name, key, method, headers)

    def _signed(
        self,
        connected: Connected,
        name: str,
        key: str,
        method: Literal["GET", "PUT"],
        seconds: float,
        headers: dict[str, str],
    ) -> Grant:
        valid = max(1, math.ceil(seconds))
        if valid > _LONGEST:
            raise UnsupportedError(
                "a signed URL is valid for seven days at most", store=NAME, key=key
            )
        signer: dict[str, str] = {}
        if isinstance(connected.credentials, compute_engine.Credentials):
            signer = {
                "service_account_email": connected.credentials.service_account_email,
                "access_token": connected.credentials.token or "",
            }
        expires = time.time() + valid
        with explained(self._bucket.name, key):
            url = (
                connected.client.bucket(self._bucket.name)
                .blob(name)
                .generate_signed_url(
                    timedelta(seconds=valid),
                    method=method,
                    headers=dict(headers),  # the client adds to it
                    version="v4",
                    **signer,
                )
            )
        return Grant(method=method, url=url, headers=headers, expires=expires)

    def _by_token(
        self,
        connected: Connected,
        name: str,
        key: str,
        method: Literal["GET", "PUT"],
        headers: dict[str, str],
    ) -> Grant:
        # Who may create, but not delete, cannot replace an object either.
        role = _READER if method == "GET" else _CREATOR if headers else _WRITER
        resource = f"projects/_/buckets/{self._bucket.name}"
        path = f"{resource}/objects/{name}".replace("\\", r"\\").replace("'", r"\'")
        narrow = downscoped.Credentials(
            connected.credentials,
            downscoped.CredentialAccessBoundary(
                [
                    downscoped.AccessBoundaryRule(
                        f"//storage.googleapis.com/{resource}",
                        [role],
                        downscoped.AvailabilityCondition(
                            f"resource.name.startsWith('{path}')"
                        ),
                    )
                ]
            ),
        )
        with explained(self._bucket.name, key):
            narrow.refresh(connected.auth)
        if narrow.token is None or narrow.expiry is None:
            raise TransientError("no token was issued", store=NAME, key=key)
        return Grant(
            method=method,
            url=f"{connected.client.api_endpoint}/{self._bucket.name}"
            f"/{quote(name, safe='/~')}",
            headers=headers | {"Authorization": f"Bearer {narrow.token}"},
            expires=narrow.expiry.replace(tzinfo=UTC).timestamp(),
        )


def can_sign(credentials: Credentials) -> bool:
    """Say whether there is a key to sign with, or a service that may be asked to."""
    return isinstance(credentials, Signing | compute_engine.Credentials)
