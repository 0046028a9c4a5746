"""`StorageFaultSuite`: what a store makes of a network and a server that fail it."""

from __future__ import annotations

import pytest

from wren.conformance import rewriting as rewriting  # before the checks; see there
from wren.conformance.storage_answers import AnswerChecks
from wren.conformance.storage_losses import LossChecks


@pytest.mark.anyio
class StorageFaultSuite(LossChecks, AnswerChecks):
    """Subclass it for a store that is reached by HTTP. It needs two fixtures.

    * ``proxy``: a `wren.conformance.proxy.FaultProxy` in front of the store's server;
    * ``proxied_store``: an empty store whose requests all go through it.

    It may override two more: ``conflict``, and ``secrets``. The checks run on asyncio,
    as the proxy does. A flipped bit is not among the faults: no store is asked to find
    it, since what wren reads back is sealed.
    """
