"""Functions and classes that a pickle alone would not bring to a worker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent


def run(program: str, folder: Path) -> str:
    script = folder / "program.py"
    script.write_text(dedent(program))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    return done.stdout


def test_a_cached_function_of_a_script_arrives_with_its_recursion(
    tmp_path: Path,
) -> None:
    """Cloudpickle alone would look for it by name, in a worker's empty ``__main__``."""
    out = run(
        """
        import asyncio, functools, wren

        @functools.lru_cache(maxsize=100, typed=True)
        def fib(n):
            return n if n < 2 else fib(n - 1) + fib(n - 2)

        def use(n):
            return fib(n), fib.cache_parameters()

        async def main():
            async with wren.Executor(concurrency=1) as executor:
                print(await executor.map(fib, [10, 80]), await executor.submit(use, 20))

        asyncio.run(main())
        """,
        tmp_path,
    )

    parameters = "{'maxsize': 100, 'typed': True}"
    assert out == f"[55, 23416728348467685] (6765, {parameters})\n"


def test_a_class_of_a_local_module_that_only_arguments_use_is_always_current(
    tmp_path: Path,
) -> None:
    """The function does not name its module; an edited one must not stay behind."""
    (tmp_path / "shapes.py").write_text("class Box:\n    def size(self): return 1\n")

    out = run(
        """
        import asyncio, importlib, pathlib, wren

        async def main():
            import shapes
            async with wren.Executor(concurrency=1) as executor:
                ask = lambda box: box.size()
                print(await executor.map(ask, [shapes.Box()]))
                path = pathlib.Path(shapes.__file__)
                path.write_text(path.read_text().replace("return 1", "return 1 + 1"))
                importlib.reload(shapes)
                await asyncio.sleep(1.1)  # how long a packed function is good for
                print(await executor.map(ask, [shapes.Box()]))

        asyncio.run(main())
        """,
        tmp_path,
    )

    assert out == "[1]\n[2]\n"
