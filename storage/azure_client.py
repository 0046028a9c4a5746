"""Requests to one container of a storage account."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Final, TypeVar

from anyio import CancelScope, Lock, to_thread
from azure.core.credentials_async import AsyncTokenCredential
from azure.storage.blob import UserDelegationKey
from azure.storage.blob.aio import BlobServiceClient, ContainerClient

from wren.errors import ConfigurationError, StorageError
from wren.storage.azure_errors import NAME, Errors
from wren.storage.azure_login import Credential, Login
from wren.storage.azure_transport import Transport
from wren.storage.parts import PART
from wren.storage.requests import Requests

T = TypeVar("T")

API_VERSION: Final = "2026-02-06"
"""The first whose listings begin anywhere; a newer one would shut out emulators."""

SINGLE_PUT: Final = 2 * PART
"""Bytes of the largest object that is written in one request."""


class Client:
    """The library's client of one container, made when it is first needed.

    asyncio only, because the library is.
    """

    def __init__(self, login: Login, container: str, connections: int) -> None:
        """Describe the client; nothing is opened yet.

        Args:
            login: Whose account, and how.
            container: Its name.
            connections: Most requests in flight.
        """
        self.login = login
        self.errors = Errors(login, container)
        self.requests = Requests(connections)
        self._name = container
        self._opening = Lock()
        self._service: BlobServiceClient | None = None
        self._container: ContainerClient | None = None
        self._credential: Credential | None = None
        self._closed = False

    async def send(
        self, call: Callable[[ContainerClient], Awaitable[T]], key: str = ""
    ) -> T:
        """Make one request, again while that may help.

        Args:
            call: Makes it, of the client that it is given.
            key: The key concerned, for errors.

        Raises:
            StorageError: Of the class that fits; or the client is closed.
            ConfigurationError: As of `container`.
        """

        async def once() -> T:
            container = await self.container()
            with self.errors.translated(key):
                return await call(container)

        return await self.requests.run(once)

    async def delegation_key(self, start: datetime, end: datetime) -> UserDelegationKey:
        """Request a key that signs in the name of who is logged in to Entra ID.

        Raises:
            StorageError: As of `send`.
        """

        async def once() -> UserDelegationKey:
            service, _ = await self._open()
            with self.errors.translated():
                return await service.get_user_delegation_key(start, end)

        return await self.requests.run(once)

    async def container(self) -> ContainerClient:
        """Return the library's client. Sends nothing.

        Raises:
            ConfigurationError: This is not asyncio's event loop, or a package is
                missing.
            StorageError: The client is closed.
        """
        if self._container is not None:
            return self._container
        _, container = await self._open()
        return container

    async def aclose(self) -> None:
        """Close connections and login. Idempotent; returns when all is closed."""
        self._closed = True
        with CancelScope(shield=True):
            async with self._opening:
                service, self._service, self._container = self._service, None, None
                credential, self._credential = self._credential, None
                if service is not None:
                    await service.close()
                if isinstance(credential, AsyncTokenCredential):
                    await credential.close()

    async def _open(self) -> tuple[BlobServiceClient, ContainerClient]:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError(
                "storage on Azure needs asyncio: its library knows no other event loop"
            ) from None
        async with self._opening:
            if self._closed:
                raise StorageError("the store is closed", store=NAME)
            if self._service is None or self._container is None:
                transport = Transport(self.login.endpoint, self.requests.slots)
                try:
                    # In a thread: it imports much, reads files and runs programs.
                    made = await to_thread.run_sync(self._log_in, transport)
                except BaseException:
                    with CancelScope(shield=True):
                        await transport.close()
                    raise
                self._credential, self._service = made
                self._container = self._service.get_container_client(self._name)
            return self._service, self._container

    def _log_in(self, transport: Any) -> tuple[Credential, BlobServiceClient]:
        credential = self.login.credential()
        return credential, BlobServiceClient(
            self.login.endpoint,
            credential=credential,
            api_version=API_VERSION,
            transport=transport,
            retry_total=0,
            max_single_put_size=SINGLE_PUT,
            max_chunk_get_size=PART,
        )
