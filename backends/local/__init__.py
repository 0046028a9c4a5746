"""Worker processes on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wren.backends.local.compute import LocalCompute
    from wren.config import Settings


def open_compute(settings: Settings) -> LocalCompute:
    """Make the local backend. Nothing starts before it is prepared.

    The import is late because a worker process loads this package, too, and needs none
    of what the driver's side needs.
    """
    from wren.backends.local.compute import LocalCompute, usable_cpus

    return LocalCompute(settings.concurrency or usable_cpus(), memory=settings.memory)
