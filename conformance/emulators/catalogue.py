"""Every emulator by its name; its module is imported when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, cast

from wren.errors import ConfigurationError
from wren.suggest import unknown

if TYPE_CHECKING:
    from wren.conformance.emulators.emulator import Emulator
    from wren.conformance.emulators.install import Recipe


class _Module(Protocol):
    RECIPES: tuple[Recipe, ...]

    def serve(self) -> AbstractContextManager[Emulator]: ...


class Entry(NamedTuple):
    """One emulator."""

    help: str
    """What it stands in for, and by which program; one line, for people."""

    module: str
    """Has ``RECIPES``, all that must be installed, and a function ``serve``."""

    def recipes(self) -> tuple[Recipe, ...]:
        """Return all that must be installed for it."""
        return self._load().RECIPES

    def serve(self) -> AbstractContextManager[Emulator]:
        """Start it when the block is entered, and stop it when it is left.

        Raises:
            NotInstalledError: Something must be installed first.
            EmulatorError: It did not start.
        """
        return self._load().serve()

    def _load(self) -> _Module:
        return cast("_Module", import_module(self.module))


EMULATORS: Final[Mapping[str, Entry]] = {
    "s3": Entry(
        "Amazon S3, with IAM and STS (MiniStack)", "wren.conformance.emulators.s3"
    ),
    "gcs": Entry(
        "Google Cloud Storage (gcp-storage-emulator)",
        "wren.conformance.emulators.gcs",
    ),
    "azurite": Entry(
        "Azure Blob and Queue Storage (Azurite)", "wren.conformance.emulators.azurite"
    ),
}


def entry(name: str) -> Entry:
    """Return one emulator.

    Raises:
        ConfigurationError: There is none with this name.
    """
    if name not in EMULATORS:
        raise ConfigurationError(unknown("emulator", name, EMULATORS))
    return EMULATORS[name]
