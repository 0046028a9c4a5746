"""What does not fit into a request or a response travels through storage."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anyio
import numpy as np
import pytest
from anyio.lowlevel import checkpoint

from wren import Executor
from wren.conformance.faults import Fault, FaultPlan, FaultyStorage
from wren.errors import (
    PayloadTooLargeError,
    StorageError,
    ThrottledError,
    TransientError,
)
from wren.protocols import Grant, Limits, Storage
from wren.shared import CommonBuffers
from wren.spill import Spill
from wren.storage.local import FileStorage
from wren.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from tests.core.conftest import Clock, CountingStorage, FakeCompute

pytestmark = pytest.mark.anyio

TINY = Limits(concurrency=3, request_bytes=300, response_bytes=300)


@pytest.fixture(params=["memory", "file", "public"])
async def any_store(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncGenerator[Storage]:
    """Stores that others can reach, and stores that nobody can."""
    storage: Storage
    if request.param == "memory":
        storage = MemoryStorage()
    else:
        storage = FileStorage(tmp_path / "store", private=request.param == "file")
    yield storage
    await storage.aclose()


async def keys(storage: Storage) -> list[str]:
    return [info.key async for info in storage.list()]


async def test_functions_arguments_and_results_travel_through_storage(
    make_compute: type[FakeCompute], any_store: Storage
) -> None:
    """When a request has room for a few hundred bytes, and nothing stays."""
    compute = make_compute(limits=TINY, threads=True, workers=2)
    padding = "x" * 2000

    async with Executor(backend=compute, storage=any_store) as executor:
        job = executor.map(lambda n: f"{n}{padding}", range(7), chunksize=2)
        assert await job == [f"{n}{padding}" for n in range(7)]
        assert await executor.submit(len, padding) == 2000

    assert any("function_grant" in request for request in compute.requests)
    assert all("arguments" in request for request in compute.requests)
    assert await keys(any_store) == []


async def test_arrays_travel_through_storage(
    make_compute: type[FakeCompute], any_store: Storage
) -> None:
    """Those that many tasks share, once; the others with their request."""
    compute = make_compute(limits=TINY, threads=True)
    common = np.arange(1 << 18)
    items = [(common, np.full(20_000, n)) for n in range(6)]

    def add(pair: tuple[Any, Any]) -> tuple[int, Any]:
        pair[0][0] = 7  # its own copy, and writable
        return int(pair[0].sum()), pair[1] + 1

    async with Executor(backend=compute, storage=any_store) as executor:
        results = await executor.map(add, items, chunksize=1)

    assert [total for total, _ in results] == [common.sum() + 7] * 6
    for n, (_, array) in enumerate(results):
        assert array.flags.writeable
        assert (array == n + 1).all()
    assert await keys(any_store) == []


async def test_a_shared_array_is_stored_once(
    make_compute: type[FakeCompute], store: CountingStorage
) -> None:
    """From the second task on that refers to it."""
    limits = Limits(concurrency=2, lossless=True)
    compute = make_compute(limits=limits, threads=True)
    common = np.arange(1 << 18)

    async with Executor(backend=compute, storage=store) as executor:
        await executor.map(lambda pair: 0, [(common, n) for n in range(9)], chunksize=1)

    assert store.count("put") == 1


@pytest.mark.parametrize("again", ["throttled", "refused"])
async def test_a_request_that_is_sent_again_says_the_same(
    make_compute: type[FakeCompute],
    store: CountingStorage,
    refusal: Callable[..., bytes],
    clock: Clock,
    again: str,
) -> None:
    """Also when an array has become known meanwhile that was sent inline before."""
    answers: list[Any] = [refusal("function")]
    if again == "throttled":
        answers = [ThrottledError()] * 3
    limits = Limits(concurrency=1, request_bytes=300)
    compute = make_compute(answers, limits=limits, threads=True)
    items = [(np.full(1 << 18, n), np.full(1 << 12, -n)) for n in range(1, 4)]

    async with Executor(backend=compute, storage=store) as executor:
        results = await executor.map(
            lambda pair: (int(pair[0][0]), int(pair[1][0])), items, chunksize=1
        )

    assert results == [(1, -1), (2, -2), (3, -3)]


async def test_a_long_job_takes_no_more_room_than_is_under_way(
    make_compute: type[FakeCompute],
    store: CountingStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Arguments and responses are removed after use, some at a time."""
    monkeypatch.setattr("wren.discards.MOST_KEYS", 10)
    compute = make_compute(limits=TINY, threads=True)
    most = 0

    async with Executor(backend=compute, storage=store) as executor:
        stream = (f"{n}" * 200 for n in range(10, 70))
        async for _ in executor.map(str.upper, stream, chunksize=1, buffer=6):
            most = max(most, len(await store.keys()))

    assert most <= 2 * 6 + 1 + 10
    assert await store.keys() == []


