"""The three suites, for whatever `wren.conformance.plugin` was told to test."""

from __future__ import annotations

import pytest

from wren.config import Settings
from wren.conformance import rewriting as rewriting  # before the checks; see there
from wren.conformance.storage import StorageSuite
from wren.conformance.targets import longest_key


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Run each check once; anyio's own fixture has it run on every event loop."""
    return "asyncio"


class TestStorage(StorageSuite):
    """The plugin's fixtures give it an empty store for each test."""

    @pytest.fixture
    def longest_key(self, wren_settings: Settings) -> int:
        """Leave room for what the place of a test puts before its keys."""
        return longest_key(wren_settings)
