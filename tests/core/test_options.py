"""Options of one job: their defaults, and what is refused at the call."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from wren import Executor
from wren.config import Settings
from wren.errors import ConfigurationError
from wren.options import Options, options_of

if TYPE_CHECKING:
    from tests.core.conftest import FakeCompute


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", 0),
        ("timeout", -1.0),
        ("timeout", math.nan),
        ("timeout", "1"),
        ("retries", -1),
        ("retries", 1.5),
        ("retries", None),
        ("retries", "2"),
        ("chunksize", 0),
        ("chunksize", 2.5),
        ("chunksize", "3"),
        ("concurrency", 0),
        ("concurrency", -4),
        ("buffer", 0),
        ("buffer", math.inf),
        ("commit_after", -1),
        ("commit_after", math.nan),
        ("commit_after", None),
        ("retry_on", ValueError),
        ("retry_on", [ValueError]),
        ("retry_on", (KeyboardInterrupt,)),
        ("retry_on", (ValueError("x"),)),
        ("retry_on", "ValueError"),
    ],
)
def test_a_bad_value_is_refused_by_name(name: str, value: Any) -> None:
    """With the value and what is expected, before anything is sent."""
    with pytest.raises(ConfigurationError, match=f"^{name}=.*: "):
        Options().override({name: value})  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", None),
        ("timeout", 0.5),
        ("timeout", 3),
        ("retries", 0),
        ("chunksize", np.int64(3)),
        ("chunksize", None),
        ("concurrency", 1),
        ("buffer", 1),
        ("commit_after", 0),
        ("commit_after", math.inf),
        ("retry_on", ()),
        ("retry_on", (ValueError, OSError)),
        ("return_exceptions", True),
    ],
)
def test_a_good_value_replaces_the_default(name: str, value: Any) -> None:
    """And nothing else."""
    options = Options().override({name: value})  # type: ignore[misc]

    assert getattr(options, name) == value
    assert options.override({name: getattr(Options(), name)}) == Options()  # type: ignore[misc]


def test_no_overrides_are_no_copy() -> None:
    """The usual call costs nothing."""
    options = Options()

    assert options.override({}) is options


def test_an_endless_time_is_no_limit() -> None:
    """Infinity says the same as None."""
    assert Options(timeout=math.inf).timeout is None


def test_defaults_come_from_the_settings() -> None:
    """What is configured holds for every job that says nothing else."""
    settings = Settings(timeout=3.0, retries=7, chunksize=5, buffer=9, commit_after=0.0)

    assert options_of(settings) == Options(
        timeout=3.0, retries=7, chunksize=5, buffer=9, commit_after=0.0
    )


@pytest.mark.anyio
async def test_the_executors_concurrency_bounds_all_jobs_together(
    make_compute: type[FakeCompute],
) -> None:
    """Also where the backend would allow more."""
    compute = make_compute(seed=3)

    async with Executor(backend=compute, concurrency=2) as executor:
        jobs = [executor.map(abs, range(20), chunksize=1) for _ in range(3)]
        for job in jobs:
            await job

    assert compute.most_in_flight == 2
