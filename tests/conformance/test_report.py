"""A report says what became of each check: as JSON, as a table, next to another one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from wren.conformance.report import (
    Adapter,
    Change,
    Outcome,
    Report,
    Status,
    compare,
    table,
)

PASSED, FAILED, NOT_OFFERED, NOT_RUN = Status


def outcome(
    identity: str,
    status: Status,
    *,
    adapter: str = "s3",
    level: str = "core",
    test: str = "test_it_holds",
    detail: str = "",
) -> Outcome:
    """Return what became of one test."""
    return Outcome(
        adapter=adapter,
        id=identity,
        title="It holds.",
        level=level,
        test=test,
        loop="asyncio",
        status=status,
        seconds=0.5,
        detail=detail,
    )


def report(*outcomes: Outcome) -> Report:
    """Return a report on the adapters that the outcomes name."""
    names = dict.fromkeys((each.part, each.adapter) for each in outcomes)
    adapters = [
        Adapter(part=part, name=name, version="x 1", capabilities={"grants": True})
        for part, name in names
    ]
    return Report(adapters=adapters, outcomes=list(outcomes))


def test_json_comes_back_as_it_was() -> None:
    """What a machine wrote on one day is compared on another."""
    before = report(outcome("S01", PASSED), outcome("S02", FAILED, detail="no\nway"))

    assert Report.from_json(before.to_json()) == before


def test_json_says_what_a_reader_needs() -> None:
    """Who was tested, with what, and how it ended, without counting by hand."""
    found = json.loads(report(outcome("S01", PASSED), outcome("S02", FAILED)).to_json())

    assert found["schema"] == 1
    assert {"suite_version", "python", "platform", "started"} <= found.keys()
    assert found["adapters"][0]["totals"] == {
        "passed": 1,
        "failed": 1,
        "not offered": 0,
        "not run": 0,
    }
    assert found["checks"][1]["status"] == "failed"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1}', "nonsense"]
)
def test_what_is_no_report_is_refused(text: str) -> None:
    """With one kind of error, whatever is wrong with it."""
    with pytest.raises(ValueError, match=r"report|schema|value"):
        Report.from_json(text)


@pytest.mark.parametrize(
    ("statuses", "together"),
    [
        ([PASSED, FAILED, NOT_OFFERED], FAILED),
        ([PASSED, NOT_RUN], NOT_RUN),
        ([PASSED, NOT_OFFERED], PASSED),
        ([NOT_OFFERED, NOT_OFFERED], NOT_OFFERED),
    ],
)
def test_a_check_is_worth_its_worst_test(
    statuses: list[Status], together: Status
) -> None:
    """Several tests share a check, and no failure hides among them."""
    made = report(*(outcome("S01", status) for status in statuses))

    totals = made.totals(made.adapters[0])
    assert totals[together.value] == 1
    assert sum(totals.values()) == 1


def test_only_what_ran_and_held_has_passed() -> None:
    """A run in which nothing ran shows nothing."""
    assert report(outcome("S01", PASSED), outcome("S02", NOT_OFFERED)).passed
    assert not report(outcome("S01", PASSED), outcome("S02", FAILED)).passed
    assert not report(outcome("S01", NOT_RUN)).passed
    assert not report().passed


def test_table_has_a_row_for_each_check_and_a_column_for_each_adapter() -> None:
    """In the order of levels; a store and a backend of one name are two."""
    made = report(
        outcome("S24", FAILED, level="commit", detail="first line\nmore"),
        outcome("S01", PASSED, test="test_bytes_come_back[asyncio-1]"),
        outcome("S01", NOT_OFFERED, adapter="memory", test="test_bytes_come_back[x]"),
        outcome("C01", NOT_RUN, adapter="s3"),
    )

    lines = [line.split() for line in table(made)]

    assert lines == [
        ["storage", "s3", "memory"],
        ["core"],
        ["S01", "bytes", "come", "back", "ok", "-"],
        ["commit"],
        ["S24", "it", "holds", "FAILED", "?"],
        [],
        ["compute", "s3"],
        ["core"],
        ["C01", "it", "holds", "?"],
        [],
        ["storage", "s3", "(x", "1):", "1", "passed,", "1", "failed"],
        ["storage", "memory", "(x", "1):", "1", "not", "offered"],
        ["compute", "s3", "(x", "1):", "1", "not", "run"],
        ["FAILED", "s3", "S24", "test_it_holds:", "first", "line"],
    ]


def test_columns_are_straight() -> None:
    """Whatever the length of a name."""
    made = report(
        outcome("S01", PASSED, test="test_" + "long_" * 30),
        outcome("S02", FAILED, adapter="an adapter with a long name"),
        outcome("S02", PASSED),
    )

    rows = [line for line in table(made) if line.startswith(("  S", "storage"))]

    assert {row.index("ok") for row in rows if "ok" in row} == {rows[0].index("s3")}
    assert rows[2].index("FAILED") == rows[0].index("an adapter")


def test_an_empty_report_has_a_table() -> None:
    """Nothing ran, and nothing is said."""
    assert list(table(report())) == []


def test_comparing_shows_what_changed() -> None:
    """And which of that is a loss."""
    before = report(
        outcome("S01", PASSED), outcome("S02", FAILED), outcome("S03", PASSED)
    )
    after = report(
        outcome("S01", FAILED), outcome("S02", PASSED), outcome("S04", PASSED)
    )

    changes = compare(before, after)

    assert changes == [
        Change("s3", "S01", "test_it_holds", PASSED, FAILED),
        Change("s3", "S02", "test_it_holds", FAILED, PASSED),
        Change("s3", "S03", "test_it_holds", PASSED, NOT_RUN),
        Change("s3", "S04", "test_it_holds", NOT_RUN, PASSED),
    ]
    assert [change.is_loss for change in changes] == [True, False, True, False]


def test_times_do_not_count_as_changes() -> None:
    """No two runs take the same time."""
    first = outcome("S01", PASSED)

    assert compare(report(first), report(replace(first, seconds=9.0))) == []
