"""A `Compute` that fails by plan, and otherwise does what the one it wraps does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import anyio

from wren.conformance.fault_plan import FaultPlan, damage
from wren.envelope import Buffer
from wren.errors import (
    ComputeError,
    DeploymentError,
    TaskTimeoutError,
    ThrottledError,
    WorkerLostError,
)
from wren.protocols import Compute, HasStorage, Limits, Storage, WorkerInfo

ACTIONS: Final = frozenset(
    {
        "throttle",  # not executed; `Fault.seconds` is what the platform asks to wait
        "refuse",  # not executed: the connection failed
        "missing",  # not executed: there is no such function
        "die",  # the worker dies before it has begun
        "lose",  # executed, and the reply is lost
        "duplicate",  # executed twice, and the second reply arrives
        "drop",  # accepted and never executed: nothing comes until the deadline
        "delay",  # executed after `Fault.seconds`
        "truncate",  # executed, and half of the reply arrives
        "flip",  # executed, and one bit of the reply is changed
        "empty",  # executed, and an empty reply arrives
    }
)
_OPERATION: Final = "invoke"


class FaultyCompute:
    """Plays a plan on invocations, whose operation is ``invoke``.

    It counts what was sent and what was executed, so that a test can say that nothing
    ran twice. The wrapped compute stays its owner's; `aclose` closes it.
    """

    def __init__(self, compute: Compute, plan: FaultPlan) -> None:
        """Wrap a compute.

        Raises:
            ValueError: An action that is none of `ACTIONS`.
        """
        plan.check({_OPERATION: ACTIONS})
        self._compute = compute
        self._plan = plan
        self.sent = 0
        """Invocations asked for."""

        self.executed = 0
        """Invocations that the wrapped compute was given."""

    @property
    def name(self) -> str:
        """See `Compute.name`."""
        return self._compute.name

    @property
    def limits(self) -> Limits:
        """See `Compute.limits`."""
        return self._compute.limits

    async def prepare(self) -> WorkerInfo:
        """See `Compute.prepare`."""
        return await self._compute.prepare()

    def open_storage(self) -> Storage:
        """See `HasStorage.open_storage`."""
        assert isinstance(self._compute, HasStorage), "it has no store of its own"
        return self._compute.open_storage()

    async def invoke(
        self,
        request: Sequence[Buffer],
        *,
        timeout: float,  # noqa: ASYNC109  # the contract
    ) -> Buffer:
        """See `Compute.invoke`."""
        self.sent += 1
        fault = self._plan.take(_OPERATION)
        match fault.action if fault else "":
            case "throttle":
                wait = fault.lasts(math.nan) if fault else math.nan
                raise ThrottledError(
                    "throttled by plan", retry_after=None if math.isnan(wait) else wait
                )
            case "refuse":
                raise ComputeError("refused by plan")
            case "missing":
                raise DeploymentError("no such function, by plan")
            case "die":
                raise WorkerLostError("died by plan", exit_code=-9)
            case "drop":
                await anyio.sleep(timeout)
                raise TaskTimeoutError(f"nothing came within {timeout:g} s")
            case "delay" if fault:
                await anyio.sleep(fault.lasts(0.1))
            case "duplicate":
                await self._execute(request, timeout)
            case _:
                pass
        response = await self._execute(request, timeout)
        if fault is None:
            return response
        if fault.action == "lose":
            raise WorkerLostError("the reply was lost by plan")
        if fault.action in {"truncate", "flip", "empty"}:
            return damage(bytes(response), fault.action)
        return response

    async def _execute(
        self,
        request: Sequence[Buffer],
        timeout: float,  # noqa: ASYNC109  # the contract
    ) -> Buffer:
        self.executed += 1
        return await self._compute.invoke(request, timeout=timeout)

    async def aclose(self) -> None:
        """See `Compute.aclose`."""
        await self._compute.aclose()
