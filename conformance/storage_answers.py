"""Checks of what a store makes of a server that refuses, and of what it then tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import anyio
import pytest

from wren.conformance.fault_plan import Fault, FaultPlan
from wren.conformance.proxy import FaultProxy
from wren.conformance.spec import Level, check, not_offered
from wren.conformance.storage_calls import (
    PATIENCE,
    VALID,
    Call,
    fetch,
    keys_of,
    require_conditional_put,
    require_grants,
    store_by,
)
from wren.conformance.storage_fault_calls import (
    ALWAYS,
    BODY,
    failing,
    fails_with,
    tell,
    warm_up,
)
from wren.errors import AccessDeniedError, TransientError
from wren.protocols import Storage

_SECRET_LENGTH: Final = 16  # characters; shorter values are names and dates


class AnswerChecks:
    """What may pass is tried again, what does not is told, and secrets are not."""

    @pytest.fixture
    def conflict(self) -> Fault | None:
        """How the server says that a condition could not be decided just now."""
        return None

    @pytest.fixture
    def secrets(self) -> Sequence[str]:
        """What must not be in an error, besides what a grant authorises with."""
        return ()

    @check("S36", Level.FAULT)
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    async def test_what_may_pass_is_tried_again(
        self, proxied_store: Storage, proxy: FaultProxy, status: int
    ) -> None:
        """A server that is busy or broken for a moment disturbs no call."""
        await warm_up(proxied_store)
        calls: list[Call] = [
            lambda: proxied_store.put("k", BODY),
            lambda: proxied_store.head("k"),
            lambda: proxied_store.get("k"),
            lambda: keys_of(proxied_store),
            lambda: proxied_store.delete(["k"]),
        ]

        for call in calls:
            busy = Fault("*", "status", status=status)
            with failing(proxy, busy), anyio.fail_after(PATIENCE):
                await call()

        assert await keys_of(proxied_store) == []

    @check("S36", Level.FAULT)
    @pytest.mark.parametrize("action", ["status", "refuse"])
    async def test_what_does_not_pass_is_transient(
        self, proxied_store: Storage, proxy: FaultProxy, action: str
    ) -> None:
        """Tried again for a while, then told: it may still pass."""
        await warm_up(proxied_store)

        proxy.plan = FaultPlan(Fault("*", action, times=ALWAYS))
        before = len(proxy.requests)
        await fails_with(TransientError, lambda: proxied_store.put("k", BODY))

        assert 1 < len(proxy.requests) - before < 20

    @check("S36", Level.FAULT)
    @pytest.mark.parametrize("status", [401, 403])
    async def test_what_is_denied_is_told_at_once(
        self, proxied_store: Storage, proxy: FaultProxy, status: int
    ) -> None:
        """Trying again would help nobody."""
        await warm_up(proxied_store)
        calls: list[Call] = [
            lambda: proxied_store.put("k", BODY),
            lambda: keys_of(proxied_store),
            lambda: proxied_store.delete(["k"]),
        ]

        for call in calls:
            proxy.plan = FaultPlan(Fault("*", "status", status=status, times=ALWAYS))
            before = len(proxy.requests)
            await fails_with(AccessDeniedError, call)
            assert len(proxy.requests) - before <= 2  # the second asks why, at most

    @check("S37", Level.FAULT)
    @pytest.mark.parametrize("status", [401, 403])
    async def test_denied_is_not_absent(
        self, proxied_store: Storage, proxy: FaultProxy, status: int
    ) -> None:
        """Whoever may not look does not know what is there."""
        await warm_up(proxied_store)
        proxy.plan = FaultPlan(Fault("*", "status", status=status, times=ALWAYS))

        await fails_with(AccessDeniedError, lambda: proxied_store.get("absent"))
        await fails_with(AccessDeniedError, lambda: proxied_store.head("absent"))

    @check("S38", Level.SECURITY)
    @pytest.mark.parametrize(
        "fault",
        [
            Fault("*", "status", status=403, times=ALWAYS),
            Fault("*", "status", status=400, times=ALWAYS),
            Fault("*", "refuse", times=ALWAYS),
            Fault("*", "truncate", times=ALWAYS),
        ],
        ids=["denied", "refused", "reset", "short"],
    )
    async def test_no_secret_is_told(
        self,
        proxied_store: Storage,
        proxy: FaultProxy,
        secrets: Sequence[str],
        fault: Fault,
    ) -> None:
        """Neither a key nor a signature is in an error, or in what caused it."""
        await warm_up(proxied_store)
        await require_grants(proxied_store)
        await proxied_store.put("k", BODY)
        reading = await proxied_store.grant("k", "GET", expires_in=VALID)
        writing = await proxied_store.grant("k", "PUT", expires_in=VALID)
        calls: list[Call] = [
            lambda: proxied_store.get("k"),
            lambda: proxied_store.put("k", BODY),
            lambda: fetch(reading),
            lambda: store_by(writing, BODY),
        ]
        hidden = {secret for secret in secrets if secret}
        for grant in (reading, writing):
            values = [value for _, value in parse_qsl(urlsplit(grant.url).query)]
            values += grant.headers.values()
            hidden |= {each for each in values if len(each) >= _SECRET_LENGTH}
        proxy.plan = FaultPlan(fault)

        told: list[str] = []
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                for call in calls:
                    group.start_soon(tell, call, told)

        assert told
        assert [
            secret for secret in hidden if any(secret in text for text in told)
        ] == []

    @check("S47", Level.FAULT)
    async def test_an_undecided_condition_is_tried_again(
        self, proxied_store: Storage, proxy: FaultProxy, conflict: Fault | None
    ) -> None:
        """Nobody has won yet, so nobody has lost."""
        if conflict is None:
            not_offered("conflicts")
        await warm_up(proxied_store)
        await require_conditional_put(proxied_store)

        with failing(proxy, replace(conflict, times=2)), anyio.fail_after(PATIENCE):
            await proxied_store.put("k", BODY, if_absent=True)

        same = await proxied_store.get("k") == BODY
        assert same
