"""The conformance suite of storage, over a GCS server that verifies signatures."""

from __future__ import annotations

import subprocess
import sys

import pytest

from wren.conformance.storage import StorageSuite


class TestGcsStorage(StorageSuite):
    """A service account's key, which can sign."""

    @pytest.fixture
    def longest_key(self, gcs_url: str) -> int:
        """The prefix of the test's own store takes some of the room."""
        return 1024 - len(f"{gcs_url.rpartition('/')[2]}/")


def test_opening_a_store_imports_no_client() -> None:
    """It happens on the event loop, and the client takes half a second to import."""
    program = """
import sys
from wren.config import Settings
from wren.registry import open_storage

open_storage("gs://bucket/prefix", Settings())
assert not {"google.auth", "google.cloud.storage", "requests"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=50)
