"""What the tests of the GCS adapter share: stores, and a proxy before the server."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path

import google.auth
import pytest
from google.cloud import storage

from wren.config import Settings
from wren.conformance.proxy import FaultProxy, proxy_in_thread
from wren.storage.gcs import GcsStorage, open_storage

SCOPE = "https://www.googleapis.com/auth/devstorage.full_control"


@pytest.fixture
async def store(gcs_url: str) -> AsyncGenerator[GcsStorage]:
    """An empty store in a running server."""
    opened = open_storage(gcs_url, Settings())
    yield opened
    await opened.aclose()


@pytest.fixture
def proxy(gcs_url: str, monkeypatch: pytest.MonkeyPatch) -> Generator[FaultProxy]:
    """Stands between the stores of this test and their server; may do anything."""
    del gcs_url  # it has set the environment
    monkeypatch.setattr("wren.backoff._FIRST", 0.0)  # no pauses
    with proxy_in_thread(os.environ["STORAGE_EMULATOR_HOST"]) as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
        yield running


@pytest.fixture
def change_key(
    gcs_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """Replaces fields of the key file that the environment names."""
    del gcs_url

    def change(**fields: str) -> None:
        path = Path(os.environ["GOOGLE_APPLICATION_CREDENTIALS"])
        key = json.loads(path.read_bytes()) | fields
        changed = tmp_path / "changed.json"
        changed.write_text(json.dumps(key))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(changed))

    return change


@pytest.fixture
def client(gcs_url: str) -> Generator[storage.Client]:
    """Google's own client, for what a store does not do."""
    del gcs_url
    credentials, project = google.auth.default(scopes=[SCOPE])
    made = storage.Client(project, credentials)
    made._bucket_metadata_cache = None  # or a thread of its own goes on
    yield made
    made.close()
