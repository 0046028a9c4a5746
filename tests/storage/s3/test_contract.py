"""S3 keeps the contract of every store."""

from __future__ import annotations

import pytest

from wren.conformance.storage import StorageSuite


class TestS3Storage(StorageSuite):
    """Against a server that verifies signatures; see conftest for the fixtures."""

    @pytest.fixture
    def longest_key(self, s3_url: str) -> int:
        return 1024 - len(s3_url.rpartition("/")[2]) - 1
