"""Presigned URLs: one request on one object, authorised in advance."""

from __future__ import annotations

import math
import time
from datetime import datetime
from typing import Any, Final, Literal

from wren.errors import AccessDeniedError
from wren.protocols import Grant
from wren.storage.s3_connection import Connection

_LONGEST: Final = 7 * 24 * 3600
"""https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html"""


async def grant(
    connection: Connection,
    key: str,
    method: Literal["GET", "PUT"],
    *,
    expires_in: float,
    if_absent: bool,
) -> Grant:
    """Sign one request. Sends nothing, unless credentials are due to be renewed.

    A grant ends with the credentials that signed it, and seven days later at most; its
    ``expires`` says so.

    Raises:
        AccessDeniedError: There are no credentials, or they have expired.
    """
    name = connection.location.full(key)
    opened = await connection.open()
    parameters = {"Bucket": connection.location.bucket, "Key": name}
    headers: dict[str, str] = {}
    if if_absent:
        parameters["IfNoneMatch"] = headers["If-None-Match"] = "*"
    with connection.explained(key):
        if opened.credentials is not None:
            await opened.credentials.get_frozen_credentials()  # renews them when due
        now = math.floor(time.time())  # a signature counts in whole seconds
        wanted = max(math.ceil(min(expires_in, _LONGEST)), 1)
        seconds = min(wanted, _seconds_left(opened.credentials, now))
        if seconds < 1:
            text = "the session has expired: log in again, or renew AWS_SESSION_TOKEN"
            raise AccessDeniedError(text, store="s3", key=key)
        url: str = await opened.client.generate_presigned_url(
            "get_object" if method == "GET" else "put_object",
            parameters,
            ExpiresIn=seconds,
        )
    return Grant(method=method, url=url, headers=headers, expires=now + seconds)


def _seconds_left(credentials: Any, now: int) -> int:
    """Return how long credentials are valid; where nobody knows, longer than a grant.

    Those in AWS_SESSION_TOKEN do not tell when they end.
    """
    ends: datetime | None = getattr(credentials, "_expiry_time", None)
    return _LONGEST if ends is None else math.floor(ends.timestamp()) - now
