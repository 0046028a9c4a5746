"""Where a module is, and whose: asked of the import system, without importing it.

A module is the user's own, or *local*, if it belongs neither to the standard library
nor to an installed distribution: those are on the worker already, or are listed in the
requirements. What is installed in editable mode lies outside of the places where
distributions are installed, and so is local.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

from wren.errors import SerializationError
from wren.importer import RESERVED

SOURCE: Final = ".py"
INIT: Final = "/__init__.py"

_INSTALLED: Final = frozenset({"dist-packages", "site-packages"})


def unit_of(name: str) -> str | None:
    """Return what a local module is shipped with; None if it is not local.

    That is the package or module furthest up: of ``a.b.c`` usually ``a``, or ``a.b`` if
    ``a`` is a namespace package.
    """
    top = name.partition(".")[0]
    if top in RESERVED or top in sys.stdlib_module_names:
        return None
    for prefix in prefixes(name):
        spec = find_spec(prefix)
        if spec is None:
            if prefix in sys.modules:  # made up by a tool, as pytest does
                continue
            return None
        if not is_namespace(spec):
            return prefix if _is_own(prefix, spec) else None
    return None


def prefixes(name: str) -> Iterator[str]:
    """Yield ``a``, ``a.b`` and ``a.b.c`` for ``a.b.c``."""
    end = name.find(".")
    while end >= 0:
        yield name[:end]
        end = name.find(".", end + 1)
    yield name


def find_spec(name: str) -> ModuleSpec | None:
    """Ask the import system for a module; neither it nor a package is imported."""
    module = sys.modules.get(name)
    if module is not None:
        spec = getattr(module, "__spec__", None)
        file = getattr(module, "__file__", None)
        if spec is None and isinstance(file, str):  # such as __mp_main__
            return spec_from_file_location(name, file)
        return spec if isinstance(spec, ModuleSpec) else None
    above, _, last = name.rpartition(".")
    path: list[str] | None = None
    if above:
        package = sys.modules.get(above)
        known = getattr(package, "__dict__", {}).get(last, package)
        if known is not None and not isinstance(known, ModuleType):
            return None  # an attribute
        spec = find_spec(above)
        if spec is None or spec.submodule_search_locations is None:
            return None
        path = path_of(above, spec)
    return _search(name, path)


def _search(name: str, path: list[str] | None) -> ModuleSpec | None:
    for finder in list(sys.meta_path):
        find_spec = getattr(finder, "find_spec", None)
        if find_spec is None:
            continue
        try:
            spec = find_spec(name, path)
        except ImportError:  # a finder that forbids the import
            return None
        if isinstance(spec, ModuleSpec):
            return spec
    return None


def path_of(name: str, spec: ModuleSpec) -> list[str]:
    """Return where a package's modules are looked for."""
    path = getattr(sys.modules.get(name), "__path__", spec.submodule_search_locations)
    try:
        return list(path or ())
    except KeyError:  # a namespace package inside of one that is not imported
        return []


def is_namespace(spec: ModuleSpec) -> bool:
    """Say whether it is a package that has no code of its own."""
    return spec.submodule_search_locations is not None and spec.origin is None


def _is_own(name: str, spec: ModuleSpec) -> bool:
    if spec.origin is None or not spec.has_location:
        return False
    if not is_own_path(spec.origin):
        return False
    folder = Path(spec.origin.removesuffix(INIT)).parents[name.count(".")]
    try:
        modified = folder.stat().st_mtime_ns
    except OSError:  # inside a zip, or gone
        return True
    top = name.partition(".")[0]
    return _recorded(str(folder), modified).isdisjoint((top, f"{top}{SOURCE}"))


@lru_cache(maxsize=4096)
def is_own_path(path: str) -> bool:
    """Say whether a path is outside of where Python and distributions are installed."""
    path = os.path.abspath(path)  # noqa: PTH100  # resolve() would follow links
    if not _INSTALLED.isdisjoint(Path(path).parts):
        return False
    real = os.path.realpath(path)
    return not any(place.startswith(_system_folders()) for place in (path, real))


@lru_cache(maxsize=1)
def _system_folders() -> tuple[str, ...]:
    schemes = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {
        os.path.dirname(os.__file__),  # noqa: PTH120
        *map(sysconfig.get_path, schemes),
        *site.getsitepackages(),
        site.getusersitepackages(),
    }
    folders |= {os.path.realpath(folder) for folder in folders}
    return tuple(f"{folder}{os.sep}" for folder in folders)


@lru_cache(maxsize=256)
def _recorded(folder: str, modified: int) -> frozenset[str]:
    """Return what distributions have put into a folder: ``pip install --target``.

    Args:
        folder: A folder that has been on the path.
        modified: When it was; for the cache.
    """
    found: set[str] = set()
    for record in Path(folder).glob("*.dist-info/RECORD"):
        for line in record.read_text("utf-8", "replace").splitlines():
            found.add(line.partition(",")[0].partition("/")[0])
    return frozenset(found)


def refuse_shadow(top: str) -> None:
    """Refuse a module of the user's that is imported instead of Python's own.

    Raises:
        SerializationError: It is one. A worker would import Python's.
    """
    if top not in sys.stdlib_module_names:
        return
    file = getattr(sys.modules.get(top), "__file__", None)
    if isinstance(file, str) and file.endswith(SOURCE) and is_own_path(file):
        raise SerializationError(
            f"the module {top!r} ({file}) has the name of a module of the standard "
            "library, which is what a worker would import: rename it"
        )
