"""`ExecutorSuite`: what a map does on every backend, as tests to be inherited."""

from __future__ import annotations

import pytest

from wren.conformance import rewriting as rewriting  # before the checks; see there
from wren.conformance.executor_errors import ErrorChecks
from wren.conformance.executor_lives import LifeChecks
from wren.conformance.executor_scale import ScaleChecks
from wren.conformance.executor_values import ValueChecks


@pytest.mark.anyio
class ExecutorSuite(ValueChecks, ErrorChecks, LifeChecks, ScaleChecks):
    """Subclass it with a fixture ``open_executor``.

    That returns a function that makes an `Executor`, not yet entered, of the backend
    and the store under test, with the options it is given. A subclass may override one
    more fixture:

    * ``leftovers``: returns a function that returns the keys in the store.

    The functions that are sent travel by value and need nothing but the standard
    library. How an executor behaves when its platform or its store fails is checked by
    `wren.conformance.executor_faults.ExecutorFaultSuite`.
    """
