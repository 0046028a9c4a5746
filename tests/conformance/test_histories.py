"""The judge of histories: what could have happened in one order, and what not."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from wren.conformance.histories import History, Operation, is_linearizable

A, B = b"a", b"b"


def create(value: bytes, began: int, ended: int, *, succeeded: bool) -> Operation:
    """Return one put that writes only where nothing is."""
    return Operation("create", value, succeeded, began, ended)


def get(found: bytes | None, began: int, ended: int) -> Operation:
    """Return one read."""
    return Operation("get", found, True, began, ended)


def delete(began: int, ended: int) -> Operation:
    """Return one delete."""
    return Operation("delete", None, True, began, ended)


def test_nothing_is_in_order() -> None:
    """The search ends where it begins."""
    assert is_linearizable([])


def test_two_winners_are_not_explained() -> None:
    """Whatever their times: no delete came between."""
    overlapping = [create(A, 0, 3, succeeded=True), create(B, 1, 2, succeeded=True)]

    assert not is_linearizable(overlapping)
    assert is_linearizable([*overlapping, delete(0, 3)])


def test_no_winner_is_not_explained() -> None:
    """Somebody must have been first."""
    assert not is_linearizable([create(A, 0, 1, succeeded=False)])
    assert is_linearizable(
        [create(A, 0, 3, succeeded=False), create(B, 1, 2, succeeded=True)]
    )


def test_what_ended_before_happened_before() -> None:
    """A delete that began after both creates had ended cannot explain them."""
    created = [create(A, 0, 1, succeeded=True), create(B, 2, 3, succeeded=True)]

    assert not is_linearizable([*created, delete(4, 5)])
    assert is_linearizable([*created, delete(1, 2)])


def test_a_read_finds_what_was_written_last() -> None:
    """Not what the loser wrote, nor what was deleted before it began."""
    raced = [create(A, 0, 1, succeeded=True), create(B, 2, 3, succeeded=False)]

    assert is_linearizable([*raced, get(A, 4, 5)])
    assert not is_linearizable([*raced, get(B, 4, 5)])
    assert not is_linearizable([*raced, get(None, 4, 5)])
    assert not is_linearizable([*raced, delete(4, 5), get(A, 6, 7)])
    assert is_linearizable([*raced, delete(4, 7), get(A, 5, 6)])


@settings(derandomize=True, database=None, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["create", "delete", "get"]), st.integers(0, 9)))
)
def test_whatever_one_key_does_is_explained(calls: list[tuple[str, int]]) -> None:
    """Calls begin early and end late; each takes effect at a moment between."""
    history = History()
    value: bytes | None = None
    open_calls: list[tuple[int, Operation]] = []
    for kind, length in calls:
        began = history.now()
        data = b"%d" % began
        if kind == "create":
            done = Operation("create", data, value is None, began, 0)
            value = data if value is None else value
        elif kind == "delete":
            done = Operation("delete", None, True, began, 0)
            value = None
        else:
            done = Operation("get", value, True, began, 0)
        open_calls.append((length, done))
        for left, each in open_calls:
            if left == 0:
                history.add(each.kind, each.value, each.began, succeeded=each.succeeded)
        open_calls = [(left - 1, each) for left, each in open_calls if left]
    for _, each in open_calls:
        history.add(each.kind, each.value, each.began, succeeded=each.succeeded)

    assert is_linearizable(history.operations)
