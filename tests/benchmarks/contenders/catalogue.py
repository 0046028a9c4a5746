"""Every contender by name, in the order in which they run."""

from __future__ import annotations

from typing import Final

from tests.benchmarks.contender import Contender
from tests.benchmarks.contenders.ours import Wren
from tests.benchmarks.contenders.standard import (
    AnyioToProcess,
    AsyncioProcessPool,
    Multiprocessing,
    ProcessPool,
    TunedProcessPool,
)
from tests.benchmarks.contenders.untyped import (
    Aiomultiprocess,
    Dask,
    Joblib,
    Lithops,
    Loky,
)

OURS: Final = Wren.name

CONTENDERS: Final[dict[str, type[Contender]]] = {
    contender.name: contender
    for contender in (
        Wren,
        ProcessPool,
        TunedProcessPool,
        AsyncioProcessPool,
        Multiprocessing,
        Loky,
        Joblib,
        Aiomultiprocess,
        AnyioToProcess,
        Dask,
        Lithops,
    )
}
