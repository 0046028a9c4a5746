"""What is pickled comes back; what cannot be spoils nothing else."""

from __future__ import annotations

import hashlib
import math
import pickle
import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum
from typing import Any, NoReturn, TypeAlias

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wren.envelope import Buffer
from wren.errors import IntegrityError
from wren.serialize import (
    ANYTHING,
    IN_BAND_BUDGET,
    OUT_OF_BAND,
    Many,
    OverBudgetError,
    Pickled,
    arrange,
    dump,
    dump_many,
    dump_result,
    load,
    load_many,
    load_yielding,
    pack_function,
    unpack_function,
    writable,
)

Dump: TypeAlias = Callable[[object], Pickled]
both_dumps = pytest.mark.parametrize("dump_one", [dump, dump_result])

LARGE = 200_000  # more than a pickle's frame of 64 KiB

leaves: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters(codec=None), max_size=20)
    | st.binary(max_size=20)
)
values: st.SearchStrategy[Any] = st.recursive(
    leaves | st.binary(max_size=20).map(bytearray) | st.decimals(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
        | st.frozensets(leaves, max_size=4)
    ),
    max_leaves=8,
)


class Colour(IntEnum):
    RED = 1


class Unpicklable:
    """Refuses to be pickled, with whatever exception it was given."""

    def __init__(self, raised: BaseException) -> None:
        self.raised = raised

    def __reduce__(self) -> NoReturn:
        raise self.raised


class Unloadable:
    """Is pickled with its array, and cannot be rebuilt."""

    def __init__(self) -> None:
        self.array = np.zeros(OUT_OF_BAND)

    def __setstate__(self, state: object) -> NoReturn:
        raise ValueError("not here")


def join(parts: Sequence[Buffer]) -> bytes:
    return b"".join(parts)


def contents(pickled: Pickled) -> tuple[bytes, list[bytearray]]:
    """Return a pickle and its buffers as they are after a journey."""
    return join(pickled.parts), [bytearray(each) for each in pickled.buffers]


def travel(many: Many) -> tuple[list[Any], dict[int, BaseException]]:
    """Load what `dump_many` made, from other memory."""
    return load_many([bytearray(join(parts)) for parts in many.frames], many.each)


def same(one: object, other: object) -> bool:
    """Compare by value, and by the types of what is inside."""
    return one == other and str(shape(one)) == str(shape(other))


def shape(value: Any) -> object:
    """Return a value with its numbers, and whatever has no order, as types only."""
    inside: Any = ()
    match type(value).__name__:
        case "float" | "complex":
            return repr(value)  # zero has a sign
        case "list" | "tuple":
            inside = value
        case "dict":
            inside = value.values()
        case _:
            pass
    return type(value).__name__, [shape(each) for each in inside]


# --- one value ------------------------------------------------------------------------


@both_dumps
def test_large_bytes_are_not_copied(dump_one: Dump) -> None:
    """The pickle is in parts so that they can be sent from where they lie."""
    large = b"x" * LARGE
    assert any(part is large for part in dump_one({"large": large}).parts)


@both_dumps
def test_large_arrays_stay_outside_and_come_back_writable(dump_one: Dump) -> None:
    """A view of the array's own memory travels, and a task may change what arrives."""
    array = np.arange(OUT_OF_BAND, dtype=np.float64).reshape(2, -1)

    pickled = dump_one([array, array.T, "small"])

    assert sum(map(len, pickled.parts)) < 1000
    assert np.shares_memory(np.frombuffer(pickled.buffers[0]), array)
    loaded, transposed, _ = load(*contents(pickled))
    loaded += 1
    np.testing.assert_array_equal(loaded, array + 1)
    np.testing.assert_array_equal(transposed, array.T)


@both_dumps
def test_small_arrays_and_strided_ones_stay_inside(dump_one: Dump) -> None:
    """A buffer of its own costs more than the copy; and strides cannot travel."""
    small = np.arange(10)
    strided = np.arange(4 * OUT_OF_BAND)[::2]

    pickled = dump_one([small, strided])

    assert not pickled.buffers or not any(
        np.shares_memory(np.frombuffer(buffer, np.int64), strided)
        for buffer in pickled.buffers
    )
    loaded = load(*contents(pickled))
    np.testing.assert_array_equal(loaded[0], small)
    np.testing.assert_array_equal(loaded[1], strided)


def test_a_bounded_dump_gives_up_on_large_values() -> None:
    """It runs on the event loop, which waits for it."""
    for value in (list(range(LARGE)), b"x" * 2 * LARGE):
        with pytest.raises(OverBudgetError):
            dump(value, bounded=True)
        assert same(load(*contents(dump(value))), value)


