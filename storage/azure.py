"""Objects as block blobs in a container of an Azure storage account."""

from __future__ import annotations

import math
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from wren.config import mask_url
from wren.doctor import Result
from wren.errors import (
    ConfigurationError,
    StorageError,
    UnsupportedError,
)
from wren.protocols import Buffer, Grant, ObjectInfo, Storage, StorageCapabilities
from wren.storage.azure_client import Client
from wren.storage.azure_deletions import Deletions
from wren.storage.azure_errors import NAME
from wren.storage.azure_grants import Signer
from wren.storage.azure_list import Listing
from wren.storage.azure_login import Login, find_login
from wren.storage.azure_names import encode_key
from wren.storage.azure_reads import describe, read
from wren.storage.azure_writes import create, write
from wren.storage.keys import check_keys, check_range
from wren.storage.location import Location
from wren.storage.pages import Pages
from wren.storage.requests import pool_size
from wren.storage.undisturbed import undisturbed

if TYPE_CHECKING:
    from wren.config import Settings

T = TypeVar("T")

_EXAMPLE: Final = "az://account/container/prefix"
_ACCOUNT: Final = re.compile("[a-z0-9]{3,24}")
_CONTAINER: Final = re.compile("(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*")

_LATEST: Final = 253402300799.0  # the end of the year 9999


class AzureStorage(Storage):
    """A `Storage` in one container, below a prefix. It is not created here.

    Objects of up to 16 MiB are written in one request, larger ones in blocks that are
    committed at the end. Blocks of a put that was cancelled or has failed are invisible
    and are dropped by the service after a week, or by the next put of the same key.
    """

    def __init__(self, login: Login, location: Location, *, connections: int) -> None:
        """Describe a store; nothing is sent yet.

        Args:
            login: Whose account, and how.
            location: Its bucket is the container.
            connections: Most requests in flight.
        """
        self._login = login
        self._location = location
        self._client = Client(login, location.bucket, connections)
        self._deletions = Deletions(self._client)
        self._signer = Signer(login, location.bucket, self._client.delegation_key)

    @property
    def name(self) -> str:
        """See `Storage.name`."""
        return NAME

    @property
    def capabilities(self) -> StorageCapabilities:
        """See `Storage.capabilities`. Who is logged in by a SAS cannot sign grants."""
        signs = not self._login.sas
        return StorageCapabilities(grants=signs, conditional_grants=signs)

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """See `Storage.get`. More than 8 MiB are read in concurrent ranges."""
        check_range(start, stop)
        name = self._name(key)
        if start == stop:
            await describe(self._client, key, name)
            return b""
        return await undisturbed(lambda: read(self._client, key, name, start, stop))

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Storage.put`."""
        name = self._name(key)
        if if_absent:
            nonce = secrets.token_hex(16)
            await undisturbed(lambda: create(self._client, key, name, data, nonce))
        else:
            await undisturbed(lambda: write(self._client, key, name, data))

    async def head(self, key: str) -> ObjectInfo:
        """See `Storage.head`."""
        found = await describe(self._client, key, self._name(key))
        return ObjectInfo(
            key=key,
            size=found.size,
            modified=found.last_modified,
            etag=found.etag.strip('"'),  # a listing has none
        )

    async def delete(self, keys: Iterable[str]) -> None:
        """See `Storage.delete`. Up to 256 in one request."""
        checked = dict.fromkeys(check_keys(keys))
        await self._deletions.delete([self._name(key) for key in checked])

    def list(self, prefix: str = "", *, start_after: str = "") -> Pages:
        """See `Storage.list`.

        Raises:
            StorageError: The account has a hierarchical namespace, and its order is not
                that of the keys.
        """
        listing = Listing(self._client, self._location.prefix, prefix, start_after)
        return Pages(listing.next_page)

    async def grant(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        *,
        expires_in: float,
        if_absent: bool = False,
    ) -> Grant:
        """See `Storage.grant`. The time is rounded up to a second.

        Raises:
            UnsupportedError: The login is one by a SAS; or one to Entra ID, and the
                grant is to last for seven days.
        """
        name = self._name(key)
        if self._login.sas:
            raise UnsupportedError(
                f"{self._login.source} is a shared access signature, which cannot sign"
                " another: log in with a key or to Entra ID",
                store=NAME,
                key=key,
            )
        container = await self._client.container()
        expires = math.ceil(min(time.time() + expires_in, _LATEST))
        once = method == "PUT" and if_absent
        token = await self._signer.sign(name, method, expires=expires, if_absent=once)
        headers = {"x-ms-blob-type": "BlockBlob"} if method == "PUT" else {}
        if once:
            headers["if-none-match"] = "*"
        return Grant(
            method=method,
            url=f"{container.get_blob_client(name).url}?{token}",
            headers=headers,
            expires=expires,
        )

    async def diagnose(self) -> AsyncIterator[Result]:
        """Say how the login is made, and look at the container and the account."""
        way = "a key" if self._login.key else "a SAS" if self._login.sas else "a token"
        told = f"{self._login.account} with {way}, from {self._login.source}"
        yield Result("azure: login", True, told)
        if self._login.sas:  # one for a container may not look at the container itself
            return
        try:
            await self._client.send(lambda place: place.get_container_properties())
            about = await self._client.send(
                lambda place: place.get_account_information()
            )
        except StorageError as exc:
            yield Result(
                "azure: container", False, str(exc), "do what the message says"
            )
            return
        yield Result("azure: container", True, self._location.bucket)
        if about.get("is_hns_enabled"):
            yield Result(
                "azure: account",
                False,
                "its hierarchical namespace keeps directories among the objects",
                "take a storage account without a hierarchical namespace",
            )

    async def aclose(self) -> None:
        """See `Storage.aclose`."""
        await self._client.aclose()

    def _name(self, key: str) -> str:
        return encode_key(self._location.full(key))


def open_storage(url: str, settings: Settings) -> AzureStorage:
    """Open ``az://account/container/prefix``; the prefix is optional. Sends nothing.

    Raises:
        ConfigurationError: The URL names no account or no container, or a variable of
            Azure's is malformed or for another account.
    """
    place = Location.parse(url, example=_EXAMPLE)
    account = place.bucket
    container, _, prefix = place.prefix.partition("/")
    if not _ACCOUNT.fullmatch(account):
        fault = "an account's name has 3 to 24 small letters and digits"
    elif not _CONTAINER.fullmatch(container):
        fault = (
            "a container's name has 3 to 63 small letters, digits and single hyphens"
        )
    else:
        return AzureStorage(
            find_login(account),
            Location(container, prefix),
            connections=pool_size(settings),
        )
    raise ConfigurationError(
        f"storage = {mask_url(url)!r}: expected {_EXAMPLE}; {fault}"
    )
