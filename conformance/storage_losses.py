"""Checks of what a store makes of requests and answers that get lost on their way."""

from __future__ import annotations

import anyio
import pytest

from wren.conformance.fault_plan import Fault, FaultPlan
from wren.conformance.proxy import FaultProxy
from wren.conformance.spec import Level, check
from wren.conformance.storage_calls import PATIENCE, require_conditional_put
from wren.conformance.storage_fault_calls import (
    ALWAYS,
    BODY,
    failing,
    fails_with,
    warm_up,
)
from wren.errors import KeyExistsError, TransientError
from wren.protocols import Storage


class LossChecks:
    """Nothing is taken for done, for undone or for whole that is not."""

    @check("S27", Level.FAULT)
    @pytest.mark.parametrize("action", ["lose", "duplicate", "refuse"])
    async def test_a_writer_knows_its_own_object(
        self, proxied_store: Storage, proxy: FaultProxy, action: str
    ) -> None:
        """A put that was carried out and sent again has won, not lost."""
        await warm_up(proxied_store)
        await require_conditional_put(proxied_store)

        with failing(proxy, Fault("*", action)), anyio.fail_after(PATIENCE):
            await proxied_store.put("k", BODY, if_absent=True)

        same = await proxied_store.get("k") == BODY
        assert same
        with pytest.raises(KeyExistsError):
            await proxied_store.put("k", b"", if_absent=True)

    @check("S27", Level.FAULT)
    @pytest.mark.parametrize("action", ["lose", "duplicate", "refuse"])
    async def test_a_writer_knows_the_object_of_somebody_else(
        self, proxied_store: Storage, proxy: FaultProxy, action: str
    ) -> None:
        """That an answer was lost does not make its sender the winner."""
        await warm_up(proxied_store)
        await require_conditional_put(proxied_store)
        await proxied_store.put("k", BODY, if_absent=True)

        # The same bytes: they do not tell whose object it is.
        with failing(proxy, Fault("*", action)):
            await fails_with(
                KeyExistsError, lambda: proxied_store.put("k", BODY, if_absent=True)
            )

    @check("S30", Level.FAULT)
    @pytest.mark.parametrize("action", ["truncate", "cut"])
    async def test_a_short_body_is_read_again(
        self, proxied_store: Storage, proxy: FaultProxy, action: str
    ) -> None:
        """What is returned is whole, also when that takes a second request."""
        await warm_up(proxied_store)
        await proxied_store.put("k", BODY)

        for start, stop in ((0, None), (7, None), (7, 8000)):
            with failing(proxy, Fault("GET", action)), anyio.fail_after(PATIENCE):
                data = await proxied_store.get("k", start=start, stop=stop)
            same = data == BODY[start:stop]
            assert same

    @check("S30", Level.FAULT)
    async def test_short_bodies_are_never_data(
        self, proxied_store: Storage, proxy: FaultProxy
    ) -> None:
        """When none comes whole, that is an error that may pass."""
        await warm_up(proxied_store)
        await proxied_store.put("k", BODY)

        proxy.plan = FaultPlan(Fault("GET", "truncate", times=ALWAYS))
        await fails_with(TransientError, lambda: proxied_store.get("k"))
