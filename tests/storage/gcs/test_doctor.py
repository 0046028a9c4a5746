"""`wren doctor` says what is wrong with a bucket before a job finds out."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.cloud import storage

from wren.config import Settings
from wren.conformance.emulators.gcs import READER
from wren.doctor import Diagnosable, Result
from wren.storage.gcs import open_storage

pytestmark = pytest.mark.anyio


async def diagnosed(url: str) -> dict[str, Result]:
    """Return what the store says of itself, by name."""
    store = open_storage(url, Settings())
    assert isinstance(store, Diagnosable)
    results: AsyncIterator[Result] = store.diagnose()
    found = {result.name: result async for result in results}
    await store.aclose()
    return found


async def test_all_is_well(gcs_url: str) -> None:
    """The bucket is as it should be, and this account may do everything."""
    found = await diagnosed(gcs_url)

    assert list(found) == [
        f"gcs: {name}" for name in ("login", "permissions", "soft delete")
    ]
    assert all(result.ok and not result.fix for result in found.values())
    assert "signed URLs" in found["gcs: login"].detail


async def test_missing_permissions_are_listed(
    gcs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the role that has them; the bucket's settings need not be readable."""
    key = Path(os.environ["GOOGLE_APPLICATION_CREDENTIALS"])
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key.parent / READER))

    found = await diagnosed(gcs_url)

    permissions = found["gcs: permissions"]
    assert not permissions.ok
    assert "storage.objects.create, storage.objects.delete" in permissions.detail
    assert "storage.objects.get" not in permissions.detail
    assert "roles/storage.objectUser" in permissions.fix
    assert list(found)[-1] == "gcs: permissions"


async def test_soft_delete_is_pointed_out(client: storage.Client) -> None:
    """Every temporary object would be paid for, for a week."""
    name = f"kept-{uuid.uuid4().hex}"
    client.create_bucket(name)

    result = (await diagnosed(f"gs://{name}"))["gcs: soft delete"]

    assert not result.ok
    assert "7 days" in result.detail
    assert result.fix.startswith(f"gcloud storage buckets update gs://{name}")


@pytest.mark.usefixtures("gcs_url")
async def test_missing_bucket_ends_the_examination() -> None:
    """With the command that creates it."""
    found = await diagnosed("gs://nobody")

    assert list(found) == ["gcs: login", "gcs: bucket"]
    assert not found["gcs: bucket"].ok
    assert "gcloud storage buckets create gs://nobody" in found["gcs: bucket"].detail


async def test_missing_login_ends_the_examination(
    gcs_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the bucket is asked for."""
    absent = str(tmp_path / "key.json")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", absent)

    (result,) = (await diagnosed(gcs_url)).values()

    assert not result.ok
    assert "gcloud auth application-default login" in result.detail
