"""What every test has: two event loops, a watch over blocking calls, no quiet skips."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from blockbuster import blockbuster_ctx


@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run each ``@pytest.mark.anyio`` test once on asyncio and once on trio."""
    backend: str = request.param
    return backend


@pytest.fixture(autouse=True)
def never_blocks_the_loop(request: pytest.FixtureRequest) -> Generator[None]:
    """Fail a test in which wren makes a blocking call on asyncio's event loop.

    Only calls with a frame of wren on the stack count, so a test may itself open files
    or sleep. ``@pytest.mark.blocking`` switches the watch off for one test: for code
    that blocks for a moment on purpose, with the reason beside the mark. trio is not
    watched, since blockbuster asks asyncio whether a loop is running; the code under
    test is the same.
    """
    test: pytest.Item = request.node
    watched = test.get_closest_marker("anyio") is not None
    if not watched or test.get_closest_marker("blocking") is not None:
        yield
        return
    with blockbuster_ctx("wren"):
        yield


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip for want of a package into a failure, where ``CI`` is set."""
    if not (report.skipped and os.environ.get("CI")):
        return
    reason = str(report.longrepr)
    if "could not import" in reason or "pip install" in reason:
        report.outcome = "failed"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[
    None, pytest.TestReport, pytest.TestReport
]:
    """See `_refuse_skip`; this is for skips inside a test or a fixture."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[
    None, pytest.CollectReport, pytest.CollectReport
]:
    """See `_refuse_skip`; this is for a whole module that was skipped."""
    report = yield
    _refuse_skip(report)
    return report
