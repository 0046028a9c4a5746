"""Row 5: a whole program, from the start of the interpreter to its exit."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from textwrap import dedent
from time import perf_counter
from typing import Final

from tests.benchmarks.contender import Contender, MissingError, expect
from tests.benchmarks.row import Figures, Metric, Row

_ADDONE: Final = """
def addone(number):
    return number + 1

if __name__ == "__main__":
"""

# What a user would write, as short as it gets: nothing is imported but the library.
_PROGRAMS: Final[dict[str, tuple[str, str]]] = {
    "wren": (
        """
        import asyncio
        import wren

        async def main():
            async with wren.Executor(backend="local", concurrency=2) as executor:
                print(await executor.submit(addone, 1))
        """,
        "asyncio.run(main())",
    ),
    "pool": (
        """
        from concurrent.futures import ProcessPoolExecutor

        def main():
            with ProcessPoolExecutor(2) as pool:
                print(pool.submit(addone, 1).result())
        """,
        "main()",
    ),
    "pool-asyncio": (
        """
        import asyncio
        from concurrent.futures import ProcessPoolExecutor

        async def main():
            with ProcessPoolExecutor(2) as pool:
                loop = asyncio.get_running_loop()
                print(await loop.run_in_executor(pool, addone, 1))
        """,
        "asyncio.run(main())",
    ),
    "multiprocessing": (
        """
        from multiprocessing import Pool

        def main():
            with Pool(2) as pool:
                print(pool.apply(addone, (1,)))
        """,
        "main()",
    ),
    "loky": (
        """
        from loky import ProcessPoolExecutor

        def main():
            with ProcessPoolExecutor(2) as pool:
                print(pool.submit(addone, 1).result())
        """,
        "main()",
    ),
    "joblib": (
        """
        from joblib import Parallel, delayed

        def main():
            print(*Parallel(n_jobs=2)([delayed(addone)(1)]))
        """,
        "main()",
    ),
    "aiomultiprocess": (
        """
        import asyncio
        from aiomultiprocess import Pool

        async def add(number):
            return addone(number)

        async def main():
            async with Pool(2) as pool:
                print(await pool.apply(add, (1,)))
        """,
        "asyncio.run(main())",
    ),
    "anyio": (
        """
        import anyio
        from anyio import to_process

        async def main():
            print(await to_process.run_sync(addone, 1))
        """,
        "anyio.run(main)",
    ),
    "dask": (
        """
        from distributed import Client

        def main():
            with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as c:
                print(c.submit(addone, 1).result())
        """,
        "main()",
    ),
    "lithops": (
        """
        import sys
        import lithops

        def main():
            local = {"runtime": sys.executable, "version": 1, "worker_processes": 2}
            config = {
                "lithops": {"backend": "localhost", "storage": "localhost"},
                "localhost": local,
            }
            with lithops.FunctionExecutor(config=config, log_level="CRITICAL") as e:
                print(e.get_result(e.call_async(addone, (1,))))
        """,
        "main()",
    ),
}


def _write(directory: str, name: str) -> Path:
    program, start = _PROGRAMS[name]
    path = Path(directory, "program.py")
    path.write_text(f"{dedent(program)}{_ADDONE}    {start}\n")
    return path


async def cold_start(contender: Contender, size: int) -> Figures:
    """Time ``size`` runs of a tiny program from outside; the least counts.

    One more comes first and does not count: it may compile modules.
    """
    walls: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        path = _write(directory, contender.name)
        for _ in range(size + 1):
            started = perf_counter()
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                path,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            output, errors = await process.communicate()
            took = perf_counter() - started
            if b"ModuleNotFoundError" in errors:
                raise MissingError(f"pip install {contender.distribution}")
            expect(output.split(), [b"2"])
            walls.append(took)
    return {"wall": min(walls[1:])}


ROWS: Final = (
    Row(
        number=5,
        name="5",
        title="cold: process start, import, first result, exit",
        goal="at most 1.3 x ProcessPoolExecutor + gather",
        metrics=(Metric(key="wall", title="wall", unit="s"),),
        measure=cold_start,
        size=3,
        quick=1,
        sizes={"dask": 1, "lithops": 1},
        excluded={"pool-tuned": "a single call has no chunks"},
        reference="pool-asyncio",
    ),
)
