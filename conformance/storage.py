"""`StorageSuite`: what every `Storage` must do, as tests that a subclass inherits."""

from __future__ import annotations

import pytest

from wren.conformance import rewriting as rewriting  # before the checks; see there
from wren.conformance.storage_commits import CommitChecks
from wren.conformance.storage_concurrency import ConcurrencyChecks
from wren.conformance.storage_grants import GrantChecks
from wren.conformance.storage_keys import KeyChecks
from wren.conformance.storage_listing import ListingChecks
from wren.conformance.storage_objects import ObjectChecks


@pytest.mark.anyio
class StorageSuite(
    ObjectChecks,
    ListingChecks,
    KeyChecks,
    CommitChecks,
    ConcurrencyChecks,
    GrantChecks,
):
    """Subclass it with a fixture ``store`` that yields an empty store for each test.

    The fixture closes the store afterwards, and empties it through another one, since
    some checks close theirs. A subclass may override two more fixtures:

    * ``longest_key``: bytes of the longest key, where the store has a prefix;
    * ``uploads_left``: returns a function that counts uploads in parts that were begun
      and neither completed nor aborted.

    The checks run on the event loop that anyio's ``anyio_backend`` fixture names. They
    assume nothing about latency. Replacing an object only where its etag is the one
    expected is not part of `Storage`, so there is no check S28.
    """
