"""What is deployed as a function: the worker, cloudpickle and the user's requirements.

A package has a fingerprint before it is built. It is taken from what goes in, so that
an unchanged configuration is found deployed without building anything, by any driver;
and a change of it is another function, so that nothing is ever updated in place.
"""

from __future__ import annotations

import hashlib
import io
import pkgutil
import zipfile
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from anyio import TemporaryDirectory, to_thread

from wren import requirements
from wren.errors import DeploymentError
from wren.requirements import Target
from wren.worker import versions

WORKER: Final = (
    "wren",
    "wren.diagnose",
    "wren.envelope",
    "wren.errors",
    "wren.failures",
    "wren.files",
    "wren.grants",
    "wren.importer",
    "wren.retrieval",
    "wren.serialize",
    "wren.tasks",
    "wren.worker",
)
"""The modules of wren that a worker imports."""

_DATE: Final = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file can say
_FILE: Final = 0o100644  # readable to the user that the platform runs the function as
_EXECUTABLE: Final = 0o100755


@dataclass(frozen=True, slots=True)
class Archive:
    """A zip file with the function's code. Equal content makes equal bytes."""

    data: bytes

    unzipped: int
    """Bytes of all files in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What goes into an archive."""

    entry: Mapping[str, bytes]
    """Files by their names in the archive: what the platform calls, and its settings.
    One that the requirements bring as well loses."""

    target: Target
    """What the function runs on."""

    requirements: Path | None = None
    """The user's requirements file."""

    def fingerprint(self, *settings: object) -> str:
        """Return 12 hexadecimal digits that change with anything that goes in.

        Reads files, so on an event loop it belongs into a thread. Versions that a
        file leaves open are not in it: they are chosen when a function is
        first deployed, and stay. Whoever wants newer ones removes the function, or pins
        them.

        Args:
            settings: What else makes it another function, such as its memory.

        Raises:
            ConfigurationError: The requirements file cannot be read.
        """
        digest = hashlib.sha256()
        for name, data in sorted(self._ours().items()):
            digest.update(b"%b\0%d\0%b" % (name.encode(), len(data), data))
        if self.requirements is not None:
            for text in requirements.texts(self.requirements):
                digest.update(b"%d\0%b" % (len(text), text))
        digest.update(repr((versions(), self.target, settings)).encode())
        return digest.hexdigest()[:12]

    async def build(self) -> Archive:
        """Return the archive. Needs the network where there are requirements.

        Raises:
            ConfigurationError: The requirements file cannot be read, or there is
                neither uv nor pip.
            DeploymentError: A requirement cannot be installed for the target.
        """
        ours = await to_thread.run_sync(self._ours)
        if self.requirements is None:
            return await to_thread.run_sync(_zip, ours, frozenset[str]())
        async with TemporaryDirectory(prefix="wren-") as folder:
            await requirements.install(self.requirements, self.target, Path(folder))
            theirs, executable = await to_thread.run_sync(_read, Path(folder))
            return await to_thread.run_sync(_zip, theirs | ours, executable)

    def _ours(self) -> dict[str, bytes]:
        files = dict(_sources(WORKER))
        files.update(_sources(_modules("cloudpickle")))
        files.update(self.entry)
        return files


def _modules(package: str) -> Iterator[str]:
    """Yield the names of a package and of what is in it."""
    yield package
    spec = find_spec(package)
    if spec is not None and spec.submodule_search_locations is not None:
        inner = pkgutil.iter_modules(spec.submodule_search_locations, f"{package}.")
        for module in inner:
            yield module.name


def _sources(names: Iterator[str] | tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Yield each module's name in an archive, and its source.

    The import system is asked, and no directory is walked: an installed wheel, a
    checkout and an editable installation give the same archive.
    """
    for name in names:
        spec = find_spec(name)
        source = None if spec is None else _source(spec)
        if spec is None or source is None:
            raise DeploymentError(f"the source of the module {name} is not to be found")
        suffix = ".py" if spec.submodule_search_locations is None else "/__init__.py"
        yield name.replace(".", "/") + suffix, source


def _source(spec: ModuleSpec) -> bytes | None:
    loader = spec.loader
    get_source = getattr(loader, "get_source", None)
    text = get_source(spec.name) if get_source is not None else None
    return None if text is None else str(text).encode()


def _read(folder: Path) -> tuple[dict[str, bytes], frozenset[str]]:
    """Return the files below a folder, and which of them can be executed."""
    files: dict[str, bytes] = {}
    executable: set[str] = set()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            name = path.relative_to(folder).as_posix()
            files[name] = path.read_bytes()
            if path.stat().st_mode & 0o111:
                executable.add(name)
    return files, frozenset(executable)


def _zip(files: Mapping[str, bytes], executable: AbstractSet[str]) -> Archive:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in sorted(files.items()):
            info = zipfile.ZipInfo(name, _DATE)
            info.create_system = 3  # Unix, so that the mode counts
            mode = _EXECUTABLE if name in executable else _FILE
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data, compresslevel=9)
    return Archive(buffer.getvalue(), sum(map(len, files.values())))
