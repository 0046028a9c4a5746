"""Raw calls of google-cloud-storage in threads, for `tests.benchmarks.storage`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import google.auth
from anyio import to_thread
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage
from requests.adapters import HTTPAdapter

from tests.benchmarks.storage import AT_ONCE, Client
from wren.storage.location import Location

EMULATOR = "gcs"
DISTRIBUTION = "google-cloud-storage"

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
_TIMEOUTS = (10.0, 20.0)


@asynccontextmanager
async def raw(url: str) -> AsyncGenerator[Client]:
    """Open one client for all threads; its pool is raised, or the sockets are lost."""
    place = Location.parse(url, example="gs://bucket/prefix")
    credentials, project = google.auth.default(scopes=[_SCOPE])
    session = AuthorizedSession(credentials)
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=AT_ONCE))
    client = storage.Client(project, credentials, _http=session)
    bucket = client.bucket(place.bucket)
    threads = anyio.CapacityLimiter(AT_ONCE)

    async def put(key: str, data: bytes) -> None:
        upload = partial(
            bucket.blob(place.full(key)).upload_from_string,
            data,
            "application/octet-stream",
            timeout=_TIMEOUTS,
            retry=None,
        )
        await to_thread.run_sync(upload, limiter=threads)

    async def get(key: str) -> bytes:
        download = partial(
            bucket.blob(place.full(key)).download_as_bytes,
            timeout=_TIMEOUTS,
            retry=None,
        )
        return await to_thread.run_sync(download, limiter=threads)

    yield Client(put, get)
    client.close()
