"""Worker processes on this machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from wren.errors import ConfigurationError

if TYPE_CHECKING:
    from wren.backends.local.compute import LocalCompute
    from wren.config import Settings


def open_compute(settings: Settings) -> LocalCompute:
    """Make the local backend. Nothing starts before it is prepared.

    The import is late because a worker process loads this package, too, and needs none
    of what the driver's side needs.

    Raises:
        ConfigurationError: This is not Linux. Memory files, descriptors of processes
            and the means to kill what a task started are Linux's.
    """
    if sys.platform != "linux":
        raise ConfigurationError(
            f"the local backend needs Linux, and this is {sys.platform}: set "
            "WREN_BACKEND to another one"
        )
    from wren.backends.local.compute import LocalCompute, usable_cpus

    return LocalCompute(settings.concurrency or usable_cpus(), memory=settings.memory)
