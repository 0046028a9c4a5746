"""Makes a bundle of the driver's own modules importable in a worker.

A bundle is a zip of packages and modules, made by `wren.bundle`. It is unpacked once
for all processes that share a directory, and goes to the front of `sys.path`: what the
driver sent is newer than whatever else has the name. It cannot contain anything that is
called like a module of the standard library, of wren or of cloudpickle.
"""

from __future__ import annotations

import json
import os
import stat
import struct
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from wren.errors import IntegrityError

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

Buffer: TypeAlias = bytes | bytearray | memoryview

MANIFEST: Final = "wren-bundle.json"
"""The entry that names the bundle's units and says which version each is.

A unit is what is shipped whole: a package, a module, or a part of a namespace package.
"""

MAX_BYTES: Final = 200 * 1024 * 1024
"""Largest bundle, unpacked."""

MAX_ENTRIES: Final = 100_000
"""Most files in a bundle."""

RESERVED: Final = frozenset({"__main__", "cloudpickle", "wren"})
"""Modules, beside those of the standard library, that no bundle brings."""

_MAX_MANIFEST: Final = 16 * 1024 * 1024
_DEFLATE_RATIO: Final = 1032  # https://zlib.net/zlib_tech.html
_PIECE: Final = 1024 * 1024
_SHA256_DIGITS: Final = 64
_SEPARATORS: Final = frozenset("/\\:\0")
_HEXADECIMAL: Final = frozenset("0123456789abcdef")

# What a process has imported is state of the process, and so is this.
_installed: dict[str, dict[str, str]] = {}  # bundle -> unit -> version
_current: dict[str, str] = {}  # unit -> version that an import gives, or has given


def install(bundle_id: str, data: Buffer, root: str) -> None:
    """Make the modules of a bundle the ones that an import gives.

    Modules of the same names that were imported before, and are another version, are
    forgotten together with those that came in one bundle with them, so that the next
    import gives the new ones. Objects made from the old ones go on as they are.
    Installing a bundle again is cheap; it goes in front of those that came after it.

    Args:
        bundle_id: SHA-256 of ``data`` in hexadecimal.
        data: The bundle.
        root: A private directory. The bundle stays there until the caller removes it;
            several processes may use the same directory at the same time.

    Raises:
        IntegrityError: ``data`` is not what ``bundle_id`` says, or is not a bundle.
            Nothing was installed, and nothing of it is left in ``root``.
        OSError: There is no room for it, or ``root`` cannot be written to.
    """
    if len(bundle_id) != _SHA256_DIGITS or not _HEXADECIMAL.issuperset(bundle_id):
        raise IntegrityError("a bundle's name is not a SHA-256")
    directory = Path(root, bundle_id)
    if not directory.is_dir():
        _unpack(bundle_id, data, directory)
    if bundle_id not in _installed:
        _installed[bundle_id] = _units((directory / MANIFEST).read_bytes())
    units = _installed[bundle_id]
    if "__mp_main__" in units:
        # When this is imported, it gives that name to __main__; so let it come first.
        import_module("multiprocessing")
    clashing = _clashing(units)
    _forget(units, clashing)
    for unit in clashing:
        del _current[unit]
    _current.update(units)
    _put_first(directory, units, clashing)


def installed() -> set[str]:
    """Return the ids of the bundles that this process has installed."""
    return set(_installed)


# --- what an import gives -------------------------------------------------------------


def _clashing(units: Mapping[str, str]) -> set[str]:
    """Return the units that ceased to be, as a folder became a package or stopped to.

    ``a.b`` is a unit as long as ``a`` is a namespace package; otherwise ``a`` is one.
    """
    return {
        old
        for old in _current
        if old not in units and any(_nested(old, unit) for unit in units)
    }


def _nested(one: str, other: str) -> bool:
    return one.startswith(f"{other}.") or other.startswith(f"{one}.")


def _forget(units: Mapping[str, str], clashing: set[str]) -> None:
    """Remove imported modules that ``units`` replaces, and those that may use them."""
    changed = clashing.copy()
    for unit, version in units.items():
        if unit in _current:
            if _current[unit] != version:
                changed.add(unit)
        elif unit in sys.modules:  # it did not come in a bundle
            changed.add(unit)
    if not changed:
        return
    # A bundle has everything that its modules import: only what came together with a
    # changed unit can hold on to it.
    affected = changed.copy()
    for had in (units, *_installed.values()):
        if not changed.isdisjoint(had):
            affected.update(had)
    for name in list(sys.modules):
        if any(name == unit or name.startswith(f"{unit}.") for unit in affected):
            del sys.modules[name]
            above, _, last = name.rpartition(".")
            if above in sys.modules:  # or ``from above import last`` finds it there
                sys.modules[above].__dict__.pop(last, None)


