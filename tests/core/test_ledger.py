"""A ledger gives each task one outcome, and each reader what it is owed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from anyio import wait_all_tasks_blocked
from hypothesis import given
from hypothesis import strategies as st

from wren.errors import InvalidStateError, TaskCancelledError
from wren.ledger import PENDING, Failed, Ledger

BROKEN = LookupError("broken")


def settled(count: int, *, streaming: bool = False) -> Ledger:
    ledger = Ledger(streaming)
    ledger.reserve(count)
    ledger.settle(0, list(range(count)))
    ledger.close()
    return ledger


def test_a_slot_is_pending_until_it_has_its_outcome_for_good() -> None:
    """Those settled alone keep theirs when their slice comes."""
    ledger = Ledger(streaming=False)
    assert ledger.reserve(4) == 0
    assert ledger.reserve(1) == 4
    assert [ledger.outcome(n) for n in range(6)] == [PENDING] * 6

    assert ledger.fail(2, BROKEN)
    assert not ledger.fail(2, KeyError())
    assert not ledger.fail(5, KeyError())
    late = ledger.settle(0, ["a", "b", "c", "d"])

    assert late == ["c"]
    assert [ledger.outcome(n) for n in (0, 1, 3)] == ["a", "b", "d"]
    assert ledger.outcome(2).error is BROKEN
    assert not ledger.fail(0, KeyError())
    assert ledger.pending == 1


def test_the_first_failure_in_time_is_remembered() -> None:
    """Not the one with the lowest index."""
    ledger = Ledger(streaming=False)
    ledger.reserve(3)

    ledger.settle(2, [Failed(BROKEN)], BROKEN)
    ledger.settle(0, [Failed(KeyError()), 1], KeyError())

    assert ledger.first_failure is BROKEN


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=20),
    st.sets(st.integers(0, 60)),
    st.randoms(use_true_random=False),
)
def test_outcomes_complete_once_each_in_the_order_they_came(
    sizes: list[int], early: set[int], order: random.Random
) -> None:
    """Whatever is settled alone before its slice."""
    ledger = Ledger(streaming=False)
    starts = [ledger.reserve(size) for size in sizes]
    ledger.close()
    total = sum(sizes)
    expected = [index for index in sorted(early) if ledger.fail(index, BROKEN)]
    slices = list(zip(starts, sizes, strict=True))
    order.shuffle(slices)
    for start, size in slices:
        ledger.settle(start, list(range(start, start + size)))
        expected += [n for n in range(start, start + size) if n not in early]

    completed: list[int] = []
    while (one := ledger.next_completed()) is not None:
        index, outcome = one
        assert type(outcome) is Failed if index in early else outcome == index
        ledger.read_completed(index)
        completed.append(index)
    assert completed == expected
    assert sorted(completed) == list(range(total))
    assert ledger.done


@given(
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=12),
    order=st.randoms(use_true_random=False),
    value=st.sampled_from([None, 7]),
)
def test_a_stream_keeps_only_what_was_not_read(
    sizes: list[int], order: random.Random, value: Any
) -> None:
    """In order of completion, with None among the results, and slices out of order."""
    ledger = Ledger(streaming=True)
    ledger.claim("completion")
    slices = [(ledger.reserve(size), size) for size in sizes]
    order.shuffle(slices)
    read: list[int] = []
    for start, size in slices:
        ledger.settle(start, [value] * size)
        for _ in range(order.randrange(size + 1)):
            index, outcome = ledger.next_completed() or (-1, -1)
            assert outcome == value
            ledger.read_completed(index)
            read.append(index)
        assert ledger.unread == sum(sizes) - len(read)
    while (one := ledger.next_completed()) is not None:
        ledger.read_completed(one[0])
        read.append(one[0])

    assert sorted(read) == list(range(sum(sizes)))
    assert ledger.unread == 0
    assert len(ledger._slots) <= 128  # pyright: ignore[reportPrivateUsage]


def test_reading_a_stream_in_order_drops_what_was_read() -> None:
    """Nothing is kept but a few slots, for the sake of speed."""
    ledger = settled(10_000, streaming=True)
    ledger.claim("input")

    for n in range(10_000):
        assert ledger.outcome(n) == n
        ledger.read(n)

    assert len(ledger._slots) <= 128  # pyright: ignore[reportPrivateUsage]
    assert ledger.ended_before(10_000)
    assert ledger.unread == 0


def test_what_was_dropped_is_no_other_tasks_outcome() -> None:
    """Slots have moved up, and those at the end would answer to negative numbers."""
    ledger = settled(1000, streaming=True)
    ledger.claim("input")
    for n in range(990):
        ledger.read(n)
    ledger.reserve(5)

    for n in range(900):
        outcome = ledger.outcome(n)
        assert outcome is not PENDING
        assert outcome not in range(1000)
        assert not ledger.fail(n, LookupError())


def test_a_stream_has_one_order_of_reading() -> None:
    """Those who complete may share; nobody shares with one who reads in order."""
    ledger = settled(3, streaming=True)
    ledger.check_kept()
    ledger.claim("completion")
    ledger.claim("completion")
    with pytest.raises(InvalidStateError, match="once"):
        ledger.claim("input")
    ledger.keep()
    with pytest.raises(InvalidStateError, match="once"):
        ledger.check_kept()

    ledger = settled(3, streaming=True)
    ledger.claim("input")
    for order in ("input", "completion"):
        with pytest.raises(InvalidStateError, match="once"):
            ledger.claim(order)

    ledger = settled(3, streaming=True)
    ledger.keep()
    ledger.claim("input")
    ledger.claim("completion")
    ledger.check_kept()


def test_what_was_foretold_is_the_outcome_before_the_task_is_taken() -> None:
    """It is told once to whoever takes the task."""
    ledger = Ledger(streaming=False)
    ledger.reserve(2)
    ledger.foretell(3, BROKEN)
    ledger.foretell(9, BROKEN)

    assert ledger.outcome(3).error is BROKEN
    assert ledger.outcome(2) is PENDING
    assert ledger.foretold(2, 3) == [3]
    assert ledger.foretold(2, 3) == []
    assert ledger.foretold(5, 5) == [9]


def test_closing_says_how_tasks_end_that_were_never_taken() -> None:
    """With the reason of the job's end, or as tasks that there are not."""
    ended = Ledger(streaming=False)
    ended.reserve(1)
    ended.close(BROKEN)
    ended.close(KeyError())
    assert not ended.done
    ended.settle(0, [Failed(BROKEN)])
    assert ended.done
    assert ended.outcome(7).error is BROKEN

    complete = settled(2)
    assert isinstance(complete.outcome(2).error, TaskCancelledError)
    assert complete.results() == [0, 1]


@pytest.mark.anyio
async def test_whoever_waits_is_woken_by_what_he_waits_for() -> None:
    """By one task, by any change, by the end or the first failure."""
    ledger = Ledger(streaming=False)
    ledger.reserve(3)
    woken: list[str] = []

    async def wait(name: str, *steps: Any) -> None:
        for step in steps:
            await step()
            woken.append(name)

    async def see(expected: Sequence[str]) -> None:
        await wait_all_tasks_blocked()
        assert sorted(woken) == sorted(expected)
        woken.clear()

    async with anyio.create_task_group() as group:
        group.start_soon(wait, "one", lambda: ledger.wait_for(1))
        group.start_soon(wait, "untaken", lambda: ledger.wait_for(5))
        group.start_soon(wait, "change", *[ledger.wait_change] * 4)
        group.start_soon(wait, "end", *[ledger.wait_done_or_failed] * 2)
        await see([])
        ledger.settle(0, ["a"])
        await see(["change"])
        ledger.settle(1, [Failed(BROKEN)], BROKEN)
        await see(["one", "change", "end"])
        ledger.settle(2, ["c"])
        await see(["change"])
        ledger.close()
        await see(["untaken", "change", "end"])
