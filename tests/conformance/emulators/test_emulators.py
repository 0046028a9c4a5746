"""Each emulator takes requests, on this machine only, and says how to reach it."""

from __future__ import annotations

import pytest

from wren.conformance.emulators.emulator import Emulator


@pytest.fixture(params=["s3", "azurite"])
def emulator(request: pytest.FixtureRequest) -> Emulator:
    """Each of the servers that the whole run shares."""
    server: Emulator = request.getfixturevalue(f"{request.param}_server")
    return server


def test_it_names_a_store(emulator: Emulator) -> None:
    """A program needs nothing but the variables and this URL."""
    assert emulator.url.startswith(("s3://", "gs://", "az://"))
    assert emulator.environment