def _put_first(
    directory: Path, units: Mapping[str, str], clashing: Iterable[str]
) -> None:
    """Put a bundle to the front of `sys.path`; remove those that it makes useless.

    The import system's caches stay valid: a bundle is complete before it is first named
    there, and never changes.
    """
    useless = {
        str(directory.with_name(bundle))
        for bundle, had in _installed.items()
        if had.keys() <= units.keys() or not had.keys().isdisjoint(clashing)
    }
    rest = [place for place in sys.path if place not in useless]
    sys.path[:] = [str(directory), *rest]


# --- unpacking ------------------------------------------------------------------------


def _unpack(bundle_id: str, data: Buffer, directory: Path) -> None:
    # Imported here: a worker that is sent no bundle starts without them.
    import hashlib
    import shutil

    if hashlib.sha256(data).hexdigest() != bundle_id:
        raise IntegrityError(f"the content of the bundle is not {bundle_id}")
    directory.parent.mkdir(0o700, parents=True, exist_ok=True)
    temporary = directory.with_name(f".{os.getpid()}-{os.urandom(8).hex()}")
    temporary.mkdir(0o700)
    try:
        _extract_all(data, temporary)
        try:
            temporary.rename(directory)
        except OSError:
            if not directory.is_dir():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _extract_all(data: Buffer, directory: Path) -> None:
    import io
    import zlib
    from zipfile import BadZipFile, ZipFile

    try:
        with ZipFile(io.BytesIO(data)) as archive:
            for info in _checked(archive, len(data)):
                _extract(archive, info, directory)
    except (FileExistsError, NotADirectoryError) as exc:
        raise IntegrityError("an entry of the bundle lies inside another one") from exc
    except (
        BadZipFile,
        EOFError,
        RuntimeError,  # encrypted, or a feature that is not supported
        ValueError,
        struct.error,
        zlib.error,
    ) as exc:
        raise IntegrityError(f"the bundle cannot be unpacked: {exc}") from exc


def _checked(archive: ZipFile, packed: int) -> list[ZipInfo]:
    """Return the archive's entries if every one of them may be unpacked.

    Raises:
        IntegrityError: One of them may not.
    """
    entries = archive.infolist()
    by_name = {info.filename: info for info in entries}
    total = sum(info.file_size for info in entries)
    if len(entries) > MAX_ENTRIES or len(by_name) != len(entries):
        raise IntegrityError("the bundle has too many entries, or two of one name")
    # More than deflate can do means that entries share their data.
    if total > min(MAX_BYTES + _MAX_MANIFEST, packed * _DEFLATE_RATIO):
        raise IntegrityError(f"the bundle would unpack to {total} bytes")
    manifest = by_name.get(MANIFEST)
    if manifest is None or manifest.file_size > _MAX_MANIFEST:
        raise IntegrityError("the bundle does not say what it contains")
    places = {unit.replace(".", "/") for unit in _units(archive.read(manifest))}
    for name, info in by_name.items():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG) or info.orig_filename != name:
            raise IntegrityError(f"the bundle's entry {name!r} is not a plain file")
        if name != MANIFEST and not _is_inside(name, places):
            raise IntegrityError(f"the bundle's entry {name!r} is out of place")
    return entries


def _is_inside(name: str, places: set[str]) -> bool:
    """Say whether a path is that of a unit's module, or of a file in its package."""
    parts = name.split("/")
    if not {"", ".", ".."}.isdisjoint(parts) or "\\" in name or "\0" in name:
        return False
    if name.endswith(".py") and name[:-3] in places:
        return True
    return any("/".join(parts[:end]) in places for end in range(1, len(parts)))


def _units(manifest: bytes) -> dict[str, str]:
    """Return the units that a manifest names, and the version of each.

    Raises:
        IntegrityError: It is no manifest, or names what a bundle must not bring.
    """
    try:
        loaded = json.loads(manifest)
    except (ValueError, RecursionError) as exc:
        raise IntegrityError("the bundle's manifest is not JSON") from exc
    if not isinstance(loaded, dict):
        raise IntegrityError("the bundle's manifest is not an object")
    units: dict[str, str] = {}
    for unit, version in cast("dict[str, object]", loaded).items():
        top, *rest = unit.split(".")
        if not all((top, *rest)) or not _SEPARATORS.isdisjoint(unit):
            raise IntegrityError(f"the bundle brings {unit!r}, which names no module")
        if top in RESERVED or top in sys.stdlib_module_names:
            raise IntegrityError(f"the bundle brings {unit!r}, which is not its own")
        if not isinstance(version, str):
            raise IntegrityError(f"the bundle's version of {unit!r} is not a text")
        units[unit] = version
    return units


def _extract(archive: ZipFile, info: ZipInfo, directory: Path) -> None:
    from shutil import copyfileobj

    path = directory / info.filename
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    executable = info.external_attr >> 16 & stat.S_IXUSR
    path.touch(0o700 if executable else 0o600, exist_ok=False)
    with archive.open(info) as source, path.open("wb") as file:
        copyfileobj(source, file, _PIECE)
