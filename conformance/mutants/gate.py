"""Runs the suite on broken stores, each only as far as it must fail; a pytest plugin.

    pytest -p wren.conformance.mutants.gate --verdicts FILE module_with_suites.py

Of a test class with an attribute ``caught_by``, only the checks named there run; of any
other class, all. The file gets one JSON line for each test that ran.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from wren.conformance.spec import check_of

_OPTION: Final = "--verdicts"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say where the verdicts go."""
    parser.addoption(_OPTION, required=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what need not run."""
    items[:] = [item for item in items if _concerns(item)]


def pytest_configure(config: pytest.Config) -> None:
    """Begin to write."""
    file = str(config.getoption(_OPTION))
    config.pluginmanager.register(_Verdicts(Path(file)))


def _concerns(item: pytest.Item) -> bool:
    wanted: Sequence[str] = getattr(getattr(item, "cls", None), "caught_by", ())
    found = check_of(getattr(item, "function", None))
    return not wanted or (found is not None and found.id in wanted)


class _Verdicts:
    def __init__(self, file: Path) -> None:
        self._file = file

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        _, name, test = report.nodeid.split("::")
        verdict = {"class": name, "test": test, "outcome": report.outcome}
        with self._file.open("a") as file:
            file.write(json.dumps(verdict | {"detail": report.longreprtext}) + "\n")
