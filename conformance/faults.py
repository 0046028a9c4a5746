"""Faults on purpose: plans, and the wrappers of stores and computes that play them.

    with FaultPlan(
        Fault("put", "fail-after", key="*/in/*"),
        Fault("invoke", "lose", first=3, times=2),
    ) as plan:
        store = FaultyStorage(MemoryStorage(), plan)
        compute = FaultyCompute(LocalCompute(2), plan)
        async with Executor(backend=compute, storage=store) as executor:
            assert await executor.map(abs, range(9), chunksize=1) == list(range(9))

What a wrapper cannot show, such as a connection that is reset in the middle of a body,
is for `wren.conformance.proxy`.
"""

from __future__ import annotations

from wren.conformance.fault_plan import MARK as MARK
from wren.conformance.fault_plan import Fault as Fault
from wren.conformance.fault_plan import FaultPlan as FaultPlan
from wren.conformance.fault_plan import Fired as Fired
from wren.conformance.faulty_compute import FaultyCompute as FaultyCompute
from wren.conformance.faulty_storage import FaultyStorage as FaultyStorage
