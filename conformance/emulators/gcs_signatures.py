"""Signed URLs (V4), taken apart and made ready to be verified.

Belongs to `gcs_server`; see there for what may be imported. See also
https://cloud.google.com/storage/docs/authentication/canonical-requests.
"""

from __future__ import annotations

import binascii
import hashlib
import time
from datetime import datetime
from typing import Final, NamedTuple
from urllib.parse import quote

from .gcs_messages import RefusalError, Request  # noqa: TID251, TID252

_LONGEST: Final = 7 * 24 * 3600  # seconds
_ALGORITHM: Final = "GOOG4-RSA-SHA256"


class Signature(NamedTuple):
    """What is claimed to be signed, by whom and for how long."""

    email: str
    message: bytes
    signature: bytes
    made: float
    seconds: int

    @classmethod
    def of(cls, request: Request) -> Signature:
        """Return the signature in a request's query.

        Raises:
            RefusalError: It is malformed; or headers were signed and are not sent, or
                are sent and should have been signed.
        """
        date = request.argument("X-Goog-Date") or ""
        signer = request.argument("X-Goog-Credential") or ""
        email, _, scope = signer.partition("/")
        names = (request.argument("X-Goog-SignedHeaders") or "").split(";")
        digest = hashlib.sha256(_canonical(request, names)).hexdigest()
        try:
            if request.argument("X-Goog-Algorithm") != _ALGORITHM:
                raise ValueError(_ALGORITHM)  # noqa: TRY301  # as malformed as others
            return cls(
                email,
                f"{_ALGORITHM}\n{date}\n{scope}\n{digest}".encode(),
                binascii.unhexlify(request.argument("X-Goog-Signature") or ""),
                datetime.strptime(date, "%Y%m%dT%H%M%S%z").timestamp(),
                int(request.argument("X-Goog-Expires") or ""),
            )
        except ValueError as exc:
            raise RefusalError(400, "Malformed query.") from exc

    def check_time(self) -> None:
        """Refuse what is valid no more, or for too long."""
        if self.seconds > _LONGEST:
            raise RefusalError(400, "X-Goog-Expires is too large.")
        if self.made + self.seconds < time.time():
            raise RefusalError(
                400, "Invalid argument: the URL has expired.", "ExpiredToken"
            )


def _canonical(request: Request, names: list[str]) -> bytes:
    pairs = sorted(
        f"{quote(name, safe='~')}={quote(value, safe='~')}"
        for name, values in request.query.items()
        for value in values
        if name != "X-Goog-Signature"
    )
    payload = "UNSIGNED-PAYLOAD"
    if "x-goog-content-sha256" in names:
        payload = request.get_header("x-goog-content-sha256") or payload
    return "\n".join(
        (
            request.method,
            request.path,
            "&".join(pairs),
            _headers(request, names),
            ";".join(names),
            payload,
        )
    ).encode()


def _headers(request: Request, names: list[str]) -> str:
    for name in map(str.lower, request.headers):
        if name.startswith("x-goog-") and name not in names:
            text = f"{name} is sent, and not signed."
            raise RefusalError(400, text, "MalformedSecurityHeader")
    lines: list[str] = []
    for name in names:
        value = request.get_header(name)
        if value is None:
            text = f"{name} is signed, and not sent."
            raise RefusalError(400, text, "MalformedSecurityHeader")
        lines.append(f"{name}:{' '.join(value.split())}\n")
    return "".join(lines)
