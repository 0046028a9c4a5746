"""Row 20: what wren itself costs, when workers and platform cost nothing."""

from __future__ import annotations

import asyncio
import gc
import tempfile
from collections.abc import Sequence
from time import process_time, thread_time
from typing import TYPE_CHECKING, Final

from tests.benchmarks import tasks
from tests.benchmarks.contender import Contender, expect
from tests.benchmarks.contenders.catalogue import CONTENDERS, OURS
from tests.benchmarks.machine import PeakMemory
from tests.benchmarks.row import Figures, Metric, Row

if TYPE_CHECKING:
    from wren.protocols import Buffer, Limits, WorkerInfo


class InstantCompute:
    """A `wren.protocols.Compute` whose one worker lives in this process.

    Attributes:
        seconds: Processor time so far that was the worker's and not the driver's.
    """

    name = "instant"

    def __init__(self, limits: Limits, directory: str) -> None:
        from wren.worker import Worker

        self.limits = limits
        self.seconds = 0.0
        self._worker = Worker("instant", directory)

    async def prepare(self) -> WorkerInfo:
        """See `Compute.prepare`."""
        from wren.protocols import WorkerInfo
        from wren.worker import versions

        python, wren, cloudpickle = versions()
        return WorkerInfo(python=python, wren=wren, cloudpickle=cloudpickle)

    async def invoke(
        self,
        request: Sequence[Buffer],
        *,
        timeout: float,  # noqa: ASYNC109  # the protocol's
    ) -> Buffer:
        """See `Compute.invoke`."""
        await asyncio.sleep(0)  # no invocation answers without having waited
        started = thread_time()
        response = b"".join(self._worker.handle(b"".join(request)))
        self.seconds += thread_time() - started
        return response

    async def aclose(self) -> None:
        """See `Compute.aclose`."""


async def overhead(contender: Contender, size: int) -> Figures:
    """Map over numbers, as a stream and then as a list."""
    from wren import Executor
    from wren.protocols import Limits

    right = list(range(1, size + 1))
    with tempfile.TemporaryDirectory() as directory:
        compute = InstantCompute(Limits(concurrency=8), directory)
        async with Executor(backend=compute, storage="memory:") as executor:
            expect(await executor.map(tasks.addone, range(1000)), right[:1000])
            gc.collect()
            taken = 0
            with PeakMemory() as memory:
                started = process_time() - compute.seconds
                async for result in executor.map(tasks.addone, iter(range(size))):
                    taken += 1
                    if result != taken:
                        expect(result, taken)
                streamed = process_time() - compute.seconds - started
            expect(taken, size)
            started = process_time() - compute.seconds
            results = await executor.map(tasks.addone, range(size))
            listed = process_time() - compute.seconds - started
            expect(results, right)
    return {
        "list": listed / size,
        "stream": streamed / size,
        "growth": memory.growth / (1 << 20),
    }


ROWS: Final = (
    Row(
        number=20,
        name="20",
        title="1,000,000 tasks through an instant Compute",
        goal="at most 5 µs of driver CPU a task; memory flat when streamed",
        metrics=(
            Metric(key="list", title="CPU a task, list", unit="s"),
            Metric(key="stream", title="CPU a task, stream", unit="s"),
            Metric(key="growth", title="memory, stream", unit="MiB"),
        ),
        measure=overhead,
        size=1_000_000,
        quick=200_000,
        excluded={name: "measures wren alone" for name in CONTENDERS if name != OURS},
        limit=120,
    ),
)
