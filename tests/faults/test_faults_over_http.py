"""Workers reach a real S3 server by grants alone, through a proxy that harms them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from wren import registry
from wren.config import Settings
from wren.conformance.emulators.emulator import Emulator
from wren.conformance.fault_plan import Fault, FaultPlan
from wren.conformance.proxy import FaultProxy
from wren.errors import IntegrityError, StorageError, TransientError
from wren.protocols import Storage

if TYPE_CHECKING:
    from tests.faults.conftest import Platform

# Starting an interpreter blocks the loop for a moment.
pytestmark = [pytest.mark.anyio, pytest.mark.blocking]

ITEM = "x" * 1000
CONFLICT = b"<Error><Code>ConditionalRequestConflict</Code></Error>"
EXPIRED = b"<Error><Code>ExpiredToken</Code></Error>"
NO_BUCKET = b"<Error><Code>NoSuchBucket</Code></Error>"
NO_KEY = b"<Error><Code>NoSuchKey</Code></Error>"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The client of S3 knows asyncio only, and so does the proxy."""
    return "asyncio"


@pytest.fixture
async def proxy(
    s3_server: Emulator, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[FaultProxy]:
    """A proxy before the server; from here on the environment leads to it."""
    assert s3_url
    async with FaultProxy(s3_server.environment["AWS_ENDPOINT_URL_S3"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        yield proxy


@pytest.fixture
async def platform(
    s3_url: str, proxy: FaultProxy, on_store: Callable[[Storage], Platform]
) -> AsyncGenerator[Platform]:
    """A platform whose store is S3, behind the proxy."""
    assert not proxy.requests
    async with aclosing(registry.open_storage(s3_url, Settings())) as store:
        yield on_store(store)


def twice(item: str) -> str:
    return item * 2


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault("GET", "status", "*/in/*", times=2), id="busy to a reader"),
        pytest.param(
            Fault("PUT", "status", "*/out/*", times=2, status=500),
            id="failing a writer",
        ),
        pytest.param(Fault("GET", "refuse", "*/fn/*"), id="out of reach"),
        pytest.param(Fault("GET", "lose", "*/in/*"), id="reset before the answer"),
        pytest.param(Fault("GET", "cut", "*/in/*"), id="reset in the middle"),
        pytest.param(Fault("GET", "truncate", "*/in/*"), id="closed in the middle"),
        pytest.param(Fault("GET", "shorten", "*/in/*"), id="half, and nothing shows"),
        pytest.param(Fault("GET", "empty", "*/fn/*"), id="an empty 200"),
        pytest.param(Fault("GET", "flip", "*/in/*", times=2), id="a flipped bit"),
        pytest.param(Fault("GET", "replace", "*/out/*"), id="another's response"),
        pytest.param(
            Fault("GET", "status", "*/in/*", times=2, status=404, body=NO_KEY),
            id="not there yet",
        ),
        pytest.param(Fault("PUT", "lose", "*/out/*"), id="a lost reply to a commit"),
        pytest.param(Fault("PUT", "duplicate", "*/out/*"), id="a commit sent twice"),
        pytest.param(
            Fault("PUT", "status", "*/out/*", status=409, body=CONFLICT),
            id="a conflict that is undecided",
        ),
        pytest.param(
            Fault("GET", "status", "*/in/*", status=403), id="a grant is refused"
        ),
        pytest.param(
            Fault("GET", "status", "*/fn/*", status=400, body=EXPIRED),
            id="a grant's credentials have expired",
        ),
    ],
)
async def test_a_fault_on_the_way_to_the_store_costs_a_task_nothing(
    platform: Platform, proxy: FaultProxy, fault: Fault
) -> None:
    """No attempt, no second execution, and the store is left empty."""
    with FaultPlan(fault) as plan:
        proxy.play(plan)
        async with platform.open(FaultPlan(), spilled=True, retries=0) as executor:
            job = executor.map(platform.traced(twice), [ITEM], chunksize=1)
            assert await job == [twice(ITEM)]

    assert platform.executions == {len(ITEM): 1}
    assert await platform.keys() == []


@pytest.mark.parametrize("kind", ["fn", "in"])
async def test_a_signature_that_the_server_refuses_is_made_anew(
    platform: Platform, proxy: FaultProxy, kind: str
) -> None:
    """The server itself says no; the object is not written again."""
    plan = FaultPlan(Fault("grant", "expire", f"*/{kind}/*"))

    async with platform.open(plan, spilled=True, retries=0) as executor:
        assert await executor.submit(platform.traced(twice), ITEM) == twice(ITEM)

    assert platform.executions == {len(ITEM): 1}
    assert proxy.count("PUT", f"*/{kind}/*") == 1
    assert proxy.count("GET", f"*/{kind}/*") == 2


@pytest.mark.parametrize(
    ("fault", "error", "text", "reads"),
    [
        pytest.param(
            Fault("GET", "flip", "*/in/*", times=3),
            IntegrityError,
            "read 3 times",
            3,
            id="corrupt",
        ),
        pytest.param(
            Fault("GET", "status", "*/in/*", times=6, status=404, body=NO_KEY),
            TransientError,
            "404 NoSuchKey",
            6,
            id="gone",
        ),
        pytest.param(
            Fault("GET", "status", "*/in/*", status=404, body=NO_BUCKET),
            StorageError,
            "NoSuchBucket",
            1,
            id="without its bucket",
        ),
        pytest.param(
            Fault("GET", "status", "*/in/*", times=5, status=403),
            StorageError,
            "machine's clock",
            5,
            id="never granted",
        ),
    ],
)
async def test_a_fault_that_stays_ends_the_task_and_says_why(
    platform: Platform,
    proxy: FaultProxy,
    fault: Fault,
    error: type[StorageError],
    text: str,
    reads: int,
) -> None:
    """In so many requests and no more, and without running anything."""
    with FaultPlan(fault) as plan:
        proxy.play(plan)
        async with platform.open(FaultPlan(), spilled=True, retries=1) as executor:
            with pytest.raises(error, match=text) as caught:
                await executor.submit(platform.traced(twice), ITEM)
            assert type(caught.value) is error
            assert await executor.submit(len, ITEM) == len(ITEM)

    assert platform.executions == {}
    assert plan.fired[-1].number == reads
    secrets = ["X-Amz-Signature", "X-Amz-Credential"]
    assert not any(secret in str(caught.value) for secret in secrets)
