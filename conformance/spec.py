"""What a check is: one promise of a contract, with an identity that reports keep.

A check is a test method of a suite, marked by `check`. The identities and their levels
are those of the contract's documentation; several methods may share one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NoReturn, TypeVar

import pytest

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE: Final = "__wren_check__"
_NOT_OFFERED: Final = "not offered: "


class Level(StrEnum):
    """What an adapter that passes a check may claim."""

    CORE = "core"
    """Every adapter passes; nothing may be left out."""

    COMMIT = "commit"
    """Needed for responses that are stored before they are sent."""

    EXTENDED = "extended"
    """Asked for where the capability is declared."""

    FAULT = "fault"
    """Needs something in between that injects faults."""

    SCALE = "scale"
    """Large objects, many keys, many tasks."""

    SECURITY = "security"
    """What must not leak, and what must not run."""


@dataclass(frozen=True, slots=True)
class Check:
    """One promise."""

    id: str
    """Such as ``S05``. Never given to another promise."""

    title: str
    """The first line of the test's docstring."""

    level: Level


def check(identity: str, level: Level = Level.CORE) -> Callable[[F], F]:
    """Mark a test method as the check of one promise."""

    def mark(test: F) -> F:
        title = (test.__doc__ or test.__name__).strip().partition("\n")[0]
        setattr(test, _ATTRIBUTE, Check(identity, title, level))
        return test

    return mark


def check_of(test: object) -> Check | None:
    """Return what a test checks; None for an ordinary test."""
    found: object = getattr(test, _ATTRIBUTE, None)
    return found if isinstance(found, Check) else None


def not_offered(capability: str) -> NoReturn:
    """End a check of a capability that the adapter does not declare.

    Call it only after it was asserted that the adapter refuses.
    """
    pytest.skip(_NOT_OFFERED + capability)


def is_not_offered(reason: str) -> bool:
    """Say whether a test was skipped by `not_offered`."""
    return _NOT_OFFERED in reason
