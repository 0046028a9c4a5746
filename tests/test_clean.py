from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from wren.backends.local.session import Session
from wren.clean import StaleJob, remove_job, stale_jobs, stale_sessions
from wren.protocols import Buffer, Grant, ObjectInfo, Storage, StorageCapabilities
from wren.spill import JOBS

NOW = datetime(2030, 1, 31, tzinfo=UTC)


class DatedStorage:
    """Objects without content that were written a number of days ago."""

    name: str = "dated"
    capabilities: StorageCapabilities = StorageCapabilities()

    def __init__(self, ages: dict[str, int]) -> None:
        self.ages = ages
        self.deletions: list[int] = []

    async def list(
        self, prefix: str = "", *, start_after: str = ""
    ) -> AsyncIterator[ObjectInfo]:
        for key in sorted(self.ages):
            if key.startswith(prefix) and key > start_after:
                modified = NOW - timedelta(days=self.ages[key])
                yield ObjectInfo(key=key, size=10, modified=modified, etag="")

    async def delete(self, keys: Iterable[str]) -> None:
        keys = list(keys)
        self.deletions.append(len(keys))
        for key in keys:
            del self.ages[key]

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        raise AssertionError

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        raise AssertionError

    async def head(self, key: str) -> ObjectInfo:
        raise AssertionError

    async def grant(
        self, key: str, method: str, *, expires_in: float, if_absent: bool = False
    ) -> Grant:
        raise AssertionError

    async def aclose(self) -> None:
        raise AssertionError


async def found(storage: Storage, days: int) -> list[StaleJob]:
    return [job async for job in stale_jobs(storage, NOW - timedelta(days=days))]


@pytest.mark.anyio
async def test_a_job_is_as_old_as_its_newest_object() -> None:
    """One that still writes is alive, however long ago it began."""
    storage = DatedStorage(
        {
            "wren/jobs/alive/in/0": 30,
            "wren/jobs/alive/out/0": 1,
            "wren/jobs/dead/in/0": 30,
            "wren/jobs/dead/out/0": 20,
            "wren/jobs/dead2/in/0": 9,
        }
    )

    jobs = await found(storage, 7)

    assert jobs == [
        StaleJob("dead", 2, 20, NOW - timedelta(days=20)),
        StaleJob("dead2", 1, 10, NOW - timedelta(days=9)),
    ]


@pytest.mark.anyio
async def test_only_jobs_are_looked_at() -> None:
    """The store may hold other things, some of them with similar names."""
    storage = DatedStorage(
        {"data/wren/jobs/x": 99, "wren/jobs.txt": 99, "wren/other/x": 99}
    )

    assert await found(storage, 7) == []


@pytest.mark.anyio
async def test_nothing_but_the_job_is_removed() -> None:
    """``dead`` is the beginning of ``dead2``, and the rest is not wren's."""
    others = {"wren/jobs/alive/in/0": 1, "wren/jobs/dead2/in/0": 40, "x": 99}
    storage = DatedStorage({**others, "wren/jobs/dead/a": 30, "wren/jobs/dead/b": 20})
    (job, _) = await found(storage, 7)

    await remove_job(storage, job)

    assert storage.ages == others


@pytest.mark.anyio
async def test_what_was_written_meanwhile_is_kept() -> None:
    """A job that comes back to life keeps its new objects."""
    storage = DatedStorage({"wren/jobs/dead/a": 30, "wren/jobs/dead/b": 20})
    (job,) = await found(storage, 7)
    storage.ages["wren/jobs/dead/c"] = 0

    await remove_job(storage, job)

    assert storage.ages == {"wren/jobs/dead/c": 0}


@pytest.mark.anyio
async def test_a_large_job_is_removed_in_pieces() -> None:
    """Its keys are never all in memory."""
    storage = DatedStorage({f"{JOBS}dead/{n}": 30 for n in range(2500)})
    (job,) = await found(storage, 7)

    await remove_job(storage, job)

    assert storage.ages == {}
    assert max(storage.deletions) <= 1000


def test_the_session_of_a_dead_driver_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that of one that lives is not."""
    session = "wren.backends.local.session"
    monkeypatch.setattr(f"{session}._parent", lambda: tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(f"{session}._SHARED_MEMORY", tmp_path)
    living = Session()
    dead = tmp_path / "wren-dead"
    dead.mkdir()
    (dead / "lock").touch()

    would = stale_sessions(dry_run=True)
    before = dead.exists()
    did = stale_sessions(dry_run=False)

    assert would == did == [dead]
    assert before
    assert not dead.exists()
    assert living.path.is_dir()
    living.close()
