"""What is configured, opened anew for each test, and emptied after it."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from shutil import rmtree
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import anyio
from anyio import to_thread

import wren
from wren import registry
from wren.config import Settings, mask_url
from wren.conformance.report import Adapter
from wren.protocols import Compute, HasStorage, Storage
from wren.storage.keys import MAX_KEY_BYTES
from wren.transfer import delete_prefix


class Places:
    """Empty places in what is configured, one for each test, below one prefix.

    Where no store is configured, a place is the backend's own store. A URL such as
    ``memory:``, which names no place, is empty whenever it is opened.
    """

    def __init__(self, settings: Settings) -> None:
        """Choose the prefix; nothing is opened."""
        self._settings = settings
        self._count = 0
        self._root: str | None = None
        url = settings.storage
        if url is not None and "//" in url:
            self._root = f"{url.rstrip('/')}/conformance-{uuid4().hex[:12]}"

    @property
    def longest_key(self) -> int:
        """How many bytes a key may have in a place.

        What is before it in the URL counts as the prefix, although a part of that may
        be the bucket: a few bytes less are a check, a few too many would be a failure.
        """
        if self._root is None or self._is_folder:
            return MAX_KEY_BYTES
        prefix = unquote(urlsplit(f"{self._root}/0000/").path).lstrip("/")
        return MAX_KEY_BYTES - len(prefix.encode())

    @asynccontextmanager
    async def place(self) -> AsyncGenerator[str | None]:
        """Return the URL of an empty place; empty it afterwards.

        None where no store is configured.
        """
        if self._root is None:
            yield self._settings.storage
            return
        self._count += 1
        url = f"{self._root}/{self._count:04}"
        try:
            yield url
        finally:
            with anyio.CancelScope(shield=True):
                await self._empty(url)

    @asynccontextmanager
    async def store(self) -> AsyncGenerator[Storage]:
        """Open a store at an empty place; empty and close it afterwards.

        Raises:
            ConfigurationError: See `has_store`.
        """
        settings = self._settings
        async with AsyncExitStack() as stack:
            place = await stack.enter_async_context(self.place())
            if place is None:
                compute = registry.open_compute(settings.backend, settings)
                stack.push_async_callback(compute.aclose)
                store = registry.storage_for(settings, lambda: compute)
            else:
                store = registry.open_storage(place, settings)
            stack.push_async_callback(store.aclose)
            yield store

    async def has_store(self) -> bool:
        """Say whether a store is configured, or the backend has one of its own."""
        if self._settings.storage is not None:
            return True
        compute = registry.open_compute(self._settings.backend, self._settings)
        try:
            return isinstance(compute, HasStorage)
        finally:
            await compute.aclose()

    async def remove(self) -> None:
        """Remove what is left: of interrupted tests, or by a put that came late."""
        if self._root is None:
            return
        if self._is_folder:
            folder = Path(unquote(urlsplit(self._root).path))
            await to_thread.run_sync(lambda: rmtree(folder, ignore_errors=True))
        elif self._count:
            await self._empty(self._root)

    @property
    def _is_folder(self) -> bool:
        return self._root is not None and self._root.startswith("file:")

    async def _empty(self, url: str) -> None:
        # Through another store, since a check may have closed its own.
        store = registry.open_storage(url, self._settings)
        try:
            await delete_prefix(store, "")
        finally:
            await store.aclose()


def describe_storage(store: Storage, name: str = "", target: str = "") -> Adapter:
    """Return what a report says of a store."""
    return Adapter(
        part="storage",
        name=name or store.name,
        version=_distribution(store),
        target=mask_url(target),
        capabilities=asdict(store.capabilities),
    )


def describe_compute(compute: Compute, name: str = "", target: str = "") -> Adapter:
    """Return what a report says of a backend."""
    limits = asdict(compute.limits).items()
    return Adapter(
        part="compute",
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
