"""Grants on blobs: shared access signatures (SAS) for one blob each.

Signed with the account's key or, where the login is one to Entra ID, with a user
delegation key, which the service hands out for that and which is used many times.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from anyio import Lock
from azure.storage.blob import (
    BlobSasPermissions,
    UserDelegationKey,
    generate_blob_sas,
)

from wren.errors import UnsupportedError
from wren.storage.azure_errors import NAME
from wren.storage.azure_login import Login

_KEY_LIFE: Final = 24 * 3600.0  # seconds; a grant that needs longer gets a longer one
_LONGEST_LIFE: Final = 7 * 24 * 3600.0  # the service's limit
_CLOCKS_DIFFER: Final = 900.0  # as much as the service tolerates elsewhere


class Signer:
    """Makes signatures for blobs of one container."""

    def __init__(
        self,
        login: Login,
        container: str,
        ask: Callable[[datetime, datetime], Awaitable[UserDelegationKey]],
    ) -> None:
        """Describe what is signed.

        Args:
            login: Not one by a SAS.
            container: Where the blobs are.
            ask: Requests a user delegation key, valid from and until.
        """
        self._login = login
        self._container = container
        self._ask = ask
        self._asking = Lock()
        self._key: UserDelegationKey | None = None
        self._key_expires = 0.0

    async def sign(
        self,
        blob: str,
        method: Literal["GET", "PUT"],
        *,
        expires: int,
        if_absent: bool,
    ) -> str:
        """Return the query string that allows one method on one blob.

        Args:
            blob: Its name.
            method: What is allowed.
            expires: Seconds since the epoch.
            if_absent: The PUT is allowed only where no blob is. That is a permission,
                so it needs no cooperation: one to create, not to write.

        Raises:
            UnsupportedError: ``expires`` is more than seven days away, and a user
                delegation key does not live as long.
        """
        creates = method == "PUT" and if_absent
        token: str = generate_blob_sas(
            self._login.account,
            self._container,
            blob,
            account_key=self._login.key or None,
            user_delegation_key=None
            if self._login.key
            else await self._delegation_key(expires),
            permission=BlobSasPermissions(
                read=method == "GET",
                create=creates,
                write=method == "PUT" and not creates,
            ),
            expiry=datetime.fromtimestamp(expires, UTC),
            protocol="https" if self._login.endpoint.startswith("https:") else None,
        )
        return token

    async def _delegation_key(self, until: float) -> UserDelegationKey:
        async with self._asking:
            if self._key is not None and until <= self._key_expires:
                return self._key
            now = time.time()
            start = now - _CLOCKS_DIFFER
            expires = max(until, now + _KEY_LIFE)
            expires = min(math.ceil(expires), start + _LONGEST_LIFE)
            if until > expires:
                raise UnsupportedError(
                    "with a login to Entra ID a grant lasts for less than seven days",
                    store=NAME,
                )
            begin = datetime.fromtimestamp(start, UTC)
            self._key = await self._ask(
                begin, begin + timedelta(seconds=expires - start)
            )
            self._key_expires = expires
            return self._key
