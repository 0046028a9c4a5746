"""What passes through storage: verified before it is unpickled, sealed when written."""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy as np
import pytest

from wren.envelope import ARGUMENTS, REQUEST, RESPONSE, Parts, decode, encode, unseal
from wren.errors import IntegrityError
from wren.serialize import OUT_OF_BAND, dump, dump_many, pack_function
from wren.worker import versions

if TYPE_CHECKING:
    from tests.worker.conftest import Driver

KEY = bytes(range(32))
PLACE = "wren/jobs/1/out/7"
NO_ARGUMENTS: tuple[tuple[()], dict[str, object]] = ((), {})

Json: TypeAlias = dict[str, Any]

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


def run(item: object) -> object:
    ran.append(item)
    return item


def grant(path: Path, **more: object) -> Json:
    none: dict[str, str] = {}
    fields = {"method": "GET", "url": path.as_uri(), "headers": none, "expires": None}
    return fields | more


def stored(path: Path, parts: Parts) -> Json:
    """Write an object; return the offer that a request makes of it."""
    data = b"".join(parts)
    path.write_bytes(data)
    return {"grant": grant(path), "sha256": hashlib.sha256(data).hexdigest()}


def request(header: Json, frames: Sequence[Parts]) -> bytearray:
    fields = {"versions": versions(), "call": "item"} | header
    return bytearray(b"".join(encode(REQUEST, fields, frames)))


class Spilled:
    """A request whose function, arguments and one large array lie in storage."""

    def __init__(self, folder: Path) -> None:
        array = np.arange(OUT_OF_BAND)
        self.expected = array + 1

        def function(item: int) -> object:
            return [run(item), array][item]

        pickled = dump(function)
        self.function = folder / "function"
        self.arguments = folder / "arguments"
        self.blob = folder / "blob"
        identity, parts = pack_function(pickled, [], ["array"])
        arguments = encode(ARGUMENTS, {}, dump_many([0, 1], dump).frames)
        self.header: Json = {
            "function": identity,
            "function_grant": stored(self.function, parts)["grant"],
            "arguments": stored(self.arguments, arguments),
            "blobs": {"array": stored(self.blob, pickled.buffers)},
        }

    def refused(self, driver: Driver) -> tuple[str, str]:
        """Return why it is refused and what is told. Nothing of it has run."""
        header = driver.header(request(self.header, []))
        assert ran == []
        return header["refused"], header["detail"]


@pytest.fixture
def spilled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Spilled:
    """A request that is intact until a test spoils it; nothing is waited for."""
    monkeypatch.setattr("wren.retrieval._PAUSE", 0.0)
    return Spilled(tmp_path)


objects = pytest.mark.parametrize("name", ["function", "arguments", "blob"])


def test_a_request_may_lie_in_storage(driver: Driver, spilled: Spilled) -> None:
    """And a worker that has the function does not read it again."""
    first = driver.read(driver.send(request(spilled.header, [])))
    spilled.function.unlink()
    spilled.blob.unlink()
    second = driver.read(driver.send(request(spilled.header, [])))

    for zero, array in (first, second):
        assert zero == 0
        np.testing.assert_array_equal(array, spilled.expected - 1)


def test_arrays_from_storage_may_be_changed(driver: Driver, tmp_path: Path) -> None:
    """Like those that came with the request."""

    def add(item: Any) -> object:
        item += 1
        return item

    arrays = [np.arange(OUT_OF_BAND), np.zeros(OUT_OF_BAND)]
    many = dump_many(arrays, dump)
    identity, parts = pack_function(dump(add), [], [])
    header = {
        "function": identity,
        "function_inline": True,
        "each": many.each,
        "arguments": stored(tmp_path / "in", encode(ARGUMENTS, {}, many.frames)),
    }

    found = driver.read(driver.send(request(header, [parts])))

    for array, before in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(array, before + 1)


