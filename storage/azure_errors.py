"""What Azure's error codes mean, in one table.

Codes: https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes.
No text of the service is repeated, since it quotes requests: only the code is.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from socket import EAI_NONAME, gaierror
from typing import Any, Final, NamedTuple

import aiohttp
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    IncompleteReadError,
    ServiceRequestError,
    ServiceResponseError,
)

from wren.errors import (
    AccessDeniedError,
    KeyExistsError,
    KeyNotFoundError,
    StorageError,
    TransientError,
    UnsupportedError,
)
from wren.storage.azure_login import ENTRA, Login
from wren.storage.undisturbed import DisturbedError

NAME: Final = "azure"
"""See `Storage.name`."""

_CLOCKS_DIFFER: Final = 300.0  # seconds; the service tolerates 900


class PreconditionError(DisturbedError):
    """The object does not have the ETag that was asked for, or has one at all."""


class _Fault(NamedTuple):
    kind: type[StorageError]
    hint: str = ""
    """What to change. ``{login}``, ``{account}`` and ``{container}`` are filled in."""


_NO_ROLE: Final = (
    "{login} lacks a permission: a role such as 'Storage Blob Data Contributor' on the"
    " account {account} (it takes some minutes to act), or in a SAS the letters racwdl"
)
_REFUSED: Final = "{login} is not accepted: is it complete, current and for {account}?"
_NETWORK: Final = "the account {account} does not take requests from this network"

_FAULTS: Final[dict[str, _Fault]] = {
    # the object
    "BlobNotFound": _Fault(KeyNotFoundError),
    "ResourceNotFound": _Fault(KeyNotFoundError),
    "BlobAlreadyExists": _Fault(KeyExistsError),
    "ConditionNotMet": _Fault(PreconditionError),
    "InvalidBlockList": _Fault(DisturbedError),  # another writer's commit drops blocks
    "LeaseIdMissing": _Fault(StorageError, "somebody holds a lease on the object"),
    "BlobArchived": _Fault(StorageError, "the object is in the archive tier"),
    "BlobImmutableDueToPolicy": _Fault(
        StorageError, "the container {container} has an immutability policy"
    ),
    # the container and the account
    "ContainerNotFound": _Fault(
        StorageError,
        "WREN_STORAGE names a container that does not exist: az storage container"
        " create --account-name {account} --name {container}",
    ),
    "ContainerBeingDeleted": _Fault(
        StorageError,
        "the container {container} is being deleted: wait a minute and create it"
        " again, or name another in WREN_STORAGE",
    ),
    "InvalidResourceName": _Fault(
        StorageError, "WREN_STORAGE names a container that cannot exist: {container}"
    ),
    "InvalidUri": _Fault(
        StorageError, "WREN_STORAGE names a container that cannot exist: {container}"
    ),
    "ResourceTypeMismatch": _Fault(
        StorageError, "{account} is not a general-purpose storage account"
    ),
    "InvalidHeaderValue": _Fault(
        StorageError, "an emulator may need: azurite --skipApiVersionCheck"
    ),
    "FeatureNotYetSupportedForHierarchicalNamespaceAccounts": _Fault(
        UnsupportedError, "{account} has a hierarchical namespace: take one without"
    ),
    # the login
    "AuthenticationFailed": _Fault(AccessDeniedError, _REFUSED),
    "InvalidAuthenticationInfo": _Fault(AccessDeniedError, _REFUSED),
    "NoAuthenticationInformation": _Fault(AccessDeniedError, _REFUSED),
    "AuthorizationPermissionMismatch": _Fault(AccessDeniedError, _NO_ROLE),
    "InsufficientAccountPermissions": _Fault(AccessDeniedError, _NO_ROLE),
    "UnauthorizedBlobOverwrite": _Fault(
        AccessDeniedError, "{login} may create objects but not replace them (w)"
    ),
    "AuthorizationFailure": _Fault(AccessDeniedError, f"{_NO_ROLE}; or {_NETWORK}"),
    "AuthorizationSourceIPMismatch": _Fault(
        AccessDeniedError, "{login} is not valid on this machine's address"
    ),
    "AuthorizationProtocolMismatch": _Fault(
        AccessDeniedError, "{login} is valid with https: only"
    ),
    "AuthorizationServiceMismatch": _Fault(
        AccessDeniedError, "{login} is not for the blob service (ss=b)"
    ),
    "AuthorizationResourceTypeMismatch": _Fault(
        AccessDeniedError, "{login} is not for containers and objects (srt=co)"
    ),
    "KeyBasedAuthenticationNotPermitted": _Fault(
        AccessDeniedError,
        "the account {account} takes no keys: unset {login}, then az login",
    ),
    "PublicAccessNotPermitted": _Fault(AccessDeniedError, _REFUSED),
    "AccountIsDisabled": _Fault(AccessDeniedError, "the account {account} is disabled"),
    # what passes
    "ServerBusy": _Fault(TransientError),
    "OperationTimedOut": _Fault(TransientError),
    "InternalError": _Fault(TransientError),
    "AccountBeingCreated": _Fault(TransientError),
    "Md5Mismatch": _Fault(TransientError),
}

_TRY_AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})


class Errors:
    """Turns the client's exceptions into wren's, for one login and one container."""

    def __init__(self, login: Login, container: str) -> None:
        """Remember what the messages are to name."""
        self._login = login
        self._container = container

    @contextmanager
    def translated(self, key: str = "") -> Generator[None]:
        """Raise wren's exception in place of the client's.

        Raises:
            StorageError: Of the class that fits, with the original as ``__cause__``.
        """
        try:
            yield
        except AzureError as exc:
            raise self._error(exc, key) from exc

    def answer(self, status: int, code: str, key: str = "") -> StorageError:
        """Return the error for an answer of the service.

        Args:
            status: Of HTTP.
            code: The service's own word; empty if there was none.
            key: The key concerned.
        """
        kind, hint = _FAULTS.get(code) or _Fault(_by_status(status))
        if kind is AccessDeniedError and not hint:
            hint = _REFUSED
        said = f"HTTP {status} {code}".rstrip()
        return self._made(kind, f"{said}: {self._fill(hint)}" if hint else said, key)

    def _error(self, exc: AzureError, key: str) -> StorageError:
        if isinstance(exc, ServiceRequestError | ServiceResponseError):
            return self._unreachable(exc, key)
        if isinstance(exc, IncompleteReadError):
            return self._made(TransientError, "the answer was cut short", key)
        # Typed as having no headers, though every transport's answers do.
        response: Any = exc.response if isinstance(exc, HttpResponseError) else None
        if response is not None and (code := code_of(response.headers)):
            error = self.answer(response.status_code, code, key)
            return self._explained(error, response.headers.get("Date"))
        busy = response is not None and response.status_code in _TRY_AGAIN
        if isinstance(exc, ClientAuthenticationError) and not busy:
            return self._made(AccessDeniedError, self._identity(exc), key)
        if response is not None:
            return self.answer(response.status_code, "", key)
        return self._made(StorageError, type(exc).__name__, key)

    def _identity(self, exc: ClientAuthenticationError) -> str:
        """Say that there is no login, or that Entra ID did not accept it."""
        if self._login.source != ENTRA:
            return self._fill(_REFUSED)
        said = str(exc).partition("\n")[0]
        return f"no login to Entra ID; az login, or set AZURE_STORAGE_KEY: {said}"

    def _unreachable(self, exc: AzureError, key: str) -> StorageError:
        cause = exc.inner_exception or exc
        if isinstance(cause, aiohttp.ClientConnectorCertificateError):
            told = "the certificate is not accepted"
            return self._made(StorageError, f"{self._login.endpoint}: {told}", key)
        if isinstance(cause, aiohttp.ClientConnectorDNSError):
            # A name that does not exist, or a network that is down for a moment.
            absent = _is_unknown_name(cause.os_error)
            kind = StorageError if absent else TransientError
            told = (
                f"{self._login.endpoint} is not to be found: is there an account"
                f" {self._login.account}, as WREN_STORAGE says?"
            )
            return self._made(kind, told, key)
        reason = cause.strerror if isinstance(cause, OSError) else ""
        told = f"{type(cause).__name__}: {reason}" if reason else type(cause).__name__
        return self._made(TransientError, f"{self._login.endpoint}: {told}", key)

    def _explained(self, error: StorageError, date: str | None) -> StorageError:
        """Add what the service leaves out when it refuses a login: that it is late."""
        now = time.time()
        told: list[str] = []
        if (end := self._login.sas_expires) is not None and end < now:
            told.append(f"{self._login.source} has expired: make a new one")
        ahead = now - parsedate_to_datetime(date).timestamp() if date else 0.0
        if abs(ahead) > _CLOCKS_DIFFER:
            off = f"{abs(ahead):.0f} s {'fast' if ahead > 0 else 'slow'}"
            told.append(f"this machine's clock is {off}: set it")
        if told and isinstance(error, AccessDeniedError):
            said = "; ".join((str(error.args[0]), *told))
            return self._made(AccessDeniedError, said, error.key)
        return error

    def _fill(self, hint: str) -> str:
        return hint.format(
            login=self._login.source,
            account=self._login.account,
            container=self._container,
        )

    def _made(self, kind: type[StorageError], told: str, key: str) -> StorageError:
        return kind(told, store=NAME, key=key)


def code_of(headers: Mapping[str, str]) -> str:
    """Return the service's word for what went wrong; empty if it has none."""
    return headers.get("x-ms-error-code", "")


def _by_status(status: int) -> type[StorageError]:
    if status in _TRY_AGAIN:
        return TransientError
    if status in {401, 403}:
        return AccessDeniedError
    return {404: KeyNotFoundError, 412: PreconditionError}.get(status, StorageError)


def _is_unknown_name(error: OSError) -> bool:
    return isinstance(error, gaierror) and error.errno == EAI_NONAME
