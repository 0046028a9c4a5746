"""The conformance suite of storage, over Azurite."""

from __future__ import annotations

import pytest

from wren.conformance.storage import StorageSuite


class TestAzureStorage(StorageSuite):
    """A shared key, as in production."""

    @pytest.fixture
    def longest_key(self, azurite_url: str) -> int:
        """The prefix of the test's own store takes some of the room."""
        return 1024 - len(f"{azurite_url.rpartition('/')[2]}/")
