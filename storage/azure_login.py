"""Who logs in to a storage account, and where it answers: by Azure's own variables.

Looked at in this order, as Azure's command line does:

1. ``AZURE_STORAGE_CONNECTION_STRING``: the address, and a key or a SAS;
2. ``AZURE_STORAGE_KEY``, ``AZURE_STORAGE_SAS_TOKEN``;
3. Entra ID, by whatever `DefaultAzureCredential` finds: ``AZURE_CLIENT_ID`` and its
   kin, a managed identity, ``az login``.

Without a connection string the address is ``AZURE_STORAGE_SERVICE_ENDPOINT`` or, as
nearly always, that of the public cloud.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, TypeAlias
from urllib.parse import parse_qs, urlsplit

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.credentials_async import AsyncTokenCredential

from wren.config import environment
from wren.errors import ConfigurationError

Credential: TypeAlias = (
    AzureNamedKeyCredential | AzureSasCredential | AsyncTokenCredential
)

CONNECTION_STRING: Final = "AZURE_STORAGE_CONNECTION_STRING"
ENTRA: Final = "the login to Entra ID"
_ACCOUNT: Final = "AZURE_STORAGE_ACCOUNT"
_ENDPOINT: Final = "AZURE_STORAGE_SERVICE_ENDPOINT"
_KEY: Final = "AZURE_STORAGE_KEY"
_SAS: Final = "AZURE_STORAGE_SAS_TOKEN"

# What UseDevelopmentStorage=true means; the key is published.
# https://learn.microsoft.com/azure/storage/common/storage-use-azurite
_EMULATOR: Final = {
    "accountname": "devstoreaccount1",
    "accountkey": "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZF"
    "PTOtr/KBHBeksoGMGw==",
    "blobendpoint": "http://127.0.0.1:10000/devstoreaccount1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """An account, its address, and one way in. Makes no request."""

    account: str
    endpoint: str
    """URL of the account's blob service."""

    source: str
    """What to change when it is refused: a variable, or `ENTRA`."""

    key: str = field(default="", repr=False)
    """The account's key, if that is the way in."""

    sas: str = field(default="", repr=False)
    """A shared access signature, if that is the way in: it cannot sign others."""

    @property
    def sas_expires(self) -> float | None:
        """When a SAS ends, in seconds since the epoch; None if it does not say."""
        end = parse_qs(self.sas).get("se", [""])[0]
        try:
            moment = datetime.fromisoformat(end)
        except ValueError:
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

    def credential(self) -> Credential:
        """Return what the client logs in with. May read files, and takes a moment.

        Raises:
            ConfigurationError: Entra ID needs a package that is not installed.
        """
        if self.key:
            return AzureNamedKeyCredential(self.account, self.key)
        if self.sas:
            return AzureSasCredential(self.sas)
        try:
            from azure.identity.aio import DefaultAzureCredential
        except ModuleNotFoundError as exc:
            raise ConfigurationError(
                f"neither {CONNECTION_STRING} nor {_KEY} nor {_SAS} is set, and a login"
                " to Entra ID needs: pip install azure-identity"
            ) from exc
        return DefaultAzureCredential()


def find_login(account: str) -> Login:
    """Return the login to use for an account.

    Raises:
        ConfigurationError: A variable is malformed, or is for another account.
    """
    given = _connection_string(account)
    endpoint = (
        given.get("blobendpoint")
        or _from_suffix(account, given)
        or environment(_ENDPOINT)
        or f"https://{account}.blob.core.windows.net"
    ).rstrip("/")
    for key, sas, source in (
        (
            given.get("accountkey"),
            given.get("sharedaccesssignature"),
            CONNECTION_STRING,
        ),
        (environment(_KEY), None, _KEY),
        (None, environment(_SAS), _SAS),
    ):
        if not (key or sas):
            continue
        if source != CONNECTION_STRING:
            _require_same_account(account, environment(_ACCOUNT), _ACCOUNT)
        return Login(
            account=account,
            endpoint=endpoint,
            source=source,
            key=_checked_key(key, source) if key else "",
            sas="" if key else _checked_sas(sas or "", source),
        )
    if not endpoint.startswith("https:"):
        raise ConfigurationError(
            f"{ENTRA} needs an address that begins with https:, not {endpoint}: set"
            f" {CONNECTION_STRING} or {_KEY}"
        )
    return Login(account=account, endpoint=endpoint, source=ENTRA)


def _connection_string(account: str) -> dict[str, str]:
    """Return the fields of the connection string by their names in small letters."""
    text = environment(CONNECTION_STRING)
    if text is None:
        return {}
    fields: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        name, separator, value = part.partition("=")
        if not separator:
            raise ConfigurationError(
                f"{CONNECTION_STRING}: expected Name=value;Name=value, found a part"
                " without ="
            )
        fields[name.lower()] = value
    if fields.get("usedevelopmentstorage", "").lower() == "true":
        fields = {**_EMULATOR, **fields}
    named = fields.get("accountname") or _account_of(fields.get("blobendpoint", ""))
    _require_same_account(account, named, CONNECTION_STRING)
    return fields


def _account_of(endpoint: str) -> str | None:
    """Return the account in an address; None where it is not the host's first name."""
    host = urlsplit(endpoint).hostname or ""
    first, _, rest = host.partition(".")
    return first if rest.startswith("blob.") else None


def _from_suffix(account: str, given: dict[str, str]) -> str | None:
    suffix = given.get("endpointsuffix")
    protocol = given.get("defaultendpointsprotocol", "https")
    return f"{protocol}://{account}.blob.{suffix}" if suffix else None


def _require_same_account(account: str, named: str | None, variable: str) -> None:
    if named is not None and named != account:
        raise ConfigurationError(
            f"WREN_STORAGE names the account {account!r}, and {variable} the account"
            f" {named!r}: correct one of them"
        )


def _checked_key(key: str, source: str) -> str:
    try:
        base64.b64decode(key, validate=True)
    except binascii.Error:
        raise ConfigurationError(
            f"{source}: the account key is not valid base64; copy it again"
        ) from None
    return key


def _checked_sas(sas: str, source: str) -> str:
    token = sas.strip().lstrip("?")
    if "sig=" not in token:
        raise ConfigurationError(
            f"{source}: expected a shared access signature, such as sv=...&sig=..."
        )
    return token
