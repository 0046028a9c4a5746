"""Every emulator by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final, NamedTuple

from wren.conformance.emulators import azurite, s3
from wren.conformance.emulators.emulator import Emulator
from wren.conformance.emulators.install import Recipe
from wren.errors import ConfigurationError
from wren.suggest import unknown


class Entry(NamedTuple):
    """One emulator."""

    help: str
    """One line, for people."""

    serve: Callable[[], AbstractContextManager[Emulator]]
    """Starts it, and stops it when the block is left."""

    recipes: tuple[Recipe, ...]
    """All that must be installed for it."""


EMULATORS: Final[Mapping[str, Entry]] = {
    "s3": Entry("Amazon S3, with IAM and STS (MiniStack)", s3.serve, (s3.RECIPE,)),
    "azurite": Entry(
        "Azure Blob and Queue Storage (Azurite)", azurite.serve, (azurite.RECIPE,)
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
