"""Collects what pytest says of checks, and makes a report of it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import pytest

import wren
from wren.conformance.report import (
    NOT_SELECTED,
    Adapter,
    Outcome,
    Report,
    Status,
    part_of,
    table,
)
from wren.conformance.spec import Check, check_of, is_not_offered
from wren.conformance.targets import describe_compute, describe_storage

ADAPTER: Final = pytest.StashKey[Adapter]()
"""What a test is about, where a fixture knows better than the recorder."""

_LONGEST: Final = 500  # characters of a failure's text


@dataclass(slots=True)
class _Record:
    """What is known of one test so far."""

    check: Check
    test: str
    loop: str
    suite: str
    """The class, of which all tests are about one adapter; or the test itself."""

    status: Status = Status.NOT_RUN
    seconds: float = 0.0
    detail: str = NOT_SELECTED


class Recorder:
    """A pytest plugin."""

    def __init__(self, path: Path | None, *, show: bool) -> None:
        """Say what to do with the report.

        Args:
            path: Where to write it.
            show: Print it as a table at the end.
        """
        self._path = path
        self._show = show
        self._records: dict[str, _Record] = {}
        self._adapters: dict[str, Adapter] = {}  # by suite

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Note checks that will not run."""
        for item in items:
            self._note(item)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note checks that shall run, but may not get that far."""
        for item in session.items:
            record = self._note(item)
            if record is not None:
                record.detail = "the run ended before"

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Note what became of a step of a check."""
        report = yield
        record = self._records.get(item.nodeid)
        if record is not None:
            record.seconds += report.duration
            _judge(record, report)
            if record.suite not in self._adapters:
                adapter = _adapter_of(item)
                if adapter is not None:
                    self._adapters[record.suite] = adapter
        return report

    def pytest_sessionfinish(self) -> None:
        """Write the report."""
        if self._path is not None:
            self._path.write_text(self.report().to_json(), encoding="utf-8")

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> None:
        """Print the table."""
        if self._show and self._records:
            terminalreporter.section("conformance")
            for line in table(self.report()):
                terminalreporter.write_line(line)

    def report(self) -> Report:
        """Return what is known so far.

        A suite of which nothing was selected is not part of it.
        """
        unknown = {
            record.suite: Adapter(
                part=part_of(record.check.id),
                name=record.suite.rpartition("::")[2],
                version="unknown",
            )
            for record in self._records.values()
            if record.detail != NOT_SELECTED
        }
        adapters = unknown | self._adapters
        outcomes = [
            Outcome(
                adapter=adapters[record.suite].name,
                id=record.check.id,
                title=record.check.title,
                level=record.check.level.value,
                test=record.test,
                loop=record.loop,
                status=record.status,
                seconds=round(record.seconds, 4),
                detail=record.detail,
            )
            for record in self._records.values()
            if record.suite in adapters
        ]
        first: dict[tuple[str, str], Adapter] = {}
        for adapter in adapters.values():  # several suites may be about one
            first.setdefault((adapter.part, adapter.name), adapter)
        return Report(adapters=list(first.values()), outcomes=outcomes)

    def _note(self, item: pytest.Item) -> _Record | None:
        check = check_of(getattr(item, "obj", None))
        if check is None:
            return None
        suite = item.getparent(pytest.Class) or item
        callspec: Any = getattr(item, "callspec", None)
        loop: Any = callspec.params.get("anyio_backend", "") if callspec else ""
        record = _Record(
            check=check,
            test=item.name,
            loop=loop if isinstance(loop, str) else loop[0],  # with its options
            suite=suite.nodeid,
        )
        self._records[item.nodeid] = record
        return record


def _judge(record: _Record, report: pytest.TestReport) -> None:
    """Let a step decide about its test. The worst step counts."""
    if report.failed:
        record.status, record.detail = Status.FAILED, _reason(report)
    elif report.skipped and hasattr(report, "wasxfail"):
        record.status = Status.FAILED
        record.detail = f"expected: {report.wasxfail}"
    elif report.skipped:
        reason = _reason(report)
        refused = is_not_offered(reason)
        record.status = Status.NOT_OFFERED if refused else Status.NOT_RUN
        record.detail = reason
    elif report.when == "call":
        record.status, record.detail = Status.PASSED, ""


def _reason(report: pytest.TestReport) -> str:
    """Return the text of a failure or of a skip, without its traceback."""
    found: Any = report.longrepr
    if isinstance(found, tuple):  # of a skip: the file, the line, the reason
        return str(cast("tuple[str, int, str]", found)[2]).removeprefix("Skipped: ")
    crash = getattr(found, "reprcrash", None)
    text = str(found) if crash is None else crash.message
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _adapter_of(item: pytest.Item) -> Adapter | None:
    """Return what a test is about, if its fixtures got that far."""
    adapter = item.stash.get(ADAPTER, None)
    if adapter is not None:
        return adapter
    name: str = getattr(getattr(item, "cls", None), "adapter", "")
    values: dict[str, Any] = getattr(item, "funcargs", {})
    if "compute" in values:  # the store beside it is where its workers leave marks
        return describe_compute(values["compute"], name)
    for store in ("proxied_store", "store"):
        if store in values and "open_executor" not in values:
            return describe_storage(values[store], name)
    if name:
        return Adapter(
            part="executor", name=name, version=f"wren-cloud {wren.__version__}"
        )
    return None
