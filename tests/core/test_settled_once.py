"""What a job's end crosses: answers on their way, storage that is slow or fails."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import aclosing
from typing import Literal

import anyio
import pytest

from wren import Executor, Limits, TaskCancelledError, TransientError
from wren.protocols import Buffer, Grant
from wren.storage.memory import MemoryStorage

pytestmark = pytest.mark.anyio


class SlowToDelete(MemoryStorage):
    """A store in which a test decides when a deletion is done."""

    def __init__(self) -> None:
        super().__init__()
        self.deleting = anyio.Event()
        self.go_on = anyio.Event()

    async def delete(self, keys: Iterable[str]) -> None:
        self.deleting.set()
        await self.go_on.wait()
        await super().delete(keys)


class FailsToGrantOnce(MemoryStorage):
    """A store whose first grant fails, after the object was stored."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 1

    async def grant(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        *,
        expires_in: float,
        if_absent: bool = False,
    ) -> Grant:
        if self.failures:
            self.failures -= 1
            raise TransientError("503", store=self.name, key=key)
        return await super().grant(
            key, method, expires_in=expires_in, if_absent=if_absent
        )


def fail_at_three(item: tuple[int, Buffer]) -> int:
    number, _ = item
    if number == 3:
        raise ValueError(number)
    return number


async def test_a_failure_while_arguments_are_removed_counts_every_task_once(
    make_compute: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is answered, but not done with its storage when the job ends."""
    monkeypatch.setattr("wren.discards.MOST_KEYS", 1)
    limits = Limits(concurrency=4, request_bytes=20_000)
    store = SlowToDelete()
    items = [(number, bytes(8_000)) for number in range(4)]
    backend = make_compute(limits=limits)

    async with aclosing(store), Executor(backend=backend, storage=store) as executor:
        job = executor.map(fail_at_three, items, chunksize=1)
        with anyio.fail_after(10):
            await store.deleting.wait()
            with pytest.raises(ValueError, match="3"):
                await job
            store.go_on.set()
            await job.wait()

        assert job.done()
        stats = job.stats
        assert stats.finished + stats.failed + stats.cancelled == 4
        for future in job:
            if not future.cancelled() and future.exception() is None:
                assert future.result() == future.index


async def test_an_outcome_stands_when_the_job_is_cancelled_right_after(
    make_compute: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its arguments are still being removed; that changes nothing about it."""
    monkeypatch.setattr("wren.discards.MOST_KEYS", 1)
    limits = Limits(concurrency=1, request_bytes=20_000)
    store = SlowToDelete()
    backend = make_compute(limits=limits)

    async with aclosing(store), Executor(backend=backend, storage=store) as executor:
        job = executor.map(fail_at_three, [(0, bytes(8_000)), (1, b"")], chunksize=1)
        with anyio.fail_after(10):
            await store.deleting.wait()
            job.cancel()
            store.go_on.set()
            await job.wait()

        assert job[0].result() == 0
        with pytest.raises(TaskCancelledError):
            job[1].result()


async def test_a_grant_that_fails_is_asked_for_again(make_compute: type) -> None:
    """The object is there already, with its hash."""
    limits = Limits(concurrency=1, request_bytes=20_000)
    backend = make_compute(limits=limits)
    store = FailsToGrantOnce()

    async with aclosing(store), Executor(backend=backend, storage=store) as executor:
        assert await executor.map(fail_at_three, [(0, bytes(8_000))]) == [0]
