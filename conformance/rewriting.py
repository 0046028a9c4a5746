"""Asks pytest to show the values in a check's failed assertion.

It does so of its own accord in a project's tests, but in an installed package only
when it is asked before the module is imported. So what imports checks imports this
first.
"""

from __future__ import annotations

import sys
from pkgutil import iter_modules
from typing import Final

import pytest

import wren.conformance

# Not the others: functions that are sent to workers must not need pytest there.
_WITH_CHECKS: Final = ("compute", "executor", "models", "storage")

pytest.register_assert_rewrite(
    *(
        name
        for module in iter_modules(wren.conformance.__path__, "wren.conformance.")
        if (name := module.name) not in sys.modules
        and name.rpartition(".")[2].startswith(_WITH_CHECKS)
    )
)