def test_a_bounded_dump_gives_up_on_slow_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However small they are: somebody's ``__reduce__`` may do anything."""
    clock = iter(range(1000))
    monkeypatch.setattr("wren.serialize.perf_counter", lambda: next(clock))

    with pytest.raises(OverBudgetError):
        dump("small", bounded=True)


def test_a_bounded_dump_takes_any_array(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays outside the pickle costs no time."""
    monkeypatch.setattr("wren.serialize.perf_counter", lambda: 0.0)
    array = np.zeros(IN_BAND_BUDGET)
    assert len(dump(array, bounded=True).buffers) == 1


def test_a_result_that_only_cloudpickle_takes_is_taken() -> None:
    """A worker tries the faster pickler first."""
    captured = [1, 2]
    function = load(*contents(dump_result(lambda: captured)))
    assert function() == captured


def test_writable_copies_only_what_is_read_only() -> None:
    """A copy of gigabytes is for those that need it."""
    memory = bytearray(b"abc")
    assert writable(memory).obj is memory
    copy = writable(b"abc")
    copy[0] = 0
    assert bytes(copy) == b"\0bc"


@settings(deadline=None)
@given(value=values, protocol=st.integers(0, 5))
def test_load_yielding_equals_load(value: Any, protocol: int) -> None:
    """Only where the interpreter lock is released differs."""
    pickled = pickle.dumps(value, protocol)
    assert same(load_yielding(pickled), value)


@pytest.mark.parametrize(
    "value",
    [
        b"x" * LARGE,
        bytearray(b"x" * LARGE),
        "é" * LARGE,
        list(range(LARGE)),
        [str(number) for number in range(LARGE // 10)],
        {number: (number, [b"x" * 1000]) for number in range(1000)},
        [[b"x" * LARGE, "y"], bytearray(LARGE)],
        deque([datetime(2030, 1, 2, tzinfo=UTC), Decimal("1.5"), Colour.RED]),
        2**LARGE,
    ],
    ids=lambda value: type(value).__name__,
)
def test_load_yielding_equals_load_for_large_values(value: Any) -> None:
    """Frames of more than 64 KiB are read in other ways than small ones."""
    pickled, buffers = contents(dump(value))
    assert load_yielding(memoryview(pickled), buffers) == value


def test_load_yielding_takes_buffers_from_outside() -> None:
    """As views, writable as those of `load` are."""
    array = np.arange(LARGE)
    loaded, text = load_yielding(*contents(dump([array, "x" * LARGE])))
    loaded += 1
    np.testing.assert_array_equal(loaded, array + 1)
    assert text == "x" * LARGE


def test_load_yielding_notices_a_truncated_pickle() -> None:
    """It must end, and say so, as `load` does."""
    pickled = pickle.dumps([b"x" * 100, "text", 1.5, bytearray(b"y" * LARGE)])
    for length in [*range(300), *range(300, len(pickled), 10_000)]:
        with pytest.raises((EOFError, pickle.UnpicklingError)):
            load_yielding(pickled[:length])


# --- many values ----------------------------------------------------------------------


@both_dumps
@settings(deadline=None)
@given(items=st.lists(leaves, max_size=8) | st.lists(values, max_size=8))
@example(items=[])
@example(items=[True, 1, 1.0, 0, -0.0, False, None])
@example(items=["\ud800", b"", ""])
@example(items=[1 << 10_000, -1 << 10_000])
@example(items=[Colour.RED, 1])
def test_many_values_come_back_as_they_were(dump_one: Dump, items: list[Any]) -> None:
    """Each with its own type, in order, whatever its neighbours are."""
    loaded, failures = travel(dump_many(items, dump_one))
    assert same(loaded, items)
    assert not failures


@both_dumps
@pytest.mark.parametrize(
    ("items", "shared"),
    [
        ([1, 2.5, None, True, 1j], True),
        (["one", b"two", 3], True),
        ([1, Colour.RED], False),
        ([1, (2,)], False),
        (["one", [2]], False),
    ],
)
def test_plain_values_share_one_pickle(
    dump_one: Dump, items: list[Any], shared: bool
) -> None:
    """A hundred thousand numbers cost one call; what has code of its own, one each."""
    many = dump_many(items, dump_one)
    assert (many.each is None) is shared
    assert (len(many.frames) == 1) is shared


def test_not_a_number_comes_back() -> None:
    """It equals nothing, so the other tests leave it out."""
    loaded, _ = travel(dump_many([math.nan, math.inf], dump))
    assert math.isnan(loaded[0])
    assert loaded[1] == math.inf


@both_dumps
def test_items_share_nothing_that_they_did_not_share_before(dump_one: Dump) -> None:
    """Tasks that travel together must not see each other's changes."""
    shared: list[int] = []
    array = np.zeros(OUT_OF_BAND)
    item = [shared, shared]

    loaded, _ = travel(dump_many([item, item, array, array], dump_one))

    assert loaded[0][0] is loaded[0][1]
    assert loaded[0][0] is not loaded[1][0]
    loaded[2] += 1
    np.testing.assert_array_equal(loaded[3], array)


@both_dumps
@pytest.mark.parametrize(
    "raised", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)]
)
def test_a_value_that_cannot_be_pickled_spoils_only_itself(
    dump_one: Dump, raised: BaseException
) -> None:
    """It is left out and named, with its own exception; the others travel."""
    array = np.arange(OUT_OF_BAND)
    broken = [array * 2, Unpicklable(raised)]

    values = [array, broken, [1], threading.Lock(), array + 1]
    many = dump_many(values, dump_one, caught=ANYTHING)

    assert many.failures.keys() == {1, 3}
    assert many.failures[1] is raised
    assert isinstance(many.failures[3], TypeError)
    (first, second, third), failures = travel(many)
    np.testing.assert_array_equal(first, array)
    assert second == [1]
    np.testing.assert_array_equal(third, array + 1)
    assert not failures


