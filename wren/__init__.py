"""Run ``await executor.map(fn, items)`` on a cloud's functions, or on this machine.

Names are loaded when they are first used: a worker that needs three small modules of
this package does not pay for the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wren.config import Runtime, Settings
    from wren.errors import (
        AccessDeniedError,
        ComputeError,
        ConfigurationError,
        CredentialsError,
        DeploymentError,
        IntegrityError,
        InvalidStateError,
        KeyExistsError,
        KeyNotFoundError,
        PayloadTooLargeError,
        RemoteError,
        SerializationError,
        StorageError,
        TaskCancelledError,
        TaskTimeoutError,
        ThrottledError,
        TransientError,
        UnsupportedError,
        VersionMismatchError,
        WorkerLostError,
        WrenError,
    )
    from wren.executor import Executor
    from wren.job import Future, Job
    from wren.protocols import (
        Buffer,
        Compute,
        Deployer,
        Deployment,
        Grant,
        Limits,
        ObjectInfo,
        Storage,
        StorageCapabilities,
        WorkerInfo,
    )
    from wren.stats import JobStats, TaskStats

__version__ = "0.1.0"

__all__ = (
    "AccessDeniedError",
    "Buffer",
    "Compute",
    "ComputeError",
    "ConfigurationError",
    "CredentialsError",
    "Deployer",
    "Deployment",
    "DeploymentError",
    "Executor",
    "Future",
    "Grant",
    "IntegrityError",
    "InvalidStateError",
    "Job",
    "JobStats",
    "KeyExistsError",
    "KeyNotFoundError",
    "Limits",
    "ObjectInfo",
    "PayloadTooLargeError",
    "RemoteError",
    "Runtime",
    "SerializationError",
    "Settings",
    "Storage",
    "StorageCapabilities",
    "StorageError",
    "TaskCancelledError",
    "TaskStats",
    "TaskTimeoutError",
    "ThrottledError",
    "TransientError",
    "UnsupportedError",
    "VersionMismatchError",
    "WorkerInfo",
    "WorkerLostError",
    "WrenError",
)

_HOME = {
    "Executor": "wren.executor",
    "Future": "wren.job",
    "Job": "wren.job",
    "JobStats": "wren.stats",
    "TaskStats": "wren.stats",
    "Runtime": "wren.config",
    "Settings": "wren.config",
    **dict.fromkeys(
        (
            "Buffer",
            "Compute",
            "Deployer",
            "Deployment",
            "Grant",
            "Limits",
            "ObjectInfo",
            "Storage",
            "StorageCapabilities",
            "WorkerInfo",
        ),
        "wren.protocols",
    ),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME.get(name, "wren.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