def test_a_shared_array_is_each_tasks_own(driver: Driver, tmp_path: Path) -> None:
    """It is stored once; a task that changes it changes neither a copy nor the file."""

    def add(item: list[Any]) -> object:
        item[0] += 1
        return item[0]

    array = np.arange(OUT_OF_BAND)
    small = np.arange(OUT_OF_BAND, dtype=np.float64)
    many = dump_many([[array], [small], [array]], dump)
    offer = stored(tmp_path / "blob", [array.tobytes()])
    pickled = dump(add)
    identity, parts = pack_function(pickled, [], [])
    header = {
        "function": identity,
        "function_inline": True,
        "each": many.each,
        "layout": ["array", None, "array"],
        "blobs": {"array": offer | {"sha256": None}},
    }
    frames = [parts, *many.frames[:2], many.frames[3]]

    for _ in range(2):
        found = driver.read(driver.send(request(header, frames)))
        np.testing.assert_array_equal(found[0], array + 1)
        np.testing.assert_array_equal(found[1], small + 1)
        np.testing.assert_array_equal(found[2], array + 1)


@objects
def test_what_was_altered_in_storage_is_not_unpickled(
    name: str, driver: Driver, spilled: Spilled
) -> None:
    """Whoever can write to the bucket can put anything there."""
    path: Path = getattr(spilled, name)
    whole = path.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    canary = dump(Canary())
    _, function = pack_function(canary, [], [])
    arguments = encode(ARGUMENTS, {}, canary.frames())
    for data in (whole[:-1], whole + b"\0", b"", flipped):
        path.write_bytes(data)
        assert spilled.refused(driver)[0] == "corrupt"
    for parts in (canary.parts, function, arguments):
        path.write_bytes(b"".join(parts))
        assert spilled.refused(driver)[0] == "corrupt"


@objects
def test_what_is_not_in_storage_is_named(
    name: str, driver: Driver, spilled: Spilled
) -> None:
    """It was written before the request was sent, so that a new attempt may help."""
    path: Path = getattr(spilled, name)
    path.unlink()
    reason, detail = spilled.refused(driver)
    assert reason == "transient"
    assert str(path) in detail


@objects
@pytest.mark.parametrize("fault", ["bent", "absent"])
@pytest.mark.parametrize("times", [2, 3])
def test_what_was_read_wrong_is_read_three_times(
    name: str,
    fault: str,
    times: int,
    driver: Driver,
    spilled: Spilled,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A body may be bent on its way, and a store may be late."""
    from wren import files

    path = str(getattr(spilled, name))
    real = files.open_object
    bent = Path(path).with_name("bent")
    bent.write_bytes(b"else")
    reads = 0

    def read_wrong(asked: str) -> int:
        nonlocal reads
        reads += asked == path
        if asked != path or reads > times:
            return real(asked)
        if fault == "bent":
            return real(str(bent))
        raise FileNotFoundError(errno.ENOENT, "No such file", asked)

    monkeypatch.setattr(files, "open_object", read_wrong)

    if times < 3:
        assert driver.read(driver.send(request(spilled.header, [])))[0] == 0
    else:
        reason, _ = spilled.refused(driver)
        assert reason == {"bent": "corrupt", "absent": "transient"}[fault]
    assert reads == 3


@objects
def test_a_grant_that_has_expired_is_denied(
    name: str, driver: Driver, spilled: Spilled
) -> None:
    """Trying it again would not help: the driver is told to make another."""
    expired = grant(getattr(spilled, name), expires=time.time() - 1)
    match name:
        case "function":
            spilled.header["function_grant"] = expired
        case "arguments":
            spilled.header["arguments"]["grant"] = expired
        case _:
            spilled.header["blobs"]["array"]["grant"] = expired
    reason, detail = spilled.refused(driver)
    assert reason == "grant"
    assert "expired" in detail


@objects
def test_a_passing_fault_is_told_as_such(
    name: str, driver: Driver, spilled: Spilled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same request may succeed a moment later."""
    from wren import files

    real = files.open_object

    def fail(path: str) -> int:
        if path == str(getattr(spilled, name)):
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path)

    monkeypatch.setattr(files, "open_object", fail)

    assert spilled.refused(driver)[0] == "transient"


# --- responses ------------------------------------------------------------------------


def reply(path: Path, *, limit: float, after: float) -> Json:
    return {
        "limit": limit,
        "after": after,
        "key": KEY.hex(),
        "place": PLACE,
        "grant": grant(path, method="PUT", headers={"If-None-Match": "*"}),
    }


def read_sealed(driver: Driver, path: Path) -> list[Any]:
    return driver.read(unseal(path.read_bytes(), KEY, PLACE))


