"""A request that cannot be carried out is refused: why is told, and nothing has run."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from wren.envelope import REQUEST, RESPONSE, Buffer, encode
from wren.serialize import dump, pack_function
from wren.worker import FUNCTIONS_KEPT, versions

if TYPE_CHECKING:
    from tests.worker.conftest import Driver

# pytest-timeout's own way uses the signal that stops tasks.
pytestmark = pytest.mark.timeout(60, method="thread")

hypothetical = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

ran: list[object] = []
"""What has run. Functions of this module travel by name, and so append to this list."""


@pytest.fixture(autouse=True)
def nothing_has_run() -> None:
    """Begin each test with an empty list."""
    ran.clear()


class Canary:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[object], None], tuple[str]]:
        return ran.append, ("unpickled",)


class Unloadable:
    """Raises when it is unpickled."""

    def __init__(self, raised: type[BaseException] = ValueError) -> None:
        self.raised = raised

    def __reduce__(self) -> tuple[Callable[..., NoReturn], tuple[type[BaseException]]]:
        return refuse, (self.raised,)

    def __call__(self, _: object) -> None:
        ran.append("called")


def refuse(raised: type[BaseException]) -> NoReturn:
    raise raised("not here")


def run(item: object) -> object:
    ran.append(item)
    return item


def refused(driver: Driver, request: Buffer) -> tuple[str, str]:
    """Return why a request is refused and what is told. Nothing of it has run."""
    header = driver.header(request)
    assert ran == []
    return header["refused"], header["detail"]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_another_version_is_refused_before_anything_is_unpickled(
    position: int, driver: Driver
) -> None:
    """Pickles of another Python may crash this one. Both sides' versions are named."""
    other = versions()
    other[position] = "0.0"
    request = driver.request(run, [Canary()], versions=other)

    reason, detail = refused(driver, request)

    assert reason == "version"
    assert detail == ", ".join(versions())


def test_a_version_is_refused_whatever_else_has_changed(driver: Driver) -> None:
    """Another version of wren may write quite another header."""
    request = encode(REQUEST, {"versions": ["3.99", "9.9", "9.9"]}, [])
    assert refused(driver, b"".join(request))[0] == "version"


def test_an_unknown_function_is_asked_for(driver: Driver) -> None:
    """It travels only until a worker is known to have it."""
    request = driver.request(run, [1], inline=False)

    reason, identity = refused(driver, request)

    assert reason == "function"
    assert len(identity) == 64
    assert driver.results(run, [1]) == [1]
    assert driver.read(driver.send(request)) == [1]


def test_the_functions_used_last_are_kept(driver: Driver) -> None:
    """As many as `FUNCTIONS_KEPT`; the one that was not used for longest goes first."""

    def make(number: int) -> Callable[[int], int]:
        return lambda item: item + number

    functions = [make(number) for number in range(FUNCTIONS_KEPT + 1)]
    for function in functions[:-1]:
        driver.results(function, [0])
    driver.results(functions[0], [0], inline=False)
    driver.results(functions[-1], [0])

    for position, function in enumerate(functions):
        header = driver.header(driver.request(function, [0], inline=False))
        assert header.get("refused") == ("function" if position == 1 else None)


def test_a_function_with_another_hash_is_not_unpickled(driver: Driver) -> None:
    """Nor kept: what it was said to be is still unknown."""
    canary = dump(Canary())
    identity, _ = pack_function(dump(run), [], [])
    _, parts = pack_function(canary, [], [])
    pickled = b"".join(dump([1]).parts)
    fields = {"versions": versions(), "function": identity, "call": "item"}
    header = fields | {"function_inline": True}
    request = b"".join(encode(REQUEST, header, [parts, [pickled]]))

    assert refused(driver, request)[0] == "integrity"
    known = b"".join(encode(REQUEST, fields, [[pickled]]))
    assert refused(driver, known) == ("function", identity)


