"""The storage suite as others use it: complete, on its own, and never too lenient."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import Phase, settings

from wren.conformance.models import SETTINGS, check_storage_model
from wren.conformance.spec import check_of
from wren.conformance.storage import StorageSuite
from wren.conformance.storage_faults import StorageFaultSuite
from wren.protocols import Storage
from wren.storage.memory import MemoryStorage

OUTSIDE = '''
import pytest
from wren.conformance.storage import StorageSuite
from wren.conformance.storage_faults import StorageFaultSuite
from wren.errors import UnsupportedError
from wren.protocols import StorageCapabilities
from wren.storage.keys import check_key
from wren.storage.memory import MemoryStorage

NOTHING = StorageCapabilities(
    conditional_put=False, grants=False, conditional_grants=False
)


class Plain(MemoryStorage):
    """Offers nothing, and says so."""

    capabilities = NOTHING

    async def put(self, key, data, *, if_absent=False):
        if if_absent:
            raise UnsupportedError(store=self.name, key=key)
        await super().put(key, data)

    async def grant(self, key, method, *, expires_in, if_absent=False):
        raise UnsupportedError(store=self.name, key=check_key(key))


class Pretending(MemoryStorage):
    """Offers nothing, and ignores what it is asked for."""

    capabilities = NOTHING

    async def put(self, key, data, *, if_absent=False):
        await super().put(key, data)


class Suite(StorageSuite):
    @pytest.fixture
    async def store(self):
        store = self.kind()
        yield store
        await store.aclose()


class TestPlain(Suite):
    adapter, kind = "plain", Plain


class TestPretending(Suite):
    adapter, kind = "pretending", Pretending
'''


def ids_of(suite: type) -> set[str]:
    """Return the checks that a suite contains."""
    found = (check_of(getattr(suite, name)) for name in dir(suite))
    return {check.id for check in found if check is not None}


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, set[str]]]:
    """Return the statuses of each check, from a run in somebody else's project."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "test_stores.py").write_text(OUTSIDE)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WREN_")}
    plugins = ("-p", "no:cacheprovider", "-p", "wren.conformance.plugin")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, "--wren-report=out.json"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert "error" not in done.stdout.splitlines()[-1], done.stdout
    found: dict[str, dict[str, set[str]]] = {"plain": {}, "pretending": {}}
    checks: list[dict[str, Any]] = json.loads((folder / "out.json").read_text())[
        "checks"
    ]
    for each in checks:
        found[each["adapter"]].setdefault(each["id"], set()).add(each["status"])
    loops = {each["loop"] for each in checks}
    assert loops == {"asyncio", "trio"}
    return found


def test_every_check_is_there() -> None:
    """S28 is about an operation that the contract does not have."""
    faults = {"S27", "S30", "S36", "S37", "S38", "S47"}
    wanted = {f"S{number:02}" for number in range(1, 49)} - {"S28"}

    assert ids_of(StorageSuite) == wanted - faults
    assert ids_of(StorageFaultSuite) == faults


def test_a_store_may_offer_little(outside: dict[str, dict[str, set[str]]]) -> None:
    """One that refuses what it does not declare fails nothing."""
    statuses = outside["plain"]

    assert statuses.keys() == ids_of(StorageSuite)
    assert all(len(each) == 1 for each in statuses.values())
    left_out = {identity for identity, each in statuses.items() if each != {"passed"}}
    assert left_out == {"S24", "S25", "S26", "S39", "S40", "S41"}
    assert all(statuses[identity] == {"not offered"} for identity in left_out)


def test_what_is_not_declared_must_be_refused(
    outside: dict[str, dict[str, set[str]]],
) -> None:
    """A store that ignores the condition, or grants all the same, is found out."""
    statuses = outside["pretending"]

    failed = {identity for identity, each in statuses.items() if "failed" in each}
    assert failed == {"S24", "S25", "S26", "S39", "S40", "S41", "S48"}


class Forgetful(MemoryStorage):
    """Loses the last byte of what is written a second time."""

    async def put(self, key: str, data: Any, *, if_absent: bool = False) -> None:
        known = key in [info.key async for info in self.list(key)]
        await super().put(key, data[:-1] if known else data, if_absent=if_absent)

    async def aclose(self) -> None:
        """Leave that to the place: it is opened again."""


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_the_model_finds_what_goes_wrong_in_a_sequence(loop: str) -> None:
    """No single call shows it: it takes two puts and a get."""

    @asynccontextmanager
    async def place() -> AsyncGenerator[Callable[[], Storage]]:
        store = Forgetful()
        yield lambda: store
        await MemoryStorage.aclose(store)

    quick = settings(SETTINGS, phases=[Phase.generate])
    with pytest.raises(AssertionError):
        check_storage_model(place, backend=loop, settings=quick)
