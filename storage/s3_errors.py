"""What S3 and its client say, in wren's errors, with what to do about it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import aiohttp
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from wren.errors import (
    AccessDeniedError,
    KeyExistsError,
    KeyNotFoundError,
    StorageError,
    TransientError,
    UnsupportedError,
)
from wren.storage.location import Location

NAME: Final = "s3"

_EXPECTED: Final = (
    boto.BotoCoreError,
    boto.ClientError,
    ResponseParserError,
    aiohttp.ClientError,  # from the body of an answer; so is the next
    TimeoutError,
)

# S3's codes, not HTTP's: one status stands for many causes. A HEAD is answered without
# a body, and then the status is all there is.
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_CODES: Final[Mapping[str, type[StorageError]]] = {
    "404": KeyNotFoundError,
    "NoSuchKey": KeyNotFoundError,
    "412": KeyExistsError,
    "PreconditionFailed": KeyExistsError,
    "501": UnsupportedError,
    "NotImplemented": UnsupportedError,
    "408": TransientError,
    "429": TransientError,
    "500": TransientError,
    "502": TransientError,
    "503": TransientError,
    "504": TransientError,
    "BadDigest": TransientError,  # the body was altered on its way
    "BandwidthLimitExceeded": TransientError,
    # Another conditional write of this key is in flight, and may yet fail.
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
    "ConditionalRequestConflict": TransientError,
    "IncompleteBody": TransientError,
    "InternalError": TransientError,
    "OperationAborted": TransientError,
    "RequestThrottled": TransientError,
    "RequestTimeout": TransientError,
    "ServiceUnavailable": TransientError,
    "SlowDown": TransientError,
    "Throttling": TransientError,
    "ThrottlingException": TransientError,
    "TooManyRequests": TransientError,
    "XAmzContentChecksumMismatch": TransientError,
    "XAmzContentSHA256Mismatch": TransientError,
}

_LOG_IN: Final = "the session has expired: log in again, or renew AWS_SESSION_TOKEN"
_CREDENTIALS: Final[Mapping[str, str]] = {
    "AuthFailure": "the credentials are not accepted: check AWS_PROFILE",
    "ExpiredToken": _LOG_IN,
    "ExpiredTokenException": _LOG_IN,
    "InvalidAccessKeyId": "no such access key: check AWS_ACCESS_KEY_ID or AWS_PROFILE",
    "InvalidClientTokenId": "no such access key: check AWS_ACCESS_KEY_ID",
    "InvalidToken": "check AWS_SESSION_TOKEN: it belongs to one pair of keys",
    "NotSignedUp": "the account has no S3",
    "RequestExpired": "this machine's clock is wrong: set it",
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    "SignatureDoesNotMatch": (
        "the secret key is wrong: check AWS_SECRET_ACCESS_KEY or AWS_PROFILE"
    ),
    "TokenRefreshRequired": _LOG_IN,
}

_REGION: Final = frozenset(
    {
        "301",
        "307",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
        "Redirect",
        "TemporaryRedirect",
    }
)

_PERMISSIONS: Final[Mapping[str, str]] = {
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "CompleteMultipartUpload": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "GetObject": "s3:GetObject",
    "HeadBucket": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "PutObject": "s3:PutObject",
    "UploadPart": "s3:PutObject",
}
_OF_BUCKET: Final = frozenset({"s3:GetLifecycleConfiguration", "s3:ListBucket"})

_KEYS: Final = "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_LOCAL: Final[tuple[tuple[type[boto.BotoCoreError], str], ...]] = (
    (boto.NoCredentialsError, f"no credentials found: set {_KEYS}"),
    (boto.NoAuthTokenError, f"no credentials found: set {_KEYS}"),
    (boto.PartialCredentialsError, f"half of the credentials is missing: set {_KEYS}"),
    (boto.ProfileNotFound, "no such profile in ~/.aws/config: check AWS_PROFILE"),
    (boto.SSOError, "the login has expired: aws sso login"),
    (boto.LoginError, "the login has expired: aws login"),
    (boto.TokenRetrievalError, "the login has expired: aws sso login"),
    (boto.RefreshWithMFAUnsupportedError, "the session has expired: log in again"),
    (
        boto.CredentialRetrievalError,
        "the credentials that AWS_PROFILE or the role stands for cannot be had",
    ),
)

_PASSING: Final = (
    boto.ConnectionError,
    boto.FlexibleChecksumError,
    boto.HTTPClientError,
    boto.IncompleteReadError,
    ResponseParserError,
    aiohttp.ClientError,
    TimeoutError,
)


class _Answer(NamedTuple):
    """An error as S3 sends it."""

    operation: str
    code: str
    message: str
    status: int
    region: str
    """Where the bucket is, if S3 says so."""

    @classmethod
    def of(cls, exc: boto.ClientError) -> _Answer:
        error: Mapping[str, Any] = exc.response.get("Error", {})
        about: Mapping[str, Any] = exc.response.get("ResponseMetadata", {})
        headers: Mapping[str, str] = about.get("HTTPHeaders", {})
        return cls(
            exc.operation_name,
            str(error.get("Code", "")),
            str(error.get("Message", "")),
            int(about.get("HTTPStatusCode", 0)),
            str(error.get("Region") or headers.get("x-amz-bucket-region", "")),
        )


@contextmanager
def explained(location: Location, region: str = "", key: str = "") -> Generator[None]:
    """Raise wren's exception in place of one of the client's.

    Args:
        location: The bucket and the prefix, for what the message names.
        region: Where requests are sent.
        key: Recorded on the error.

    Raises:
        StorageError: Of the class that fits, with the original as ``__cause__``.
    """
    try:
        yield
    except _EXPECTED as exc:
        raise _explain(exc, location, region, key) from exc


def explain_item(error: Mapping[str, Any], location: Location) -> StorageError:
    """Return the error for one object of a request that deletes many.

    Args:
        error: S3's entry, with ``Key``, ``Code`` and ``Message``.
        location: The bucket and the prefix.
    """
    answer = _Answer(
        "DeleteObjects", str(error.get("Code")), str(error.get("Message", "")), 0, ""
    )
    key = location.relative(str(error.get("Key", "")))
    return _from_answer(answer, location, "", key)


def _explain(exc: Exception, location: Location, region: str, key: str) -> StorageError:
    if isinstance(exc, boto.ClientError):
        return _from_answer(_Answer.of(exc), location, region, key)
    for kind, remedy in _LOCAL:
        if isinstance(exc, kind):
            return AccessDeniedError(remedy, store=NAME, key=key)
    if isinstance(exc, boto.NoRegionError | boto.InvalidRegionError):
        text = "no usable region: set AWS_REGION to where the bucket is"
        return StorageError(text, store=NAME, key=key)
    if isinstance(exc, boto.SSLError) and isinstance(
        exc.kwargs.get("error"), aiohttp.ClientConnectorCertificateError
    ):
        text = "the server's certificate is not accepted: check AWS_CA_BUNDLE"
        return StorageError(text, store=NAME, key=key)
    passing = isinstance(exc, _PASSING)
    return (TransientError if passing else StorageError)(
        _without_url(exc), store=NAME, key=key
    )


def _without_url(exc: Exception) -> str:
    """Describe an exception of the client: the addresses in its text are long."""
    error: object = getattr(exc, "kwargs", {}).get("error")
    text = str(error or exc).partition("\n")[0]
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _from_answer(
    answer: _Answer, location: Location, region: str, key: str
) -> StorageError:
    kind, text = _judge(answer, location, region)
    return kind(f"{answer.operation}: {text}", store=NAME, key=key)


def _judge(
    answer: _Answer, location: Location, region: str
) -> tuple[type[StorageError], str]:
    code, said = answer.code, f"{answer.code} {answer.message}".strip()
    if code == "NoSuchBucket" or (code, answer.operation) == ("404", "HeadBucket"):
        return StorageError, (
            f"there is no bucket {location.bucket!r}: create the bucket or change"
            " WREN_STORAGE"
        )
    elsewhere = answer.status == 400 and answer.region not in {"", region}
    if code in _REGION or elsewhere:
        theirs = answer.region or "its own region"
        return StorageError, (
            f"the bucket {location.bucket!r} is not in {region or 'this region'}:"
            f" set AWS_REGION to {theirs}"
        )
    if code in _CREDENTIALS:
        return AccessDeniedError, f"{code}: {_CREDENTIALS[code]}"
    if code == "400":
        return AccessDeniedError, (
            "refused without a reason, as S3 does when the session has expired:"
            " log in again, or renew AWS_SESSION_TOKEN"
        )
    if answer.status in {401, 403} or code in {"403", "AccessDenied"}:
        return AccessDeniedError, f"{said}; {_wanted(answer.operation, location)}"
    if code in _CODES and (code, answer.operation) != ("404", "GetObject"):
        return _CODES[code], said
    # Only S3's own word tells that it is the key which is absent or taken.
    known = _CODES.get(str(answer.status))
    return TransientError if known is TransientError else StorageError, said


def _wanted(operation: str, location: Location) -> str:
    """Name what is to be allowed."""
    permission = _PERMISSIONS.get(operation)
    if permission is None:  # a request for credentials, such as AssumeRole
        return f"the credentials must be allowed to {operation}"
    resource = f"arn:aws:s3:::{location.bucket}"
    if permission not in _OF_BUCKET:
        resource = f"{resource}/{location.prefix}*"
    text = f"allow {permission} on {resource}"
    if permission == "s3:GetObject":
        # Otherwise S3 says the same of an object that is absent.
        text += f", and s3:ListBucket on arn:aws:s3:::{location.bucket}"
    return text
