"""Work that was dear is not lost with its reply, and is not done twice."""

from __future__ import annotations

import math
import pickle
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import pytest
from anyio.lowlevel import checkpoint

from wren import Executor
from wren.envelope import RESPONSE, Buffer, encode, seal
from wren.errors import (
    IntegrityError,
    TaskTimeoutError,
    TransientError,
    WorkerLostError,
)
from wren.protocols import Limits

if TYPE_CHECKING:
    from tests.core.conftest import Clock, CountingStorage, FakeCompute

pytestmark = pytest.mark.anyio

ON_TIME = Limits(concurrency=4)
IMPATIENT = Limits(concurrency=8, seconds=900, direct_seconds=0.0)
"""Of a platform that drops every connection while the work goes on."""


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


async def test_a_quick_response_touches_no_storage(
    make_compute: type[FakeCompute], store: CountingStorage
) -> None:
    """Storage costs money and time; a job that does not need it makes no request."""
    compute = make_compute(limits=ON_TIME, threads=True)

    async with Executor(backend=compute, storage=store) as executor:
        job = executor.map(abs, range(20))
        await job
        assert await executor.submit(abs, -7) == 7

    assert store.calls == []
    assert job.stats.storage_requests == 0


async def test_a_durable_job_stores_each_response_once_and_removes_it(
    make_compute: type[FakeCompute], store: CountingStorage
) -> None:
    """``commit_after=0`` stores everything; nothing stays when the job has ended."""
    compute = make_compute(limits=ON_TIME, threads=True)

    async with Executor(backend=compute, storage=store) as executor:
        job = executor.map(abs, range(6), chunksize=2, commit_after=0)
        assert await job == list(range(6))
        stored = await store.keys()
    places = [request["reply"]["place"] for request in compute.requests]

    assert len(set(places)) == 3
    assert all(place.startswith(f"wren/jobs/{job.id}/out/") for place in places)
    assert set(stored) <= set(places)
    assert await store.keys() == []


async def test_a_lost_reply_is_read_from_storage(
    make_compute: type[FakeCompute], store: CountingStorage
) -> None:
    """What was committed before the reply got lost is not run again."""
    compute = make_compute(["lose"] * 3, limits=ON_TIME, threads=True)

    async with Executor(backend=compute, storage=store, retries=0) as executor:
        job = executor.map(abs, [-1, -2, -3], chunksize=1, commit_after=0)
        assert await job == [1, 2, 3]

    assert compute.counts == {-1: 1, -2: 1, -3: 1}
    assert await store.keys() == []


async def test_work_that_was_lost_before_it_was_stored_runs_again(
    make_compute: type[FakeCompute], store: CountingStorage, clock: Clock
) -> None:
    """Looking finds nothing, and the task has an attempt left."""
    compute = make_compute([WorkerLostError()], limits=ON_TIME, threads=True)

    async with Executor(backend=compute, storage=store) as executor:
        assert await executor.map(abs, [-1], commit_after=0) == [1]

    assert compute.invocations == 2
    assert store.count("get") == 1


async def test_a_quick_reply_that_is_lost_was_not_stored(
    make_compute: type[FakeCompute], store: CountingStorage, clock: Clock
) -> None:
    """Doing it again costs less than storing every answer would."""
    compute = make_compute(["lose"], limits=ON_TIME, threads=True)

    async with Executor(backend=compute, storage=store) as executor:
        assert await executor.map(abs, [-1]) == [1]

    assert compute.counts == {-1: 2}


async def test_a_late_response_to_an_earlier_attempt_is_the_outcome(
    make_compute: type[FakeCompute], store: CountingStorage, clock: Clock
) -> None:
    """Of two attempts that both end, the first that was stored is observed."""
    compute = make_compute(["drop"], limits=ON_TIME, threads=True)
    compute.script.append(compute.finish)

    async with Executor(backend=compute, storage=store) as executor:
        result = await executor.options(commit_after=0).submit(uuid4)

    first, second = compute.returned
    assert first != second
    assert result == first
    assert await store.keys() == []


async def test_a_late_response_after_the_end_harms_nobody(
    make_compute: type[FakeCompute], store: CountingStorage, clock: Clock
) -> None:
    """A zombie writes where nobody looks any more."""
    compute = make_compute(["drop"], limits=ON_TIME, threads=True)

    async with Executor(backend=compute, storage=store) as executor:
        job = executor.map(abs, [-1], commit_after=0)
        assert await job == [1]
        await compute.finish()
        assert await job == [1]
        assert await executor.map(abs, [-2], commit_after=0) == [2]

    assert all(key.startswith(f"wren/jobs/{job.id}/") for key in await store.keys())


async def test_own_exists_is_adopted(
    make_compute: type[FakeCompute], store: CountingStorage
) -> None:
    """A response that was written, as it seems, by somebody else may be one's own."""
    compute = make_compute(["duplicate"], limits=ON_TIME, threads=True)

    async with Executor(backend=compute, storage=store, retries=0) as executor:
        result = await executor.options(commit_after=0).submit(uuid4)

    assert result == compute.returned[0]
    assert len(compute.returned) == 2


