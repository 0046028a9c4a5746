"""Remove what drivers that were killed left behind in storage and on this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Final, NamedTuple

from wren.protocols import Storage
from wren.spill import JOBS

_BATCH: Final = 1000


class StaleJob(NamedTuple):
    """What one job left in a store."""

    id: str
    objects: int
    size: int
    """Bytes in all."""
    newest: datetime
    """When it last wrote something."""


async def stale_jobs(storage: Storage, before: datetime) -> AsyncIterator[StaleJob]:
    """Yield the jobs that wrote nothing at or after a time, in the order of their keys.

    Args:
        storage: Where to look.
        before: Compared with the store's clock, so leave it far more than seconds ago.
    """
    job: StaleJob | None = None
    async for info in storage.list(JOBS):
        identity = info.key.removeprefix(JOBS).partition("/")[0]
        if job is None or job.id != identity:
            if job is not None and job.newest < before:
                yield job
            job = StaleJob(identity, 0, 0, info.modified)
        job = StaleJob(
            identity,
            job.objects + 1,
            job.size + info.size,
            max(job.newest, info.modified),
        )
    if job is not None and job.newest < before:
        yield job


async def remove_job(storage: Storage, job: StaleJob) -> None:
    """Delete a job's objects, but none written since it was looked at. Idempotent."""
    batch: list[str] = []
    async for info in storage.list(f"{JOBS}{job.id}/"):
        if info.modified <= job.newest:
            batch.append(info.key)
        if len(batch) == _BATCH:
            await storage.delete(batch)
            batch = []
    await storage.delete(batch)


def stale_sessions(*, dry_run: bool) -> list[Path]:
    """Remove the directories of local drivers that are dead, and return their paths.

    Args:
        dry_run: Only return them.
    """
    # By name, like every adapter: the core imports none.
    session = import_module("wren.backends.local.session")
    paths: list[Path] = session.sweep(dry_run=dry_run)
    return paths
