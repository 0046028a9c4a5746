"""Asks pytest to show the values in a check's failed assertion.

It does so of its own accord in a project's tests, but in an installed package only
when it is asked before the module is imported. So what imports checks imports this
first.
"""

from __future__ import annotations

import sys
from typing import Final

import pytest

_CHECKS: Final = (
    "storage_objects",
    "storage_listing",
    "storage_keys",
    "storage_commits",
    "storage_concurrency",
    "storage_grants",
    "storage_faults",
    "compute",
    "executor",
    "models",
    "executor_model",
)

_names = (f"{__package__}.{name}" for name in _CHECKS)
pytest.register_assert_rewrite(*(name for name in _names if name not in sys.modules))
