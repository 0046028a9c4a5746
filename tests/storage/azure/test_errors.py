"""The client's exceptions that no server on loopback can provoke."""

from __future__ import annotations

import socket
import ssl
from typing import Any, cast

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    ServiceRequestError,
)
from azure.identity import CredentialUnavailableError

from wren.errors import AccessDeniedError, StorageError, TransientError
from wren.storage.azure_errors import Errors
from wren.storage.azure_login import ENTRA, Login

LOGIN = Login(account="acc", endpoint="https://acc.blob.core.windows.net", source=ENTRA)
KEY = ConnectionKey("acc.blob.core.windows.net", 443, True, True, None, None, None)


def translated(exc: AzureError) -> StorageError:
    """Return what becomes of an exception."""
    with (
        pytest.raises(StorageError) as caught,
        Errors(LOGIN, "box").translated("some/key"),
    ):
        raise exc
    assert caught.value.__cause__ is exc
    assert (caught.value.store, caught.value.key) == ("azure", "some/key")
    return caught.value


def unreachable(cause: Exception) -> StorageError:
    """Return what becomes of a request that did not get through."""
    return translated(ServiceRequestError(str(cause), error=cause))


@pytest.mark.parametrize(
    ("number", "kind"),
    [(socket.EAI_NONAME, StorageError), (socket.EAI_AGAIN, TransientError)],
)
def test_an_account_that_does_not_exist_has_no_address(
    number: int, kind: type[StorageError]
) -> None:
    """That is final; a name server that is away is not."""
    cause = socket.gaierror(number, "Name or service not known")

    error = unreachable(aiohttp.ClientConnectorDNSError(KEY, cause))

    assert type(error) is kind
    assert "is there an account acc, as WREN_STORAGE says?" in str(error)


def test_a_bad_certificate_is_final() -> None:
    """Asking again does not make it better, and each time it would be sent a token."""
    cause = ssl.SSLCertVerificationError("self-signed certificate")

    error = unreachable(aiohttp.ClientConnectorCertificateError(KEY, cause))

    assert type(error) is StorageError
    assert "https://acc.blob.core.windows.net: the certificate" in str(error)


def test_no_login_says_how_to_get_one() -> None:
    """The library's advice is long; its first line says what was tried."""
    missing = CredentialUnavailableError("EnvironmentCredential: not set\nVisit https:")

    error = translated(missing)

    assert type(error) is AccessDeniedError
    assert "az login" in str(error)
    assert "EnvironmentCredential: not set" in str(error)
    assert "Visit" not in str(error)


@pytest.mark.parametrize(
    ("status", "kind"), [(400, AccessDeniedError), (503, TransientError)]
)
def test_entra_id_may_refuse_or_be_busy(status: int, kind: type[StorageError]) -> None:
    """Only the second passes."""

    class Answer:
        """As much of an answer as is looked at."""

        status_code = status
        reason = "Reason"
        headers: dict[str, str] = {}  # noqa: RUF012  # never changed

    refused = ClientAuthenticationError("AADSTS700016: no such application")
    refused.response = cast("Any", Answer())

    assert type(translated(refused)) is kind


def test_an_error_that_is_not_known_is_one_of_the_store() -> None:
    """Its text may quote anything, so only its type is told."""
    error = translated(AzureError("SECRET"))

    assert str(error) == "azure:some/key: AzureError"


def test_other_exceptions_pass() -> None:
    """A bug keeps its own type."""
    with pytest.raises(ZeroDivisionError), Errors(LOGIN, "box").translated():
        _ = 1 / 0
