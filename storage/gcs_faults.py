"""Errors that the parts of the GCS adapter tell each other."""

from __future__ import annotations

from typing import Final

from wren.errors import AccessDeniedError
from wren.storage.undisturbed import DisturbedError

NAME: Final = "gcs"
"""See `Storage.name`."""


class PreconditionError(DisturbedError):
    """The object is not the one asked for, or there is one at all."""


class TokenRefusedError(AccessDeniedError):
    """The token is not accepted; a new one may be."""
