"""The executor on this machine, everything it carries going through a cloud's store."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from wren.backends.local.compute import LocalCompute
from wren.config import Settings
from wren.conformance.emulators.emulator import Emulator
from wren.conformance.executor import ExecutorSuite
from wren.conformance.executor_faults import ExecutorFaultSuite
from wren.conformance.faults import Fault, FaultPlan
from wren.conformance.limits import LimitedCompute
from wren.conformance.proxy import FaultProxy
from wren.conformance.spec import Level, check_of
from wren.executor import Executor
from wren.protocols import Storage
from wren.registry import open_storage

Open = Callable[..., Executor]

INLINE = 300
"""Bytes of a request or a response that need no store."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Two of the client libraries know asyncio only."""
    return "asyncio"


@pytest.fixture(autouse=True)
def small(request: pytest.FixtureRequest) -> None:
    """Leave the checks of scale to stores that keep up with them on a busy machine."""
    found = check_of(getattr(request, "function", None))
    if found is not None and found.level is Level.SCALE:
        pytest.skip("scale is checked over memory and files")


@pytest.fixture
async def open_on() -> AsyncIterator[Callable[..., Executor]]:
    """Make executors on a store, with two workers whose messages hold little."""
    opened: list[LimitedCompute] = []

    def open_on(url: str, *, inline: float = INLINE, **options: Any) -> Executor:
        compute = LimitedCompute(
            LocalCompute(2), request_bytes=inline, response_bytes=inline
        )
        opened.append(compute)
        return Executor(backend=compute, storage=url, **options)

    yield open_on
    for compute in opened:
        await compute.aclose()


@pytest.fixture(params=["s3_url", "gcs_url", "azurite_url"])
def url(request: pytest.FixtureRequest) -> str:
    """Return an empty place in each store, whose grants are of different kinds."""
    place: str = request.getfixturevalue(request.param)
    return place


@pytest.mark.blocking  # starting an interpreter blocks the loop for a moment
class TestStores(ExecutorSuite):
    """Functions, arguments and results travel by grants."""

    inline = False

    @pytest.fixture
    def open_executor(self, open_on: Callable[..., Executor], url: str) -> Open:
        """Make executors on the store."""

        def open_executor(**options: Any) -> Executor:
            return open_on(url, **options)

        return open_executor

    @pytest.fixture
    def leftovers(self, url: str) -> Callable[[], Awaitable[list[str]]]:
        """Look with another client."""

        async def leftovers() -> list[str]:
            store = open_storage(url, Settings())
            try:
                return [info.key async for info in store.list()]
            finally:
                await store.aclose()

        return leftovers


@pytest.mark.blocking  # as above
class TestFaultyStores(ExecutorFaultSuite):
    """The same, with faults in between; workers commit by grants."""

    @pytest.fixture
    async def compute(self) -> AsyncIterator[LocalCompute]:
        """Two workers, whose messages hold anything; what is dear is stored."""
        compute = LocalCompute(2)
        yield compute
        await compute.aclose()

    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[Storage]:
        """Open the store that ``url`` names."""
        store = open_storage(url, Settings())
        yield store
        await store.aclose()


@pytest.fixture
async def counted(
    s3_server: Emulator, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[str, FaultProxy]]:
    """Return a store's URL, and what counts the requests that reach its server."""
    endpoint = s3_server.environment["AWS_ENDPOINT_URL_S3"]
    async with FaultProxy(endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        yield s3_url, proxy


@pytest.mark.anyio
@pytest.mark.blocking  # as above
async def test_the_store_hears_nothing_of_what_fits_inline(
    open_on: Callable[..., Executor], counted: tuple[str, FaultProxy]
) -> None:
    """0 requests for each task, counted by the server."""
    url, proxy = counted

    async with open_on(url, inline=1 << 20) as executor:
        assert await executor.map(abs, range(200)) == list(range(200))
        assert await executor.submit(abs, -1) == 1

    assert proxy.requests == []


@pytest.mark.anyio
@pytest.mark.blocking  # as above
async def test_an_object_is_written_once_and_read_once(
    open_on: Callable[..., Executor], counted: tuple[str, FaultProxy]
) -> None:
    """At most 1 PUT and 1 GET for each spilled object, counted by the server."""
    url, proxy = counted
    items = [bytes([n]) * 20_000 for n in range(12)]

    async with open_on(url) as executor:
        results = await executor.map(lambda data: data[::-1], items, chunksize=1)

    assert results == items
    seen = Counter(
        (each.method, each.path.partition("?")[0]) for each in proxy.requests
    )
    objects = {path for method, path in seen if method == "PUT"}
    arguments = {path for path in objects if "/in/" in path}
    responses = {path for path in objects if "/out/" in path}
    assert (len(arguments), len(responses)) == (12, 12)
    assert {seen["PUT", path] for path in objects} == {1}
    assert {seen["GET", path] for path in arguments | responses} == {1}
    assert {method for method, path in seen if "/wren/jobs/" in path} == {"GET", "PUT"}
    others = sum(seen.values()) - 2 * len(arguments | responses)
    assert others <= 10  # the function, and cleaning; nothing for each task


@pytest.mark.anyio
@pytest.mark.blocking  # as above
async def test_a_worker_whose_answer_from_the_store_is_lost_knows_its_own(
    open_on: Callable[..., Executor], counted: tuple[str, FaultProxy]
) -> None:
    """Its second write is answered "exists": what lies there is the outcome."""
    url, proxy = counted
    proxy.plan = FaultPlan(Fault("PUT", "lose", key="*/out/*", times=2))

    with proxy.plan:
        async with open_on(url, inline=1 << 20, retries=0) as executor:
            job = executor.map(abs, [-1, -2], chunksize=1, commit_after=0)
            assert await job == [1, 2]

    assert proxy.count("PUT", "*/out/*") == 4
    assert proxy.count("GET", "*/out/*") == 2
    assert job.stats.retried == 0