@pytest.mark.parametrize("after", [3600.0, float("inf")])
def test_a_quick_response_is_sent_and_not_stored(
    after: float, driver: Driver, tmp_path: Path
) -> None:
    """Storage costs more than most tasks."""
    path = tmp_path / "response"
    header: Json = {"reply": reply(path, limit=10_000, after=after)}
    assert driver.results(run, [1, [2]], **header) == [1, [2]]
    assert not path.exists()


def test_a_dear_response_is_stored_and_sent(driver: Driver, tmp_path: Path) -> None:
    """If the connection was lost meanwhile, the driver reads it from there."""
    path = tmp_path / "response"
    header: Json = {"reply": reply(path, limit=10_000, after=0)}

    found = driver.results(run, [1, [2]], **header)

    assert found == read_sealed(driver, path) == [1, [2]]


@pytest.mark.parametrize("after", [0, float("inf")])
def test_a_large_response_is_stored_and_only_named(
    after: float, driver: Driver, tmp_path: Path
) -> None:
    """The platform would refuse it."""
    path = tmp_path / "response"
    header: Json = {"reply": reply(path, limit=10_000, after=after)}
    text = "x" * 10_000

    answer = driver.header(driver.request(run, [text, [1]], **header))

    assert answer["stored"] == "written"
    assert "refused" not in answer
    assert answer["worker"] == "w1"
    assert read_sealed(driver, path) == [text, [1]]


def test_the_limit_is_what_the_whole_response_may_have(
    driver: Driver, tmp_path: Path
) -> None:
    """To the byte: platforms are no less strict."""
    data = driver.request(lambda: bytes(5000), [NO_ARGUMENTS], call="full")
    length = len(driver.send(data))

    for limit, kept in ((length + 200, False), (length - 200, True)):
        path = tmp_path / str(limit)
        header: Json = {"call": "full", "reply": reply(path, limit=limit, after=1e9)}
        response = driver.send(
            driver.request(lambda: bytes(5000), [NO_ARGUMENTS], **header)
        )
        assert len(response) <= limit
        assert path.exists() is kept


@pytest.mark.parametrize("size", [10, 10_000])
def test_the_response_that_was_stored_first_counts(
    size: int, driver: Driver, tmp_path: Path
) -> None:
    """Another attempt has ended before: its outcome may have been seen already."""
    path = tmp_path / "response"
    header: Json = {"reply": reply(path, limit=10_000, after=0)}
    driver.results(run, ["first"], **header)

    answer = driver.header(driver.request(run, ["x" * size], **header))

    assert answer["stored"] == "exists"
    assert read_sealed(driver, path) == ["first"]


def fail(_grant: object, _parts: object) -> NoReturn:
    raise UnicodeError("what no store should do")


@pytest.fixture(params=["denied", "broken"])
def unwritable(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A place where nothing can be stored."""
    if request.param == "broken":
        monkeypatch.setattr("wren.grants.store", fail)
    file = tmp_path / "file"
    file.touch()
    return file / "response"


def test_a_response_that_fits_is_sent_if_it_cannot_be_stored(
    unwritable: Path, driver: Driver
) -> None:
    """It is intact; only its safety copy is missing."""
    header: Json = {"reply": reply(unwritable, limit=10_000, after=0)}
    assert driver.results(run, [1], **header) == [1]


def test_a_response_that_neither_fits_nor_can_be_stored_is_lost(
    unwritable: Path, driver: Driver
) -> None:
    """The driver is told why. Its tasks have run, unlike those of other refusals."""
    header: Json = {"reply": reply(unwritable, limit=100, after=0)}

    answer = driver.header(driver.request(run, ["x" * 100], **header))

    assert answer["refused"] == "reply"
    assert answer["detail"]
    assert ran == ["x" * 100]


def test_what_is_stored_is_sealed_for_its_place(driver: Driver, tmp_path: Path) -> None:
    """The key travelled inside the request, and nowhere else."""
    path = tmp_path / "response"
    driver.results(run, [1], reply=reply(path, limit=10_000, after=0))
    data = path.read_bytes()

    for key, place in ((bytes(32), PLACE), (KEY, PLACE + "0")):
        with pytest.raises(IntegrityError):
            unseal(data, key, place)
    with pytest.raises(IntegrityError):
        decode(data, RESPONSE)
    assert KEY not in data
    assert KEY.hex().encode() not in data
