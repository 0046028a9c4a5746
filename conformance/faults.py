"""Faults on purpose: plans, and the wrappers of stores and computes that play them."""

from __future__ import annotations

from wren.conformance.fault_plan import Fault as Fault
from wren.conformance.fault_plan import FaultPlan as FaultPlan
from wren.conformance.fault_plan import Fired as Fired
from wren.conformance.faulty_compute import FaultyCompute as FaultyCompute
from wren.conformance.faulty_storage import FaultyStorage as FaultyStorage
