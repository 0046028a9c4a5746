"""What is configured, opened anew for each test, and emptied after it."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import anyio

import wren
from wren import registry
from wren.config import Settings, mask_url
from wren.conformance.report import Adapter
from wren.protocols import Compute, HasStorage, Storage
from wren.storage.keys import MAX_KEY_BYTES
from wren.transfer import delete_prefix


def unique_url(url: str) -> str:
    """Return the URL of an empty place inside of a store.

    One such as ``memory:``, which names no place, is empty whenever it is opened.
    """
    return f"{url.rstrip('/')}/conformance-{uuid4().hex[:12]}" if "//" in url else url


def longest_key(settings: Settings) -> int:
    """Return how many bytes a key may have in a place that `unique_url` returned.

    What is before it in the URL counts as the prefix, although a part of that may be
    the bucket: a few bytes less are a check, and a few too many are a failure.
    """
    url = settings.storage
    if url is None or url.partition(":")[0] in {"file", "memory"}:
        return MAX_KEY_BYTES
    prefix = unquote(urlsplit(unique_url(url)).path).strip("/")
    return MAX_KEY_BYTES - len(f"{prefix}/".encode())


async def has_store(settings: Settings) -> bool:
    """Say whether a store is configured, or the backend has one of its own."""
    if settings.storage is not None:
        return True
    compute = registry.open_compute(settings.backend, settings)
    try:
        return isinstance(compute, HasStorage)
    finally:
        await compute.aclose()


@asynccontextmanager
async def fresh_store(settings: Settings) -> AsyncGenerator[Storage]:
    """Open what is configured, at a place of its own; empty and close it afterwards.

    Raises:
        ConfigurationError: See `has_store`.
    """
    async with AsyncExitStack() as stack:
        if settings.storage is None:
            compute = registry.open_compute(settings.backend, settings)
            stack.push_async_callback(compute.aclose)
            store = registry.storage_for(settings, lambda: compute)
        else:
            place = await stack.enter_async_context(fresh_place(settings))
            assert place is not None
            store = registry.open_storage(place, settings)
        stack.push_async_callback(store.aclose)
        yield store


@asynccontextmanager
async def fresh_place(settings: Settings) -> AsyncGenerator[str | None]:
    """Return the URL of an empty place in the configured store; empty it afterwards.

    None where no store is configured.
    """
    if settings.storage is None:
        yield None
        return
    url = unique_url(settings.storage)
    try:
        yield url
    finally:
        with anyio.CancelScope(shield=True):
            await _empty(url, settings)


async def _empty(url: str, settings: Settings) -> None:
    # Another store, since a check may have closed its own.
    store = registry.open_storage(url, settings)
    try:
        await delete_prefix(store, "")
    finally:
        await store.aclose()
    if url.startswith("file:"):  # of all places, only a folder can be there and empty
        with suppress(FileNotFoundError):
            await anyio.Path(unquote(urlsplit(url).path)).rmdir()


def describe_storage(store: Storage, name: str = "", target: str = "") -> Adapter:
    """Return what a report says of a store."""
    return Adapter(
        name=name or store.name,
        version=_distribution(store),
        target=mask_url(target),
        capabilities=asdict(store.capabilities),
    )


def describe_compute(compute: Compute, name: str = "", target: str = "") -> Adapter:
    """Return what a report says of a backend."""
    limits = asdict(compute.limits).items()
    return Adapter(
        name=name or compute.name,
        version=_distribution(compute),
        target=target,
        # JSON has no infinity.
        capabilities={key: None if each == math.inf else each for key, each in limits},
    )


def _distribution(adapter: Any) -> str:
    """Return the distribution that an adapter is from, with its version."""
    package = type(adapter).__module__.partition(".")[0]
    if package == "wren":
        return f"wren-cloud {wren.__version__}"
    for name in packages_distributions().get(package, ()):
        with suppress(PackageNotFoundError):
            return f"{name} {version(name)}"
    return package
