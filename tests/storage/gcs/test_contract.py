"""The conformance suite of storage, over a GCS server that verifies signatures."""

from __future__ import annotations

import pytest

from wren.conformance.storage import StorageSuite


class TestGcsStorage(StorageSuite):
    """A service account's key, which can sign."""

    @pytest.fixture
    def longest_key(self, gcs_url: str) -> int:
        """The prefix of the test's own store takes some of the room."""
        return 1024 - len(f"{gcs_url.rpartition('/')[2]}/")
