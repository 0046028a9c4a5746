"""Google's client, made when it is first needed, with connections that are kept."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import google.auth
import requests
from google.auth import transport
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud import storage
from requests.adapters import HTTPAdapter

from wren.config import environment
from wren.errors import StorageError
from wren.storage.gcs_errors import explained
from wren.storage.gcs_faults import NAME, TokenRefusedError
from wren.storage.requests import CONNECT_SECONDS, IDLE_SECONDS

if TYPE_CHECKING:
    from google.cloud.storage import Client

T = TypeVar("T")

TIMEOUTS: Final = (CONNECT_SECONDS, IDLE_SECONDS)

# Without it, signatures by other machines and narrower tokens cannot be had.
_SCOPES: Final = ("https://www.googleapis.com/auth/cloud-platform",)
_HOSTS: Final = 4


class Connected(NamedTuple):
    """What requests are made with. Safe for use by many threads."""

    client: Client
    session: AuthorizedSession
    credentials: Credentials
    tokens: requests.Session
    """Asks for tokens."""

    @property
    def auth(self) -> transport.Request:
        """What credentials make their requests with."""
        return partial(Request(self.tokens), timeout=TIMEOUTS)

    @property
    def anonymous(self) -> bool:
        """Whether nobody is logged in, as is enough for an emulator."""
        return isinstance(self.credentials, AnonymousCredentials)


class Connection:
    """One client for all threads. Nothing is read or sent before the first request."""

    def __init__(self, bucket: str, project: str | None, connections: int) -> None:
        """Describe it.

        Args:
            bucket: For errors.
            project: Recorded with the client; None for that of the credentials.
            connections: Most of them that are kept open.
        """
        self._bucket = bucket
        self._project = project
        self._connections = connections
        self._lock = threading.Lock()
        self._connected: Connected | None = None
        self._closed = False
        self.may_sign = True
        """Whether a service that signs for this machine has not refused to."""

    def get(self) -> Connected:
        """Return the client, with a token that is valid for some minutes.

        Of all threads that find none, one asks for it. Blocks.

        Raises:
            AccessDeniedError: There are no credentials, or they are not accepted.
            StorageError: The connection was closed.
        """
        connected = self._connected
        if connected is None or not connected.credentials.valid:
            with self._lock, explained(self._bucket):
                connected = self._connected or self._open()
                self._connected = connected
                if not connected.credentials.valid:
                    connected.credentials.refresh(connected.auth)
        return connected

    def with_token(self, call: Callable[[], T]) -> T:
        """Return what a call returns, made again with a new token if one is refused.

        A token may be revoked before its time. Of all threads that find out, one asks
        for another. Blocks.

        Raises:
            TokenRefusedError: The new one is refused, too, or nobody is logged in.
        """
        connected = self.get()
        token = connected.credentials.token
        try:
            return call()
        except TokenRefusedError:
            if connected.anonymous:
                raise
        with self._lock, explained(self._bucket):
            if connected.credentials.token == token:
                connected.credentials.refresh(connected.auth)
        return call()

    def close(self) -> None:
        """Close the connections. Idempotent."""
        with self._lock:
            connected, self._connected, self._closed = self._connected, None, True
        if connected is not None:
            connected.client.close()
            connected.tokens.close()

    def _open(self) -> Connected:
        if self._closed:
            raise StorageError("the store is closed", store=NAME)
        project = self._project
        credentials: Credentials = AnonymousCredentials()
        if not environment("STORAGE_EMULATOR_HOST") or environment(
            "GOOGLE_APPLICATION_CREDENTIALS"
        ):
            credentials, theirs = google.auth.default(scopes=_SCOPES)
            project = project or theirs
        tokens = requests.Session()
        auth = partial(Request(tokens), timeout=TIMEOUTS)
        # It would drop the answer with its connection: `with_token` does that instead.
        session = AuthorizedSession(
            credentials, refresh_status_codes=(), auth_request=auth
        )
        # The default pool has 10 connections, and throws away what exceeds them.
        pool = HTTPAdapter(
            pool_connections=_HOSTS, pool_maxsize=self._connections, max_retries=0
        )
        for scheme in ("https://", "http://"):
            session.mount(scheme, pool)
        client = storage.Client(project, credentials, _http=session)
        # Newer versions read the bucket's settings in a thread of theirs, for traces.
        client._bucket_metadata_cache = None  # noqa: SLF001
        return Connected(client, session, credentials, tokens)