async def test_responses_are_waited_for_where_connections_are_dropped(
    make_compute: type[FakeCompute], store: CountingStorage, clock: Clock
) -> None:
    """One listing for each poll of the whole job, however many tasks wait."""
    compute = make_compute(["drop"] * 8, limits=IMPATIENT, threads=True)

    async def polls(count: int) -> None:
        while store.count("list") < count:
            await checkpoint()

    async with Executor(backend=compute, storage=store, retries=0) as executor:
        job = executor.map(abs, range(8), chunksize=1)
        async with anyio.create_task_group() as group:
            group.start_soon(job.wait)
            await polls(5)
            await compute.finish()
        assert await job == list(range(8))
        listings = [key for name, key in store.calls if name == "list"]

    assert compute.invocations == 8
    assert compute.counts == dict.fromkeys(range(8), 1)
    assert set(listings[:-1]) == {f"wren/jobs/{job.id}/out/"}
    assert clock.most_asleep == 1
    assert store.count("get") == 8
    assert await store.keys() == []


async def test_a_response_that_never_comes_is_given_up(
    make_compute: type[FakeCompute], store: CountingStorage, clock: Clock
) -> None:
    """The deadline is the platform's own; then the attempt has been lost."""
    limits = Limits(concurrency=1, direct_seconds=0.0, start_seconds=0.0)
    compute = make_compute(["drop"], limits=limits, threads=True)

    async with Executor(backend=compute, storage=store, retries=0) as executor:
        with pytest.raises(WorkerLostError):
            await executor.map(abs, [-1], timeout=0.01)

    assert compute.executed == []


async def test_a_listing_that_fails_is_made_again(
    make_compute: type[FakeCompute], store: CountingStorage, clock: Clock
) -> None:
    """It is a hint: the work goes on, and is not to be done twice."""
    compute = make_compute(["drop"], limits=IMPATIENT, threads=True)
    store.fail["list"] = [TransientError("503")] * 3

    async def finish() -> None:
        while store.count("list") < 5:
            await checkpoint()
        await compute.finish()

    async with Executor(backend=compute, storage=store, retries=0) as executor:
        job = executor.map(abs, [-1])
        async with anyio.create_task_group() as group:
            group.start_soon(finish)
            assert await job == [1]

    assert compute.executed == [-1]


async def test_before_a_task_has_timed_out_storage_is_looked_at(
    make_compute: type[FakeCompute], store: CountingStorage
) -> None:
    """A machine that slept sees the deadline before it sees the answer."""
    compute = make_compute(limits=ON_TIME, threads=True)

    async def finish_and_time_out() -> None:
        await compute.finish()
        raise TaskTimeoutError("too late")

    compute.script.extend(["drop", finish_and_time_out])

    async with Executor(backend=compute, storage=store, retries=1) as executor:
        assert await executor.map(abs, [-1], commit_after=0) == [1]

    assert compute.executed == [-1]


@pytest.mark.parametrize("fault", ["foreign key", "moved", "unsigned", "truncated"])
async def test_a_response_that_was_not_written_by_this_job_is_refused(
    make_compute: type[FakeCompute], store: CountingStorage, fault: str, tmp_path: Path
) -> None:
    """Who can write to the bucket can run nothing here: it is never unpickled."""
    compute = make_compute(limits=ON_TIME, threads=True)
    ran = tmp_path / "ran"

    async def plant() -> None:
        reply = compute.requests[-1]["reply"]
        place, key = reply["place"], bytes.fromhex(reply["key"])
        answer = b"".join(encode(RESPONSE, {}, [[pickle.dumps(Canary(ran))]]))
        sealed: list[Buffer] = {
            "foreign key": seal([answer], bytes(32), place),
            "moved": seal([answer], key, f"{place}0"),
            "unsigned": list[Buffer]([answer]),
            "truncated": seal([answer], key, place)[:1],
        }[fault]
        await store.put(place, b"".join(sealed))
        raise WorkerLostError("lost")

    compute.script.append(plant)

    async with Executor(backend=compute, storage=store) as executor:
        with pytest.raises(IntegrityError, match="not written by this job"):
            await executor.map(abs, [-1], commit_after=0)

    assert not ran.exists()
    assert store.count("get") == 3
    assert compute.invocations == 1


async def test_time_in_hand_is_left_to_store_before_the_connection_drops(
    make_compute: type[FakeCompute], store: CountingStorage
) -> None:
    """Whatever ``commit_after`` says, long work is stored where connections end."""
    limits = Limits(concurrency=1, seconds=900, direct_seconds=230)
    compute = make_compute(limits=limits, threads=True)

    async with Executor(backend=compute, storage=store) as executor:
        await executor.map(abs, [-1], commit_after=math.inf)
        await executor.map(abs, [-1], commit_after=60)

    assert [r["reply"]["after"] for r in compute.requests] == [115, 60]


async def test_what_cannot_be_stored_is_sent(
    make_compute: type[FakeCompute],
    store: CountingStorage,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The safety copy is missing; the response is not."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    compute = make_compute(limits=ON_TIME, threads=True)

    async def spoil() -> None:
        await store.aclose()

    compute.script.append(spoil)
    async with Executor(backend=compute, storage=store, retries=0) as executor:
        assert await executor.map(abs, [-1], commit_after=0) == [1]
