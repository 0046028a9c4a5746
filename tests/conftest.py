"""What tests have: two event loops, a watch on blocking, servers, no quiet skips.

``s3_url`` and its like are empty stores, each for one test. ``s3_server`` and its like
are the servers behind them.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Generator
from contextlib import AbstractContextManager, ExitStack

import pytest
import trustme
from blockbuster import blockbuster_ctx

from wren.conformance.emulators import azurite, gcs, s3
from wren.conformance.emulators.azurite import Certificate
from wren.conformance.emulators.emulator import Emulator
from wren.conformance.emulators.errors import NotInstalledError


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


def _served(serving: AbstractContextManager[Emulator]) -> Generator[Emulator]:
    """Run an emulator; skip the test, with the command, where it is not installed."""
    with ExitStack() as stack:
        try:
            emulator = stack.enter_context(serving)
        except NotInstalledError as error:
            pytest.skip(str(error))
        yield emulator


@pytest.fixture(scope="session")
def s3_server() -> Generator[Emulator]:
    """One S3 server for the whole run, started by the first test that asks."""
    yield from _served(s3.serve())


@pytest.fixture(scope="session")
def gcs_server() -> Generator[Emulator]:
    """One GCS server for the whole run, started by the first test that asks."""
    yield from _served(gcs.serve(anonymous=False))


@pytest.fixture(scope="session")
def azurite_server() -> Generator[Emulator]:
    """One Azurite for the whole run, started by the first test that asks."""
    yield from _served(azurite.serve())


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Proof that a server is 127.0.0.1, for clients that trust its authority."""
    folder = tmp_path_factory.mktemp("certificate")
    paths = Certificate(folder / "chain.pem", folder / "key.pem", folder / "ca.pem")
    authority = trustme.CA()
    proof = authority.issue_cert("127.0.0.1")
    paths.chain.write_bytes(b"".join(blob.bytes() for blob in proof.cert_chain_pems))
    paths.key.write_bytes(proof.private_key_pem.bytes())
    authority.cert_pem.write_to_path(str(paths.authority))
    return paths


@pytest.fixture(scope="session")
def azurite_oauth_server(certificate: Certificate) -> Generator[Emulator]:
    """One Azurite for the whole run that speaks HTTPS and takes tokens of Entra ID."""
    yield from _served(azurite.serve(certificate=certificate))


def _fresh_store(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> str:
    """Point this process at an emulator, as a user would; return an empty store's URL.

    The server is shared, so each test gets a prefix of its own.
    """
    for name in emulator.unset:
        monkeypatch.delenv(name, raising=False)
    for name, value in emulator.environment.items():
        monkeypatch.setenv(name, value)
    return f"{emulator.url}/{uuid.uuid4().hex}"


@pytest.fixture
def s3_url(s3_server: Emulator, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty S3 store; the environment of this test leads to its server."""
    return _fresh_store(s3_server, monkeypatch)


@pytest.fixture
def gcs_url(gcs_server: Emulator, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty GCS store; the environment of this test leads to its server."""
    return _fresh_store(gcs_server, monkeypatch)


@pytest.fixture
def azurite_url(azurite_server: Emulator, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty Azure store; the environment of this test leads to its server."""
    return _fresh_store(azurite_server, monkeypatch)


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip for want of an installation into a failure, where ``CI`` is set."""
    if not (report.skipped and os.environ.get("CI")):
        return
    reason = str(report.longrepr)
    wanting = ("could not import", "pip install", "wren emulator install")
    if any(want in reason for want in wanting):
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
