"""Names and URL schemes to adapters, each imported only when it is chosen.

Third parties add to them through the entry point groups ``wren.backends`` and
``wren.storage``. An entry point names a function that is called as those of the
built-in adapters are, ``open_compute(settings)`` or ``open_storage(url, settings)``,
and that does no I/O. A name that is built in cannot be replaced.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from wren.config import Settings, mask_url
from wren.errors import ConfigurationError
from wren.suggest import unknown

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from wren.protocols import Compute, Storage


class Adapter(NamedTuple):
    """Where a built-in adapter is."""

    module: str
    extra: str = ""
    """The extra of wren-cloud that installs what the module imports."""


BACKENDS: Final[dict[str, Adapter]] = {"local": Adapter("wren.backends.local")}
STORAGE: Final[dict[str, Adapter]] = {
    "memory": Adapter("wren.storage.memory"),
    "file": Adapter("wren.storage.local"),
    "s3": Adapter("wren.storage.s3", "aws"),
    "gs": Adapter("wren.storage.gcs", "gcp"),
    "az": Adapter("wren.storage.azure", "azure"),
}


class _Kind(NamedTuple):
    noun: str
    built_in: Mapping[str, Adapter]
    opener: str
    group: str
    methods: tuple[str, ...]


_COMPUTE: Final = _Kind(
    "backend",
    BACKENDS,
    "open_compute",
    "wren.backends",
    ("prepare", "invoke", "aclose"),
)
_STORE: Final = _Kind(
    "storage scheme",
    STORAGE,
    "open_storage",
    "wren.storage",
    ("get", "put", "head", "delete", "list", "grant", "aclose"),
)


def open_compute(name: str, settings: Settings) -> Compute:
    """Open the backend of that name. Nothing is sent or started yet.

    Raises:
        ConfigurationError: There is no such backend, its extra is not installed, or its
            settings are wrong.
    """
    opened: Compute = _open(_COMPUTE, name, settings)
    return opened


def open_storage(url: str, settings: Settings) -> Storage:
    """Open the store at a URL, such as ``file:///dir``. Nothing is sent yet.

    Raises:
        ConfigurationError: There is no such scheme, its extra is not installed, or the
            URL or the settings are wrong.
    """
    scheme, colon, rest = url.partition(":")
    scheme = scheme.lower()
    if not (colon and re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme)):
        known = " or ".join(f"{name}:" for name in _known(_STORE))
        raise ConfigurationError(
            f"storage = {mask_url(url)!r}: expected a URL that begins with {known}"
        )
    opened: Storage = _open(_STORE, scheme, f"{scheme}:{rest}", settings)
    return opened


def _open(kind: _Kind, name: str, *arguments: object) -> Any:
    adapter = kind.built_in.get(name)
    if adapter is None:
        return _open_foreign(kind, name, *arguments)
    try:
        return getattr(import_module(adapter.module), kind.opener)(*arguments)
    except ImportError as exc:
        if not (adapter.extra and _is_missing(exc, "wren")):
            raise
        raise ConfigurationError(
            f"{kind.noun} {name!r}: {exc}; needs:"
            f" pip install 'wren-cloud[{adapter.extra}]'"
        ) from exc


def _open_foreign(kind: _Kind, name: str, *arguments: object) -> Any:
    entry = _find(kind, name)
    origin = f"{kind.noun} {name!r} of the distribution {_distribution(entry)!r}"
    try:
        opener: object = entry.load()
    except Exception as exc:  # whatever a third party's module raises
        raise ConfigurationError(
            f"{origin} does not load: {type(exc).__name__}: {exc}{_remedy(entry, exc)}"
        ) from exc
    if not callable(opener):
        raise ConfigurationError(
            f"{origin} is not usable: {entry.value} is no function"
        )
    try:
        opened: object = opener(*arguments)
    except ImportError as exc:
        remedy = _remedy(entry, exc)
        if not remedy:
            raise
        raise ConfigurationError(f"{origin} does not open: {exc}{remedy}") from exc
    lacks = [each for each in kind.methods if not callable(getattr(opened, each, None))]
    if lacks:
        raise ConfigurationError(
            f"{origin} is not usable: {entry.value} returned"
            f" {type(opened).__name__}, which lacks {', '.join(lacks)}"
        )
    return opened


def _find(kind: _Kind, name: str) -> EntryPoint:
    from importlib.metadata import entry_points  # slow to import, and seldom needed

    found = entry_points(group=kind.group, name=name)
    if not found:
        raise ConfigurationError(unknown(kind.noun, repr(name), _known(kind)))
    origins = sorted({_distribution(entry) for entry in found})
    if len(origins) > 1:
        raise ConfigurationError(
            f"{kind.noun} {name!r} is offered by several distributions:"
            f" {', '.join(origins)}; keep one of them"
        )
    return next(iter(found))


def _known(kind: _Kind) -> list[str]:
    from importlib.metadata import entry_points

    return sorted({*kind.built_in, *entry_points(group=kind.group).names})


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.module


def _remedy(entry: EntryPoint, exc: Exception) -> str:
    package = entry.module.partition(".")[0]
    if not (
        entry.extras and isinstance(exc, ImportError) and _is_missing(exc, package)
    ):
        return ""
    return f"; needs: pip install '{_distribution(entry)}[{','.join(entry.extras)}]'"


def _is_missing(exc: ImportError, package: str) -> bool:
    """Say whether what could not be imported is foreign to the adapter's own package.

    Otherwise the adapter itself is broken, which no installation mends.
    """
    return exc.name is not None and exc.name.partition(".")[0] not in (
        package,
        *sys.stdlib_module_names,
    )


def storage_for(settings: Settings, compute: Callable[[], Compute]) -> Storage:
    """Open the store that is configured or, where none is, the backend's own.

    Args:
        settings: What is configured.
        compute: Returns the backend; not called where a store is configured.

    Raises:
        ConfigurationError: As of `open_storage`; or none is configured, and the backend
            has none.
    """
    if settings.storage is not None:
        return open_storage(settings.storage, settings)
    from wren.protocols import HasStorage

    backend = compute()
    if isinstance(backend, HasStorage):
        return backend.open_storage()
    raise ConfigurationError(
        f"the backend {backend.name!r} has no storage of its own: set WREN_STORAGE, "
        "such as file:///folder"
    )
