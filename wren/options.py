"""How one job is run: the defaults of an executor, and what a call overrides."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import TypedDict, cast

from wren.config import Settings
from wren.errors import ConfigurationError
from wren.suggest import unknown


class Overrides(TypedDict, total=False):
    """Keywords of `Executor.map`, `Executor.starmap` and `Executor.options`."""

    timeout: float | None
    retries: int
    chunksize: int | None
    concurrency: int | None
    buffer: int | None
    commit_after: float
    retry_on: tuple[type[Exception], ...]
    return_exceptions: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Checked options of one job; see `Executor` for their meaning."""

    timeout: float | None = None
    retries: int = 2
    chunksize: int | None = None
    concurrency: int | None = None
    buffer: int | None = None
    commit_after: float = 10.0
    retry_on: tuple[type[Exception], ...] = ()
    return_exceptions: bool = False

    def __post_init__(self) -> None:
        if self.timeout == math.inf:
            object.__setattr__(self, "timeout", None)
        if self.timeout is not None and not _more_than(self.timeout, 0):
            raise ConfigurationError(
                f"timeout={self.timeout!r}: seconds, more than 0, or None for no limit"
            )
        if self.timeout is not None:  # a float, whatever kind of number it was
            object.__setattr__(self, "timeout", float(self.timeout))
        if not _is_count(self.retries, 0):
            raise ConfigurationError(f"retries={self.retries!r}: 0 or more")
        if self.commit_after != 0 and not _more_than(self.commit_after, 0):
            raise ConfigurationError(
                f"commit_after={self.commit_after!r}: seconds, 0 or more, or inf"
            )
        for name in ("chunksize", "concurrency", "buffer"):
            value = getattr(self, name)
            if value is not None and not _is_count(value, 1):
                raise ConfigurationError(f"{name}={value!r}: 1 or more, or None")
        if not _are_exceptions(self.retry_on):
            raise ConfigurationError(
                f"retry_on={self.retry_on!r}: a tuple of Exception classes"
            )

    def override(self, overrides: Overrides) -> Options:
        """Return these options with some replaced.

        Raises:
            ConfigurationError: An unknown name or a bad value.
        """
        for name in overrides.keys() - Overrides.__annotations__.keys():
            raise ConfigurationError(unknown("option", name, Overrides.__annotations__))
        return replace(self, **overrides) if overrides else self


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, Integral) and int(value) >= least


def _more_than(value: object, least: float) -> bool:
    return isinstance(value, Real) and float(value) > least


def _are_exceptions(kinds: object) -> bool:
    return isinstance(kinds, tuple) and all(
        isinstance(kind, type) and issubclass(kind, Exception)
        for kind in cast("tuple[object, ...]", kinds)
    )


def options_of(settings: Settings) -> Options:
    """Return the options that the settings ask for."""
    return Options(
        timeout=settings.timeout,
        retries=settings.retries,
        chunksize=settings.chunksize,
        buffer=settings.buffer,
        commit_after=settings.commit_after,
    )