@pytest.mark.parametrize("raised", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_function_that_cannot_be_unpickled_is_explained(
    raised: type[BaseException], driver: Driver
) -> None:
    """With the worker's own traceback, and whatever was raised."""
    reason, detail = refused(driver, driver.request(Unloadable(raised), [1]))
    assert reason == "unpickle"
    assert detail.startswith(f"{raised.__name__}: not here\nTraceback")
    assert "in refuse" in detail


def test_an_argument_that_cannot_be_unpickled_is_named(driver: Driver) -> None:
    """By its position; those before it have not run either."""
    request = driver.request(run, [1, [2], Unloadable(), Unloadable()])

    header = driver.header(request)

    assert header["refused"] == "argument"
    assert header["position"] == 2
    assert header["detail"].startswith("ValueError: not here\nTraceback")
    assert ran == []


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function of a module that exists only while something is pickled."""
    module = ModuleType("absent_module")
    exec("def function(item): return item", vars(module))  # noqa: S102
    monkeypatch.setitem(sys.modules, "absent_module", module)
    return module.function


@pytest.mark.parametrize("where", ["function", "argument"])
def test_a_missing_module_is_named(
    where: str, absent: Any, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver may have it and send it, whoever needs it."""
    if where == "function":
        request = driver.request(absent, [1])
    else:
        request = driver.request(run, [1, [absent]])
    monkeypatch.delitem(sys.modules, "absent_module")

    assert refused(driver, request) == ("module", "absent_module")


# --- bytes that no driver writes ------------------------------------------------------


def intact(driver: Driver, **header: Any) -> bytearray:
    return driver.request(run, [1, "a", [2]], **header)


def test_damaged_envelopes_are_refused(driver: Driver) -> None:
    """Cut short, extended, or of another kind."""
    whole = intact(driver)
    other = whole.copy()
    other[5] = RESPONSE
    for data in (whole[:-1], whole[:30], b"", whole + b"\0", other):
        assert refused(driver, data)[0] == "integrity"


@hypothetical
@given(data=st.binary(max_size=200), start=st.integers(0, 24))
def test_noise_is_refused(driver: Driver, data: bytes, start: int) -> None:
    """Also where it begins like an envelope."""
    assert refused(driver, intact(driver)[:start] + data)[0] == "integrity"


REPLY: dict[str, Any] = {
    "grant": {"method": "PUT", "url": "file:///proc/x", "headers": {}, "expires": 1.0},
    "key": "00" * 32,
    "place": "out/1",
    "limit": 0,
    "after": 0,
}


@pytest.mark.parametrize(
    "field", ["versions", "function", "call", "reply/key", "reply/grant", "reply/after"]
)
def test_a_header_that_lacks_a_field_is_refused(field: str, driver: Driver) -> None:
    """Nothing of the request runs if its end is not known."""
    outer, _, inner = field.partition("/")
    request = bytes(intact(driver, reply=REPLY))
    wanted = f'"{inner or outer}":'.encode()
    assert request.count(wanted) == 1

    reason, _ = refused(driver, request.replace(wanted, wanted.upper()))

    assert reason in ("integrity", "unpickle")


json_values: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.integers(), max_size=3)
    | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)
)
FIELDS = ["versions", "function", "call", "timeout", "each", "layout", "blobs"]
MORE = ["arguments", "function_inline", "function_grant", "reply"]


@hypothetical
@given(header=st.dictionaries(st.sampled_from(FIELDS + MORE), json_values, max_size=3))
@example(header={"reply": REPLY})
@example(header={"reply": REPLY | {"grant": {"url": "file://["}}})
@example(header={"reply": REPLY | {"grant": []}})
@example(header={"timeout": math.inf})
@example(header={"call": []})
@example(header={"each": None})
def test_any_header_is_answered(driver: Driver, header: dict[str, Any]) -> None:
    """It came from an authenticated caller; still, a worker that died would be lost."""
    assert driver.header(intact(driver, **header))


@hypothetical
@given(data=st.data())
def test_any_damage_to_the_header_is_answered(
    driver: Driver, data: st.DataObject
) -> None:
    """Its end may be lost, a length or a name be another."""
    damaged = intact(driver, reply=REPLY, timeout=100.0)
    end = damaged.index(b'"timeout":100.0}')
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, end + 15))
        damaged[position] = data.draw(st.integers(0, 255))
    assert driver.header(damaged)
