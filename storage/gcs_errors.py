"""What Google Cloud Storage and its client say, in wren's errors, with the remedy.

No address of a request is repeated: that of an upload session is a secret.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import requests
import urllib3
from google.api_core.exceptions import GoogleAPICallError
from google.auth.exceptions import (
    DefaultCredentialsError,
    GoogleAuthError,
    OAuthError,
    RefreshError,
    TransportError,
)

from wren.errors import (
    AccessDeniedError,
    KeyNotFoundError,
    StorageError,
    TransientError,
)
from wren.storage.gcs_faults import NAME, PreconditionError, TokenRefusedError

_EXPECTED: Final = (
    GoogleAPICallError,
    GoogleAuthError,
    requests.RequestException,
    urllib3.exceptions.HTTPError,  # from the body of an answer
)

_TRY_AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})
# https://cloud.google.com/storage/docs/json_api/v1/status-codes
_LIMITS: Final = frozenset({"rateLimitExceeded", "userRateLimitExceeded"})
_ALTERED: Final = "doesn't match calculated"

_LOG_IN: Final = (
    "run: gcloud auth application-default login; or set GOOGLE_APPLICATION_CREDENTIALS"
    " to the key file of a service account"
)
_SIGN_ROLE: Final = (
    "signing needs roles/iam.serviceAccountTokenCreator on the service account"
)


@contextmanager
def explained(bucket: str, key: str = "") -> Generator[None]:
    """Raise wren's exception in place of one of the client's.

    Args:
        bucket: For what the message names.
        key: Recorded on the error; empty if the request is about no one object.

    Raises:
        StorageError: Of the class that fits, with the original as ``__cause__``.
    """
    try:
        yield
    except _EXPECTED as exc:
        raise explain(exc, bucket, key) from exc


def explain(exc: Exception, bucket: str, key: str = "") -> StorageError:
    """Return the error for one of the client's exceptions; see `explained`."""
    if isinstance(exc, GoogleAPICallError):
        kind, text = _of_answer(exc, bucket, key)
    elif isinstance(exc, GoogleAuthError):
        kind, text = _of_credentials(exc)
    else:
        kind, text = _of_connection(exc)
    return kind(text, store=NAME, key=key)


def _of_answer(
    exc: GoogleAPICallError, bucket: str, key: str
) -> tuple[type[StorageError], str]:
    status = exc.code or 0
    said, reason = _words(exc)
    text = f"HTTP {status}: {said}" if said else f"HTTP {status}"
    if status in _TRY_AGAIN or reason in _LIMITS or _ALTERED in said:
        return TransientError, text
    if status == 404 and (not key or "bucket does not exist" in said):
        return StorageError, (
            f"there is no bucket {bucket!r}: change WREN_STORAGE, or run: gcloud"
            f" storage buckets create gs://{bucket} --uniform-bucket-level-access"
            " --soft-delete-duration=0"
        )
    if status == 404:
        return KeyNotFoundError, text
    if status == 412:
        return PreconditionError, text
    if status == 401:
        return TokenRefusedError, f"{text}; {_LOG_IN}"
    if status == 403:
        return AccessDeniedError, (
            f"{text}; grant roles/storage.objectUser on the bucket: gcloud storage"
            f" buckets add-iam-policy-binding gs://{bucket} --member=ACCOUNT"
            " --role=roles/storage.objectUser"
        )
    return StorageError, text


def _words(exc: GoogleAPICallError) -> tuple[str, str]:
    """Return the service's message and its word for the reason."""
    try:
        answer: Any = exc.response.json() if exc.response is not None else None
        error: Mapping[str, Any] = answer["error"]
        causes: list[Mapping[str, Any]] = error.get("errors") or [{}]
        return str(error.get("message", "")), str(causes[0].get("reason", ""))
    except (ValueError, TypeError, KeyError, AttributeError):
        return "", ""  # not by the service, but by something in between


def _of_credentials(exc: GoogleAuthError) -> tuple[type[StorageError], str]:
    said = str(exc.args[0] if exc.args else "").partition("\n")[0]
    text = f"{type(exc).__name__}: {said}"
    if isinstance(exc, DefaultCredentialsError):
        return AccessDeniedError, f"no usable Google credentials: {said} {_LOG_IN}"
    if isinstance(exc, TransportError) and "signB" in said:
        return AccessDeniedError, f"the signature was refused; {_SIGN_ROLE}"
    if exc.retryable or isinstance(exc.__cause__, TransportError):
        return TransientError, text
    if not isinstance(exc, RefreshError | OAuthError):
        return TransientError, text  # no answer
    if "timeframe" in said:
        return AccessDeniedError, f"this machine's clock is wrong: set it ({said})"
    if "JWT" in said or "account not found" in said:
        return AccessDeniedError, (
            "the key in the file that GOOGLE_APPLICATION_CREDENTIALS names is not"
            f" accepted: make a new one ({said})"
        )
    return AccessDeniedError, f"{text}; {_LOG_IN}"


def _of_connection(exc: Exception) -> tuple[type[StorageError], str]:
    if isinstance(exc, requests.RequestException) and isinstance(exc, ValueError):
        return StorageError, (
            f"{type(exc).__name__}: STORAGE_EMULATOR_HOST must be a URL such as"
            " http://127.0.0.1:9023"
        )
    if isinstance(exc, requests.exceptions.SSLError):
        text = "the server's certificate is not accepted: check REQUESTS_CA_BUNDLE"
        return StorageError, text
    cause = _innermost(exc)
    reason = cause.strerror if isinstance(cause, OSError) else ""
    name = type(cause).__name__
    return TransientError, f"{name}: {reason}" if reason else name


def _innermost(exc: BaseException) -> BaseException:
    while (cause := exc.__cause__ or exc.__context__) is not None:
        exc = cause
    return exc
