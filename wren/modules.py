"""Which of the user's own modules a function needs, found and packed for the journey.

A local package is shipped whole, with its data files. Whatever the modules that are
reached import is followed, in functions and conditions, too; what is imported but
cannot be found is left to fail, or not, where it is imported. What is local is defined
in `wren.locate`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import NamedTuple
from zipimport import zipimporter

from wren.bundle import Bundle as Bundle
from wren.bundle import (
    File,
    Unit,
    file_at,
    files_in_folder,
    files_in_zip,
    pack,
    refuse_extension,
)
from wren.errors import SerializationError
from wren.locate import (
    INIT,
    SOURCE,
    find_spec,
    is_namespace,
    is_own_path,
    path_of,
    prefixes,
    refuse_shadow,
    unit_of,
)
from wren.references import Buffer, imports_of
from wren.references import referenced_modules as referenced_modules


def collect(fn: object, pickled: Buffer) -> Bundle | None:
    """Return the local modules that a function needs where it is unpickled and called.

    Reads the files of these modules, unless nothing has changed since the last call.

    Args:
        fn: The function, for error messages.
        pickled: Its pickle, made by cloudpickle.

    Returns:
        None if it needs none.

    Raises:
        SerializationError: A module cannot travel, such as a C extension.
    """
    return _bundle(referenced_modules(pickled), _name_of(fn))


def find(name: str) -> Bundle | None:
    """Return a module that a worker found missing, with all that it needs.

    Args:
        name: Its full name, as in `ModuleNotFoundError`.

    Returns:
        None if there is no such module here, or if it is not local.

    Raises:
        SerializationError: It is local and cannot travel, such as a C extension.
    """
    spec = find_spec(name) if all(name.split(".")) else None
    if spec is None and name not in sys.modules:
        return None
    names = [name]
    if spec is None or is_namespace(spec):
        # A worker misses the folder, and does not say what it wanted from it.
        names = [other for other in list(sys.modules) if other.startswith(f"{name}.")]
    return _bundle(names, "an argument")


def is_local(name: str) -> bool:
    """Say whether a module is the user's own. It is not imported.

    Args:
        name: Its full name. A namespace package is nobody's; the parts of it are.
    """
    return unit_of(name) is not None


def _bundle(names: Iterable[str], user: str) -> Bundle | None:
    reach = _Reach()
    try:
        reach.follow(names)
        units = reach.units()
        return pack(units) if units else None
    except SerializationError as exc:
        raise SerializationError(f"{exc} (needed by {user})") from exc
    except OSError as exc:
        raise SerializationError(
            f"a module that {user} needs is not where it was imported from: {exc}"
        ) from exc


def _name_of(fn: object) -> str:
    name = getattr(fn, "__qualname__", None)
    return f"the function {name!r}" if isinstance(name, str) else "the function"


# --- what is reached ------------------------------------------------------------------


class _Place(NamedTuple):
    """Where the files of a package or a module are."""

    name: str
    """Path in the bundle, without a suffix."""

    path: str
    """The package's folder, or the module's file."""

    archive: str
    """The zip that this path leads into, or ``""``."""

    package: bool

    def files(self) -> Iterator[File]:
        if self.archive:
            prefix = self.path.removeprefix(self.archive)[1:].removesuffix(SOURCE)
            yield from files_in_zip(Path(self.archive), prefix, self.name)
        elif self.package:
            yield from files_in_folder(Path(self.path), self.name)
        else:
            yield file_at(Path(self.path), self.name + SOURCE)


class _Reach:
    """The local modules that are reached from some names."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._places: dict[str, list[_Place]] = {}  # by unit

    def follow(self, names: Iterable[str]) -> None:
        """Add modules, and all that they import.

        Raises:
            SerializationError: One of them cannot travel.
        """
        todo = list(names)
        while todo:
            name = todo.pop()
            if name not in self._seen:
                self._seen.add(name)
                todo += self._add(name)

    def _add(self, name: str) -> list[str]:
        """Add one module; return what it and the packages around it import."""
        refuse_shadow(name.partition(".")[0])
        unit = unit_of(name)
        if unit is None:
            return []
        imports: list[str] = []
        for module in prefixes(name):
            if len(module) < len(unit) or (module != name and module in self._seen):
                continue
            spec = find_spec(module)
            if spec is None:  # an attribute, or it is missing here, too
                break
            self._seen.add(module)
            if not is_namespace(spec):
                self._add_places(unit, _places(module, spec))
                imports += _imports(module, spec)
        return imports

    def _add_places(self, unit: str, places: list[_Place]) -> None:
        had = self._places.setdefault(unit, [])
        for place in places:
            # Usually a module lies in its package's folder; the import system may have
            # been told another place, as by setuptools' package-dir.
            if not any(place.path.startswith(f"{known.path}{os.sep}") for known in had):
                had.append(place)

    def units(self) -> tuple[Unit, ...]:
        """Return what to ship.

        Raises:
            SerializationError: There is compiled code among it.
        """
        return tuple(
            Unit(unit, tuple(_merge(self._places[unit])))
            for unit in sorted(self._places)
        )


def _merge(places: Iterable[_Place]) -> list[File]:
    files: dict[str, File] = {}
    for place in places:
        for file in place.files():
            files.setdefault(file.name, file)
    return [files[name] for name in sorted(files)]


def _places(module: str, spec: ModuleSpec) -> list[_Place]:
    """Return where a module's files are: more than one folder if ``__path__`` says so.

    Raises:
        SerializationError: It is not made from source files.
    """
    origin = spec.origin or ""
    if origin.endswith(tuple(EXTENSION_SUFFIXES)):
        refuse_extension(module, origin)
    if not origin.endswith(SOURCE):
        raise SerializationError(
            f"the module {module!r} was loaded from {origin or 'no file'}, which is "
            "not Python source and cannot travel"
        )
    name = module.replace(".", "/")
    loader = spec.loader
    archive = loader.archive if isinstance(loader, zipimporter) else ""
    if not origin.endswith(INIT):
        return [_Place(name, origin, archive, package=False)]
    folders = {origin.removesuffix(INIT): None}
    if not archive:
        folders |= dict.fromkeys(
            folder
            for folder in path_of(module, spec)
            if is_own_path(folder) and Path(folder).is_dir()
        )
    return [_Place(name, folder, archive, package=True) for folder in folders]


def _imports(module: str, spec: ModuleSpec) -> tuple[str, ...]:
    origin = spec.origin or ""
    is_package = spec.submodule_search_locations is not None
    package = module if is_package else module.rpartition(".")[0]
    if isinstance(spec.loader, zipimporter):
        code = spec.loader.get_code(module)
        return tuple(imports_of(code, package))
    about = Path(origin).stat()
    stamp = about.st_mtime_ns, about.st_ctime_ns, about.st_size
    return _imports_of_file(module, package, origin, stamp)


@lru_cache(maxsize=8192)
def _imports_of_file(
    module: str, package: str, path: str, stamp: tuple[int, ...]
) -> tuple[str, ...]:
    # The loader takes what was compiled before. Compiling would hold up other threads.
    try:
        code = SourceFileLoader(module, path).get_code(module)
    except (SyntaxError, ValueError):  # it cannot be imported anywhere
        return ()
    return () if code is None else tuple(imports_of(code, package))