@both_dumps
def test_a_value_that_cannot_be_rebuilt_spoils_only_itself(dump_one: Dump) -> None:
    """None stands in its place, and its buffers are not taken for another's."""
    array = np.arange(OUT_OF_BAND)

    loaded, failures = travel(
        dump_many([array, Unloadable(), array + 1, Unloadable(), {"a": 1}], dump_one)
    )

    assert failures.keys() == {1, 3}
    assert str(failures[1]) == "not here"
    assert loaded[1] is loaded[3] is None
    np.testing.assert_array_equal(loaded[0], array)
    np.testing.assert_array_equal(loaded[2], array + 1)
    assert loaded[4] == {"a": 1}


def test_pickling_many_stops_when_the_time_is_up() -> None:
    """Neither the deadline nor a bounded dump counts as a failure of a value."""

    def over_budget(value: object) -> NoReturn:
        raise OverBudgetError

    with pytest.raises(OverBudgetError):
        dump_many([[1]], dump, deadline=-math.inf)
    with pytest.raises(OverBudgetError):
        dump_many([[1]], over_budget)


# --- functions ------------------------------------------------------------------------


def test_a_function_travels_with_its_modules_and_buffers() -> None:
    """Modules are there before the function is unpickled; each buffer in its place."""
    one, two = (np.full(OUT_OF_BAND, float(n)) for n in range(2))
    pickled = dump(lambda: (one, two))
    bundles = [("first", b"archive 1"), ("second", b"archive 2")]
    elsewhere = {"name": bytearray(pickled.buffers[0])}
    events: list[object] = []

    def install(name: str, archive: memoryview) -> None:
        events.append((name, bytes(archive)))

    def blob(name: str) -> bytearray:
        events.append(name)
        return elsewhere[name]

    identity, parts = pack_function(pickled, bundles, ["name", None])
    data = bytearray(join(parts))
    function = unpack_function(data, install, blob)

    assert identity == hashlib.sha256(data).hexdigest()
    assert events == [*bundles, "name"]
    found = function()
    for array, expected in zip(found, (one, two), strict=True):
        np.testing.assert_array_equal(array, expected)
        array += 1
    assert len(data) < 2 * one.nbytes


def test_a_function_that_was_cut_short_is_refused() -> None:
    """Before anything of it is installed or unpickled."""
    _, parts = pack_function(dump(len), [("bundle", b"archive")], [])
    installed: list[str] = []
    for cut in (1, 10):
        with pytest.raises(IntegrityError):
            unpack_function(
                join(parts)[:-cut], lambda name, _: installed.append(name), str.encode
            )
    assert not installed


def test_arrange_puts_each_buffer_in_its_place() -> None:
    """The order is that of the pickle, wherever a buffer is kept."""
    kept = {"a": b"A", "b": b"B"}
    arranged = arrange(["a", None, None, "b", "a"], [b"1", b"2"], kept.__getitem__)
    assert arranged == [b"A", b"1", b"2", b"B", b"A"]


@both_dumps
def test_ctrl_c_while_the_driver_pickles_is_the_drivers(dump_one: Dump) -> None:
    """It is no failure of the value that happened to be next."""
    with pytest.raises(KeyboardInterrupt):
        dump_many([[1], Unpicklable(KeyboardInterrupt())], dump_one)
