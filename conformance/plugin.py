"""A pytest plugin: fixtures for what is configured, and a report of the checks.

It is loaded by ``-p wren.conformance.plugin`` and does nothing by itself:

* ``--wren-report FILE`` writes what became of each check of the suites, as JSON;
* ``--wren-table`` prints it;
* ``--wren-storage URL`` and ``--wren-backend NAME`` say what the fixtures ``store``,
  ``compute`` and ``open_executor`` open, before the environment and ``wren.toml`` do.

``-k`` selects checks by identity and level, too: ``-k "S05 or commit"``.

A suite's subclass with fixtures of its own is reported by the name of its adapter, or
by its class attribute ``adapter``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import wren
from wren import Executor, registry
from wren.config import Settings, load, mask_url
from wren.conformance import rewriting as rewriting  # before the checks; see there
from wren.conformance.recorder import ADAPTER, Recorder
from wren.conformance.report import Adapter
from wren.conformance.spec import check_of
from wren.conformance.targets import Places, describe_compute, describe_storage
from wren.protocols import Compute, Storage


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add wren's options."""
    group = parser.getgroup("wren", "conformance of wren's adapters")
    group.addoption("--wren-storage", metavar="URL", help="the store to check")
    group.addoption("--wren-backend", metavar="NAME", help="the backend to check")
    group.addoption("--wren-report", metavar="FILE", help="write a report as JSON")
    group.addoption("--wren-table", action="store_true", help="print the report")


def pytest_configure(config: pytest.Config) -> None:
    """Start recording, if anybody wants to know."""
    path: str | None = config.getoption("--wren-report")
    show = bool(config.getoption("--wren-table"))
    if path or show:
        recorder = Recorder(Path(path) if path else None, show=show)
        config.pluginmanager.register(recorder, "wren-recorder")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let ``-k S05`` and ``-k commit`` select checks by identity and by level."""
    check = check_of(getattr(item, "obj", None))
    if check is not None:
        item.extra_keyword_matches.update((check.id, check.level.value))


@pytest.fixture(scope="session")
def wren_settings(pytestconfig: pytest.Config) -> Settings:
    """Return the settings in force, with those of the command line."""
    return load(
        storage=pytestconfig.getoption("--wren-storage"),
        backend=pytestconfig.getoption("--wren-backend"),
    )


@pytest.fixture(scope="session")
def wren_places(wren_settings: Settings) -> Iterator[Places]:
    """Yield where tests find empty places; none is left at the end."""
    places = Places(wren_settings)
    yield places
    anyio.run(places.remove)


@pytest.fixture
async def store(
    request: pytest.FixtureRequest, wren_settings: Settings, wren_places: Places
) -> AsyncIterator[Storage]:
    """Yield a store at an empty place of what is configured, or the backend's own."""
    if not await wren_places.has_store():
        pytest.skip(f"the backend {wren_settings.backend!r} has no store of its own")
    async with wren_places.store() as opened:
        target = wren_settings.storage or wren_settings.backend
        request.node.stash[ADAPTER] = describe_storage(opened, target=target)
        yield opened


@pytest.fixture
async def compute(
    request: pytest.FixtureRequest, wren_settings: Settings
) -> AsyncIterator[Compute]:
    """Yield the configured backend, not yet prepared."""
    opened = registry.open_compute(wren_settings.backend, wren_settings)
    target = wren_settings.backend
    request.node.stash[ADAPTER] = describe_compute(opened, target=target)
    try:
        yield opened
    finally:
        await opened.aclose()


@pytest.fixture
async def wren_place(wren_places: Places) -> AsyncIterator[str | None]:
    """Yield the URL of an empty place; None where no store is configured."""
    async with wren_places.place() as place:
        yield place


@pytest.fixture
def open_executor(
    request: pytest.FixtureRequest, wren_settings: Settings, wren_place: str | None
) -> Callable[..., Executor]:
    """Return what makes an executor of the configured backend and store."""
    backend, storage = wren_settings.backend, wren_settings.storage
    scheme = f"+{storage.partition(':')[0]}" if storage else ""
    request.node.stash[ADAPTER] = Adapter(
        part="executor",
        name=backend + scheme,
        version=f"wren-cloud {wren.__version__}",
        target=mask_url(storage) if storage else backend,
    )

    def make(**options: Any) -> Executor:
        given: dict[str, Any] = {"backend": backend, "storage": wren_place} | options
        return Executor(**given)

    return make
