"""Every row, in the order of the table."""

from __future__ import annotations

from typing import Final

from tests.benchmarks.row import Row
from tests.benchmarks.rows import (
    arrays,
    balance,
    cold,
    faults,
    instant,
    small,
    stalls,
    streaming,
)

ROWS: Final[tuple[Row, ...]] = (
    *small.ROWS,
    *cold.ROWS,
    *arrays.ROWS,
    *balance.ROWS,
    *streaming.ROWS,
    *stalls.ROWS,
    *faults.ROWS,
    *instant.ROWS,
)
