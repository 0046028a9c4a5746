"""A deterministic archive of the user's own packages and modules.

The same files give the same bytes, whoever packs them, when and where: entries are
sorted, dates are fixed, and of a file's mode only the owner's executable bit counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from wren.errors import SerializationError
from wren.importer import MANIFEST, MAX_BYTES, MAX_ENTRIES

if TYPE_CHECKING:
    from zipfile import ZipFile

_SKIPPED_FOLDERS: Final = frozenset(
    {
        ".bzr",
        ".git",
        ".hg",
        ".ipynb_checkpoints",
        ".mypy_cache",
        ".nox",
        ".pytest_cache",
        ".ruff_cache",
        ".svn",
        ".tox",
        "__pycache__",
    }
)
_SKIPPED_SUFFIXES: Final = (".egg-info", ".pyc", ".pyo")
_COMPILED: Final = (*EXTENSION_SUFFIXES, ".dylib", ".pyd", ".so")
_DATE: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Bundle:
    """Modules that travel to workers together; see `wren.importer.install`."""

    id: str
    """SHA-256 of the data in hexadecimal."""

    data: bytes
    """A zip."""

    modules: tuple[str, ...]
    """What is shipped whole, sorted: the full names of packages and of modules outside
    of any, and of such parts of namespace packages."""


class File(NamedTuple):
    """One file of a unit, and how to notice that it has changed."""

    name: str
    """Its path in the bundle."""

    path: str
    """Where it is, or where the zip is that it is in."""

    member: str
    """Its path in that zip, or ``""``."""

    size: int
    """Bytes."""

    executable: bool

    stamp: tuple[int, ...]
    """Differs after a change, as far as the file system can tell."""


class Unit(NamedTuple):
    """A package with everything in it, or a single module."""

    name: str
    """Full name."""

    files: tuple[File, ...]
    """Sorted."""


def files_in_folder(folder: Path, name: str) -> Iterator[File]:
    """Yield the files of a package's folder and of the folders in it, in any order.

    Links are followed. What compiling, version control and test tools leave behind is
    left out, and so are virtual environments.

    Args:
        folder: The folder.
        name: Its path in the bundle.

    Raises:
        SerializationError: There is compiled code among them.
    """
    yield from _walk(folder, name, frozenset())


def _walk(folder: Path, name: str, above: frozenset[tuple[int, int]]) -> Iterator[File]:
    about = folder.stat()
    place = about.st_dev, about.st_ino
    if place in above:  # a link to a folder that it is in
        return
    with os.scandir(folder) as entries:
        found = list(entries)
    if above and any(entry.name == "pyvenv.cfg" for entry in found):
        return
    for entry in found:
        inner = f"{name}/{entry.name}"
        if entry.name.endswith(_SKIPPED_SUFFIXES) or entry.name in _SKIPPED_FOLDERS:
            continue
        if entry.is_dir():
            yield from _walk(Path(entry.path), inner, above | {place})
        elif entry.is_file():  # not a socket, a device or a broken link
            with suppress(FileNotFoundError):  # an editor's temporary file, gone again
                yield file_at(Path(entry.path), inner)


def file_at(path: Path, name: str) -> File:
    """Describe a file.

    Args:
        path: Where it is.
        name: Its path in the bundle.

    Raises:
        SerializationError: It is compiled code.
    """
    _refuse_compiled(str(path), name)
    about = path.stat()
    return File(
        name,
        str(path),
        "",
        about.st_size,
        bool(about.st_mode & stat.S_IXUSR),
        (about.st_mtime_ns, about.st_ctime_ns, about.st_ino),
    )


def files_in_zip(archive: Path, prefix: str, name: str) -> Iterator[File]:
    """Yield the files of a package, or the single module, that is in a zip, likewise.

    Args:
        archive: The zip.
        prefix: The package's path in it, or that of the module without its suffix.
        name: The same path in the bundle.

    Raises:
        SerializationError: There is compiled code among them.
    """
    from zipfile import ZipFile

    about = archive.stat()
    with ZipFile(archive) as opened:
        entries = opened.infolist()
    for info in entries:
        member = info.filename
        *folders, last = member.split("/")
        if not _SKIPPED_FOLDERS.isdisjoint(folders):
            continue
        if info.is_dir() or last.endswith(_SKIPPED_SUFFIXES):
            continue
        if member == f"{prefix}.py" or member.startswith(f"{prefix}/"):
            inner = name + member.removeprefix(prefix)
            _refuse_compiled(f"{archive}/{member}", inner)
            stamp = about.st_mtime_ns, about.st_ctime_ns, about.st_ino, info.CRC
            yield File(inner, str(archive), member, info.file_size, False, stamp)


def refuse_extension(module: str, path: str) -> None:
    """Raise the error that says what to do about compiled code.

    Args:
        module: The module's full name.
        path: The file.

    Raises:
        SerializationError: Always.
    """
    raise SerializationError(
        f"the module {module!r} is a C extension ({path}), which cannot travel to "
        "workers: build it into a wheel and list that in the file that "
        "WREN_REQUIREMENTS names"
    )


def _refuse_compiled(path: str, name: str) -> None:
    if name.endswith(_COMPILED):
        folder, _, last = name.rpartition("/")
        refuse_extension(f"{folder}/{last.partition('.')[0]}".replace("/", "."), path)


@lru_cache(maxsize=4)
def pack(units: tuple[Unit, ...]) -> Bundle:
    """Make the bundle of some units. The last few are remembered.

    Args:
        units: Sorted by name.

    Raises:
        SerializationError: They are too large, or a file cannot be read.
    """
    from io import BytesIO
    from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

    _check_size(units)
    versions: dict[str, str] = {}
    buffer = BytesIO()
    with ZipFile(buffer, "w", ZIP_DEFLATED) as archive, _Reader() as reader:
        for unit in units:
            version = hashlib.sha256()
            for file in unit.files:
                content = reader.read(file)
                mode = 0o755 if file.executable else 0o644
                info = ZipInfo(file.name, _DATE)
                info.create_system = 3  # Unix: the mode counts
                info.external_attr = (stat.S_IFREG | mode) << 16
                info.compress_type = ZIP_DEFLATED
                archive.writestr(info, content)
                version.update(f"{file.name}\0{mode}\0{len(content)}\0".encode())
                version.update(content)
            versions[unit.name] = version.hexdigest()
        info = ZipInfo(MANIFEST, _DATE)
        info.create_system = 3
        info.external_attr = (stat.S_IFREG | 0o644) << 16
        archive.writestr(info, json.dumps(versions))
    data = buffer.getvalue()
    return Bundle(hashlib.sha256(data).hexdigest(), data, tuple(versions))


def _check_size(units: Iterable[Unit]) -> None:
    files = [file for unit in units for file in unit.files]
    total = sum(file.size for file in files)
    if total <= MAX_BYTES and len(files) < MAX_ENTRIES:
        return
    largest = max(files, key=lambda file: file.size)
    raise SerializationError(
        f"the function needs modules of {total / 1e6:.0f} MB in {len(files)} files, "
        f"and at most {MAX_BYTES / 1e6:.0f} MB travel with it; the largest file is "
        f"{largest.path} ({largest.size / 1e6:.0f} MB): keep data out of the package "
        "and pass it as an argument"
    )


class _Reader:
    """Reads files, each zip being opened once."""

    def __init__(self) -> None:
        self._archives: dict[str, ZipFile] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for archive in self._archives.values():
            archive.close()

    def read(self, file: File) -> bytes:
        """Return a file's content.

        Raises:
            SerializationError: It cannot be read, or its name cannot be written.
        """
        try:
            file.name.encode()
            if not file.member:
                return Path(file.path).read_bytes()
            return self._open(file.path).read(file.member)
        except (OSError, UnicodeEncodeError) as exc:
            raise SerializationError(
                f"{file.path!r} belongs to a module that the function needs, and it "
                f"cannot be read: {exc}"
            ) from exc

    def _open(self, path: str) -> ZipFile:
        from zipfile import ZipFile

        if path not in self._archives:
            self._archives[path] = ZipFile(path)
        return self._archives[path]