async def test_what_was_used_is_removed_in_few_requests(
    make_compute: type[FakeCompute],
    store: CountingStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hundred keys at a time; of large objects fewer."""
    compute = make_compute(limits=TINY, threads=True)

    async with Executor(backend=compute, storage=store) as executor:
        await executor.map(len, ["x" * 1000] * 60, chunksize=1)
        removals = store.count("delete")
        monkeypatch.setattr("wren.discards.MOST_BYTES", 4000)
        await executor.map(len, ["x" * 1000] * 60, chunksize=1)
        more = store.count("delete") - removals

    assert removals <= 2
    assert 10 <= more <= 60


async def test_a_grant_that_has_expired_is_made_anew(
    make_compute: type[FakeCompute], store: CountingStorage
) -> None:
    """It ends with the credentials that made it; nothing has run, nothing is lost."""
    compute = make_compute(limits=TINY, threads=True)
    faults = [Fault("grant", "expire", key=f"*/{kind}/*") for kind in ("fn", "in")]

    def length(text: str) -> int:
        return len(text)

    with FaultPlan(*faults) as plan:
        storage = FaultyStorage(store, plan)
        async with Executor(backend=compute, storage=storage, retries=0) as executor:
            assert await executor.submit(length, "x" * 1000) == 1000

    assert compute.executed == ["x" * 1000]


@pytest.mark.parametrize(("seconds", "grants"), [(3600.0, 1), (0.0, 2)])
async def test_a_grant_is_given_out_for_half_of_its_time(
    seconds: float, grants: int
) -> None:
    """A store may grant for less than it was asked for."""
    asked: list[str] = []

    class Brief(MemoryStorage):
        async def grant(
            self,
            key: str,
            method: Literal["GET", "PUT"],
            *,
            expires_in: float,
            if_absent: bool = False,
        ) -> Grant:
            asked.append(key)
            made = await super().grant(
                key, method, expires_in=expires_in, if_absent=if_absent
            )
            return replace(made, expires=time.time() + seconds)

    storage = Brief()
    spill = Spill("job", lambda: storage)
    for _ in range(2):
        await spill.offer("a", memoryview(b"data"))

    assert len(asked) == grants
    await storage.aclose()


async def test_grants_that_are_never_accepted_end_the_task(
    make_compute: type[FakeCompute], store: CountingStorage
) -> None:
    """With the store's own words, and not after many tries."""
    compute = make_compute(limits=TINY, threads=True)
    plan = FaultPlan(Fault("grant", "expire", key="*/in/*", times=99))
    storage = FaultyStorage(store, plan)

    async with Executor(backend=compute, storage=storage) as executor:
        with pytest.raises(StorageError, match="expired"):
            await executor.submit(len, "x" * 1000)

    assert compute.invocations == 5
    assert compute.executed == []


async def test_arrays_that_were_used_make_room_for_others(
    make_compute: type[FakeCompute],
    store: CountingStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A job over any number of large arrays keeps a few of them stored."""
    monkeypatch.setattr("wren.shared._AT_ONCE_FROM", 1 << 20)
    monkeypatch.setattr("wren.spill.BLOBS_KEPT", 3 << 20)
    limits = Limits(concurrency=2, lossless=True)
    compute = make_compute(limits=limits, threads=True)
    arrays = [np.full(1 << 17, n) for n in range(12)]
    most = 0
    results: list[int] = []

    async with Executor(backend=compute, storage=store) as executor:
        async for result in executor.map(lambda a: int(a[0]), arrays, chunksize=1):
            most = max(most, len(await store.keys()))
            results.append(result)

    assert results == list(range(12))
    assert 1 <= most <= 3 + 2
    assert store.count("put") == 12
    assert await store.keys() == []


async def test_an_executor_that_is_closed_in_the_middle_leaves_nothing(
    make_compute: type[FakeCompute], any_store: Storage
) -> None:
    """Whatever is on its way is removed after it has arrived."""
    compute = make_compute(["ok", "hang", "hang"], limits=TINY, threads=True)

    async with Executor(backend=compute, storage=any_store) as executor:
        job = executor.map(str, ["x" * 1000] * 20, chunksize=1)
        while compute.invocations < 4:
            await checkpoint()

    assert job.done()
    assert await keys(any_store) == []


async def test_other_jobs_are_left_alone(
    make_compute: type[FakeCompute], store: CountingStorage
) -> None:
    """Cleaning touches one prefix."""
    await store.put("wren/jobs/0123/in/1", b"another driver's")
    compute = make_compute(limits=TINY, threads=True)

    async with Executor(backend=compute, storage=store) as executor:
        await executor.map(str, ["x" * 1000] * 3)

    assert await store.keys() == ["wren/jobs/0123/in/1"]


async def test_a_store_that_fails_while_cleaning_ends_nothing(
    make_compute: type[FakeCompute],
    store: CountingStorage,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The job has its results; what stays is named, for ``wren clean``."""
    compute = make_compute(limits=TINY, threads=True)

    async with Executor(backend=compute, storage=store) as executor:
        store.fail["delete"] = [StorageError("denied")] * 100
        store.fail["list"] = [StorageError("denied"), LookupError("a bug")]
        first = executor.map(str, ["x" * 1000] * 3)
        await first
        await executor.map(str, ["x" * 1000] * 3)
        while store.fail["list"]:
            await checkpoint()
        store.fail.clear()
        await executor.map(str, ["x" * 1000] * 3)

    assert first.id in caplog.text
    assert "denied" in caplog.text
    assert len({key.split("/")[2] for key in await store.keys()}) == 2


async def test_a_store_that_takes_too_long_holds_up_nobody(
    make_compute: type[FakeCompute],
    store: CountingStorage,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cleaning is bounded, also when the executor is closed."""
    monkeypatch.setattr("wren.spill._CLEAN_SECONDS", 0.01)
    compute = make_compute(limits=TINY, threads=True)

    async def stall(*_: object) -> None:
        await anyio.sleep_forever()

    with anyio.fail_after(10):
        async with Executor(backend=compute, storage=store) as executor:
            await executor.map(str, ["x" * 1000])
            monkeypatch.setattr(store, "delete", stall)

    assert "took too long" in caplog.text


async def test_a_store_that_fails_for_a_moment_costs_nothing(
    make_compute: type[FakeCompute], store: CountingStorage, clock: Clock
) -> None:
    """A request is tried three times, and then the task has attempts left."""
    compute = make_compute(limits=TINY, threads=True)

    def same(text: str) -> str:
        return text

    async with Executor(backend=compute, storage=store) as executor:
        for operation in ("put", "get"):
            store.fail[operation] = [TransientError("503")] * 2
        once = executor.options(retries=0)
        assert await once.submit(same, "x" * 1000) == "x" * 1000
        store.fail["put"] = [TransientError("503")] * 8
        assert await executor.submit(len, "x" * 1000) == 1000
        store.fail["put"] = [TransientError("503")] * 9
        with pytest.raises(TransientError, match="503"):
            await executor.submit(len, "x" * 1000)
        store.fail["put"] = [StorageError("denied")]
        with pytest.raises(StorageError, match="denied"):
            await executor.submit(len, "x" * 1000)

    assert not any(store.fail.values())


async def test_what_cannot_be_stored_is_too_large(
    make_compute: type[FakeCompute], store: CountingStorage
) -> None:
    """The platform's own refusal, where storage could not help."""
    limits = Limits(concurrency=1, lossless=True)
    compute = make_compute([PayloadTooLargeError("6 MB")], limits=limits)

    async with Executor(backend=compute, storage=store) as executor:
        with pytest.raises(PayloadTooLargeError, match="6 MB"):
            await executor.submit(len, "x")


def view_of(array: Any) -> memoryview:
    return memoryview(array).cast("B")


def test_an_array_is_recognised_as_long_as_it_lives() -> None:
    """The second time it has a name; another one in its place has not."""
    common = CommonBuffers()
    array = np.zeros(1 << 18)

    assert common.name_of(view_of(array)) is None
    name = common.name_of(view_of(array))
    assert name is not None
    assert common.name_of(view_of(array)) == name
    assert common.name_of(view_of(np.zeros(1 << 18))) is None
    assert common.name_of(view_of(np.zeros(100))) is None


def test_no_two_arrays_ever_share_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where each lies in the memory of one that is gone."""
    monkeypatch.setattr("wren.shared._AT_ONCE_FROM", 1 << 20)
    common = CommonBuffers()
    names: list[str | None] = []

    for n in range(50):
        array = np.full(1 << 18, n)
        names.append(common.name_of(view_of(array)))
        del array

    assert None not in names
    assert len(set(names)) == 50


def test_parts_of_an_array_are_not_the_array() -> None:
    """Two halves have one owner and one length."""
    common = CommonBuffers()
    array = np.zeros(1 << 19)
    halves = [view_of(array)[: 1 << 21], view_of(array)[1 << 21 :]]

    assert [common.name_of(half) for half in halves * 2] == [None] * 4
    assert common.name_of(memoryview(bytes(1 << 21))) is None
