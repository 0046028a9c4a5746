"""The cloud stores keep their promises when servers and networks do not."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from wren import registry
from wren.config import Settings, environment
from wren.conformance.fault_plan import Fault
from wren.conformance.proxy import FaultProxy
from wren.conformance.storage_faults import StorageFaultSuite
from wren.protocols import Storage


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The proxy and two of the libraries know asyncio only."""
    return "asyncio"


class Proxied(StorageFaultSuite):
    """A store on an emulator, with a proxy between them."""

    url_fixture: ClassVar[str]
    variable: ClassVar[str]
    """Says where the server is."""

    @pytest.fixture
    def url(self, request: pytest.FixtureRequest) -> str:
        """An empty store; the environment leads to its server."""
        found: str = request.getfixturevalue(self.url_fixture)
        return found

    @pytest.fixture
    async def proxy(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[FaultProxy]:
        """A proxy; from here on the environment leads to it."""
        where = environment(self.variable)
        assert url
        assert where is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", where)
        assert found is not None
        for pause in ("wren.backoff._FIRST", "wren.grants._FIRST_PAUSE"):
            monkeypatch.setattr(pause, 0.0)  # tried again at once
        async with FaultProxy(found[0]) as proxy:
            monkeypatch.setenv(self.variable, where.replace(found[0], proxy.url))
            yield proxy

    @pytest.fixture
    async def proxied_store(
        self, url: str, proxy: FaultProxy
    ) -> AsyncIterator[Storage]:
        """An empty store behind the proxy."""
        store = registry.open_storage(url, Settings())
        yield store
        await store.aclose()


class TestS3(Proxied):
    url_fixture = "s3_url"
    variable = "AWS_ENDPOINT_URL_S3"

    @pytest.fixture
    def conflict(self) -> Fault:
        code = b"<Error><Code>ConditionalRequestConflict</Code></Error>"
        return Fault("PUT", "status", status=409, body=code)

    @pytest.fixture
    def secrets(self, url: str) -> list[str]:
        assert url
        return [environment("AWS_SECRET_ACCESS_KEY") or ""]


class TestGoogle(Proxied):
    url_fixture = "gcs_url"
    variable = "STORAGE_EMULATOR_HOST"


class TestAzure(Proxied):
    url_fixture = "azurite_url"
    variable = "AZURE_STORAGE_CONNECTION_STRING"

    @pytest.fixture
    def secrets(self, url: str) -> list[str]:
        assert url
        found = re.search(r"AccountKey=([^;]+)", environment(self.variable) or "")
        assert found is not None
        return [found[1]]
