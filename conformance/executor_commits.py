"""Checks of responses that are stored before they are sent."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from wren.conformance.executor_bench import JOBS, Bench
from wren.conformance.executor_values import PATIENCE
from wren.conformance.faults import Fault, FaultPlan
from wren.conformance.spec import Level, check, not_offered
from wren.envelope import RESPONSE, encode
from wren.errors import IntegrityError
from wren.serialize import dump_many, dump_result, load

_unpickled: list[str] = []


class _Canary:
    """Tells when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _tell, ()


def _tell() -> None:
    _unpickled.append("here")


def _slow(seconds: float) -> Callable[[int], int]:
    def work(n: int) -> int:
        import time

        time.sleep(seconds)
        return n

    return work


def _unique() -> str:
    import secrets

    return secrets.token_hex(16)


class CommitChecks:
    """Work that was dear is not lost with its reply, and is not done twice."""

    inline = True
    """Small data fits into a response."""

    @check("E24")
    async def test_the_store_is_not_polled_afterwards(self, bench: Bench) -> None:
        """Once a job has its results, nothing looks for responses any more."""
        with anyio.fail_after(PATIENCE):
            async with bench.open(direct_seconds=0.01) as executor:
                job = executor.map(_slow(0.3), range(2), chunksize=1)
                assert await job == [0, 1]
                place = f"{JOBS}{job.id}/out/"
                asked = [bench.store.count(each, place) for each in ("list", "get")]
                assert await executor.map(_slow(0.3), range(2), chunksize=1) == [0, 1]
                again = [bench.store.count(each, place) for each in ("list", "get")]

        assert asked[0] >= 1
        assert again == asked

    @check("E37", Level.COMMIT)
    @pytest.mark.parametrize(
        ("seconds", "after", "stored"), [(0, 10, 0), (0.3, 0.1, 1), (0, 0, 1)]
    )
    async def test_what_took_long_is_stored_once(
        self, bench: Bench, seconds: float, after: float, stored: int
    ) -> None:
        """What was quick is not; with ``commit_after=0`` everything is."""
        if not self.inline:
            not_offered("small data inside a response")
        plan = FaultPlan(Fault("invoke", "delay", first=2, seconds=3600))

        with anyio.fail_after(PATIENCE):
            async with bench.open(plan) as executor:
                job = executor.map(
                    _slow(seconds),
                    [7, 8],
                    chunksize=1,
                    concurrency=1,
                    commit_after=after,
                )
                result = await job[0]
                while bench.sent < 2:
                    await anyio.lowlevel.checkpoint()
                found = await bench.keys(JOBS)
                asked = bench.store.count("get") + bench.store.count("put")
                job.cancel()

        assert result == 7
        assert len(found) == stored
        assert all(key.startswith(f"{JOBS}{job.id}/out/") for key in found)
        assert asked == 0

    @check("E38", Level.COMMIT)
    async def test_a_reply_lost_after_the_commit_is_not_worked_for_again(
        self, bench: Bench
    ) -> None:
        """The response is taken from the store."""
        plan = FaultPlan(Fault("invoke", "lose", times=3))

        with anyio.fail_after(PATIENCE):
            async with bench.open(plan) as executor:
                job = executor.map(abs, [-1, -2, -3], chunksize=1, commit_after=0)
                assert await job == [1, 2, 3]

        assert bench.executed == 3

    @check("E38", Level.COMMIT)
    async def test_work_lost_before_the_commit_is_done_again(
        self, bench: Bench
    ) -> None:
        """The store has nothing, and the task has attempts left."""
        plan = FaultPlan(Fault("invoke", "die"))

        with anyio.fail_after(PATIENCE):
            async with bench.open(plan) as executor:
                assert await executor.map(abs, [-1], commit_after=0) == [1]

        assert (bench.sent, bench.executed) == (2, 1)
        assert bench.store.count("get") >= 1

    @check("E39", Level.COMMIT)
    async def test_waiting_responses_share_their_listings(self, bench: Bench) -> None:
        """One listing a poll for the whole job, however many requests wait."""
        with anyio.fail_after(PATIENCE):
            async with bench.open(direct_seconds=0.01, retries=0) as executor:
                began = anyio.current_time()
                job = executor.map(_slow(1.2), range(4), chunksize=1)
                assert await job == list(range(4))
                seconds = anyio.current_time() - began
                place = f"{JOBS}{job.id}/out/"

        listings = bench.store.count("list", place)
        assert bench.executed == 4
        assert bench.store.most_listing == 1
        assert 1 <= listings <= 2 + 2 * seconds
        assert bench.store.count("get", place) <= 2 * 4

    @check("E41", Level.COMMIT)
    async def test_who_writes_first_is_observed(self, bench: Bench) -> None:
        """An execution that finds the place taken is superseded, not lost."""
        plan = FaultPlan(Fault("invoke", "duplicate"))

        with anyio.fail_after(PATIENCE):
            async with bench.open(plan, retries=0) as executor:
                result = await executor.options(commit_after=0).submit(_unique)

        assert bench.executed == 2
        assert len(result) == 32
        first, second = bench.responses
        assert result.encode() not in second
        if self.inline:
            assert result.encode() in first

    @check("E44", Level.SECURITY)
    @pytest.mark.parametrize("action", ["truncate", "flip", "empty", "replace"])
    async def test_a_stored_response_that_was_changed_is_read_again(
        self, bench: Bench, action: str
    ) -> None:
        """What was bent on the way arrives; what stays bent is refused."""
        bent = Fault("get", action, key=f"{JOBS}*/out/*")
        stays = Fault("get", action, key=f"{JOBS}*/out/*", times=9)

        with anyio.fail_after(PATIENCE):
            async with bench.open(FaultPlan(Fault("invoke", "lose"), bent)) as executor:
                assert await executor.map(abs, [-1], commit_after=0) == [1]
            plan = FaultPlan(Fault("invoke", "lose", times=3), stays)
            async with bench.open(plan) as executor:
                for _ in range(3):
                    with pytest.raises(IntegrityError):
                        await executor.map(abs, [-1], commit_after=0)

        assert bench.executed == 3

    @check("E44", Level.SECURITY)
    async def test_a_forged_response_is_never_unpickled(self, bench: Bench) -> None:
        """Who can write to the store can run nothing in the driver."""
        header = {
            "worker": "w",
            "cold": False,
            "started": 0.0,
            "seconds": 0.0,
            "peak": 0,
            "output": "",
        }
        frames = dump_many([_Canary()], dump_result).frames
        forged = bytes(32) + b"".join(encode(RESPONSE, header, frames))
        _unpickled.clear()

        with anyio.fail_after(PATIENCE):
            async with bench.open(FaultPlan(Fault("invoke", "lose"))) as executor:
                bench.store.show = lambda _key, _data: forged
                with pytest.raises(IntegrityError):
                    await executor.map(abs, [-1], commit_after=0)

        assert _unpickled == []
        load(pickle.dumps(_Canary()))
        assert _unpickled == ["here"]  # it would have told

    @check("E44", Level.SECURITY)
    async def test_a_response_belongs_to_its_request(self, bench: Bench) -> None:
        """The stored response to one task is refused in the place of another's."""
        read: list[bytes] = []

        def show(_key: str, data: bytes) -> bytes:
            read.append(data)
            return read[0]

        with anyio.fail_after(PATIENCE):
            plan = FaultPlan(Fault("invoke", "lose", times=2))
            async with bench.open(plan) as executor:
                bench.store.show = show
                job = executor.map(
                    abs,
                    [-1, -2],
                    chunksize=1,
                    concurrency=1,
                    commit_after=0,
                    return_exceptions=True,
                )
                first, second = await job

        assert first == 1
        assert isinstance(second, IntegrityError)
