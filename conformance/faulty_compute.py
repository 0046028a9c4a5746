"""A `Compute` that fails by plan, and otherwise does what the one it wraps does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import anyio

from wren.conformance.fault_plan import Fault, FaultPlan, damage
from wren.conformance.wrappers import WrappedCompute
from wren.errors import (
    ComputeError,
    CredentialsError,
    DeploymentError,
    TaskTimeoutError,
    ThrottledError,
    WorkerLostError,
)
from wren.protocols import Buffer, Compute

ACTIONS: Final = frozenset(
    {
        "throttle",  # not executed; `Fault.seconds` is what the platform asks to wait
        "refuse",  # not executed: the connection failed
        "missing",  # not executed: there is no such function
        "forbid",  # not executed: the credentials have expired
        "die",  # the worker dies before it has begun
        "drop",  # accepted and never executed: nothing comes until the deadline
        "delay",  # executed after `Fault.seconds`, if there is that much time
        "lose",  # executed, and the reply is lost
        "duplicate",  # executed twice, and the second reply arrives
        "duplicate-first",  # executed twice, and the first reply arrives
        "truncate",  # executed, and half of the reply arrives
        "flip",  # executed, and one bit of the reply's head is changed
        "empty",  # executed, and an empty reply arrives
        "garbage",  # executed, and what arrives is a gateway's page, as with a 502
    }
)
_OPERATION: Final = "invoke"
_GATEWAY: Final = b"<html><title>502 Bad Gateway</title></html>"
_DELAY: Final = 0.1


class FaultyCompute(WrappedCompute[Compute]):
    """Plays a plan on invocations, whose operation is ``invoke`` and which have no key.

    It counts what was sent and what was executed, so that a test can say that nothing
    ran twice. A flipped bit is one that a reader can see: replies are not signed, as
    the connection to the platform is. The wrapped compute stays its owner's; `aclose`
    closes it.
    """

    def __init__(self, compute: Compute, plan: FaultPlan) -> None:
        """Wrap a compute.

        Raises:
            ValueError: An action that is none of `ACTIONS`.
        """
        super().__init__(compute)
        plan.check({_OPERATION: ACTIONS})
        self._plan = plan
        self.sent = 0
        """Invocations asked for."""

        self.executed = 0
        """Invocations that the wrapped compute was given."""

    async def invoke(
        self,
        request: Sequence[Buffer],
        *,
        timeout: float,  # noqa: ASYNC109  # the contract
    ) -> Buffer:
        """See `Compute.invoke`."""
        self.sent += 1
        fault = self._plan.take(_OPERATION)
        if fault is None:
            return await self._execute(request, timeout)
        left = timeout - await _before(fault, timeout)
        response = await self._execute(request, left)
        match fault.action:
            case "lose":
                raise WorkerLostError("the reply was lost by plan")
            case "duplicate":
                return await self._execute(request, left)
            case "duplicate-first":
                await self._execute(request, left)
                return response
            case "garbage":
                return _GATEWAY
            case "truncate" | "empty":
                return damage(bytes(response), fault.action)
            case "flip":
                data = bytes(response)
                return damage(data[:1], "flip") + data[1:]
            case _:
                return response

    async def _execute(
        self,
        request: Sequence[Buffer],
        timeout: float,  # noqa: ASYNC109  # the contract
    ) -> Buffer:
        self.executed += 1
        return await self.inner.invoke(request, timeout=timeout)


async def _before(
    fault: Fault,
    timeout: float,  # noqa: ASYNC109  # the contract
) -> float:
    """Do what happens before a request is executed; return the seconds it took."""
    seconds = 0.0
    match fault.action:
        case "throttle":
            wait = None if math.isnan(fault.seconds) else fault.seconds
            raise ThrottledError("throttled by plan", retry_after=wait)
        case "refuse":
            raise ComputeError("refused by plan")
        case "missing":
            raise DeploymentError("no such function, by plan")
        case "forbid":
            raise CredentialsError("the token has expired, by plan")
        case "die":
            raise WorkerLostError("died by plan", exit_code=-9)
        case "drop":
            seconds = math.inf
        case "delay":
            seconds = fault.lasts(_DELAY)
        case _:
            pass
    await anyio.sleep(min(seconds, timeout))
    if seconds >= timeout:
        raise TaskTimeoutError(f"nothing came within {timeout:g} s")
    return seconds
