"""`ComputeSuite`: what every `Compute` must do, as tests that a subclass inherits."""

from __future__ import annotations

import pytest

from wren.conformance import rewriting as rewriting  # before the checks; see there
from wren.conformance.compute_endings import EndingChecks
from wren.conformance.compute_lives import DroppedConnectionChecks, LifeChecks
from wren.conformance.compute_payloads import PayloadChecks
from wren.conformance.compute_refusals import RefusalChecks
from wren.conformance.compute_surroundings import SurroundingsChecks
from wren.conformance.compute_traits import ComputeTraits as ComputeTraits


@pytest.mark.anyio
class ComputeSuite(
    PayloadChecks,
    RefusalChecks,
    EndingChecks,
    SurroundingsChecks,
    LifeChecks,
    DroppedConnectionChecks,
):
    """Subclass it with a fixture ``compute``: a new one for each test.

    It need not be prepared; the fixture closes it afterwards. Some checks close it
    themselves, and some look at what there was before it was made, so that it cannot be
    shared by tests.

    A subclass declares what its platform offers in `traits`, and may override:

    * the fixture ``store``, where workers are not on this machine: they say there what
      they do. It has to make grants;
    * the fixture ``deployer``, for an adapter that deploys;
    * the fixture ``unstartable``: a compute whose worker cannot start;
    * `driver`, where workers end with their driver;
    * `patience` and `grace`, for a platform that is slow.

    No check C23 is here: nothing in the contract tells a task how much time it has
    left. How an adapter reads its platform's errors is checked by `ComputeFaultSuite`.
    """
