"""Programs of every layout run their functions in workers, whole and unprepared."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import TypeAlias

Run: TypeAlias = Callable[[Sequence[str], dict[str, str]], str]

MAIN = """
    import anyio
    import wren
    {imports}

    async def main():
        async with wren.Executor(concurrency=2) as executor:
            {body}

    if __name__ == "__main__":
        anyio.run(main)
    """


def main(body: str, imports: str = "") -> str:
    """Return a program."""
    return MAIN.format(body=body, imports=imports)


def test_functions_and_classes_of_a_script(run: Run) -> None:
    """`__main__` is another module in a worker: what it defines travels by value."""
    script = """
        import functools
        import math
        import anyio
        import wren
        from dataclasses import dataclass
        from enum import Enum

        OFFSET = 100

        @dataclass
        class Point:
            x: int
            def moved(self):
                return Point(self.x + OFFSET)

        class Colour(Enum):
            RED = 1

        class OwnError(Exception):
            def __init__(self, code):
                super().__init__(code)
                self.code = code

        def factorial(n):
            return n * factorial(n - 1) if n else 1

        def logged(function):
            @functools.wraps(function)
            def wrapper(*args):
                return function(*args)
            return wrapper

        @logged
        def root(n):
            return math.isqrt(n)

        def fail(n):
            raise OwnError(n)

        async def later(n):
            await anyio.sleep(0)
            return n

        async def main():
            async with wren.Executor(concurrency=2) as executor:
                print(await executor.map(factorial, range(5)))
                print(await executor.map(Point.moved, [Point(1), Point(2)]))
                print(await executor.map(root, [4, 9]))
                print(await executor.submit(lambda: Colour.RED))
                assert await executor.submit(lambda: Colour.RED) is Colour.RED
                print(await executor.map(later, range(2)))
                try:
                    await executor.submit(fail, 7)
                except OwnError as error:
                    print(error.code)

        anyio.run(main)
        """
    printed = run(["script.py"], {"script.py": script})

    assert printed.splitlines() == [
        "[1, 1, 2, 6, 24]",
        "[Point(x=101), Point(x=102)]",
        "[2, 3]",
        "Colour.RED",
        "[0, 1]",
        "7",
    ]


def test_the_program_itself_is_not_run_again(run: Run) -> None:
    """Unlike with multiprocessing, no ``if __name__`` is needed."""
    script = """
        import anyio
        import wren
        print("once")

        async def main():
            async with wren.Executor(concurrency=2) as executor:
                print(sum(await executor.map(lambda n: n, range(100))))

        anyio.run(main)
        """
    assert run(["script.py"], {"script.py": script}) == "once\n4950\n"


def test_a_sibling_module(run: Run) -> None:
    """And what that imports, within a function too, and from another folder."""
    files = {
        "script.py": main(
            "print(await executor.map(helper.work, range(3)))", "import helper"
        ),
        "helper.py": """
            import deeper

            def work(n):
                import late
                return deeper.twice(n) + late.ONE
            """,
        "deeper.py": "def twice(n): return 2 * n",
        "late.py": "ONE = 1",
    }
    assert run(["script.py"], files) == "[1, 3, 5]\n"


PACKAGE = {
    "project/__init__.py": "",
    "project/__main__.py": main(
        "print(await executor.map(work, range(3)))", "from .core.job import work"
    ),
    "project/core/__init__.py": "from . import constants",
    "project/core/constants.py": "FACTOR = 10",
    "project/core/job.py": """
        from importlib.resources import files
        from pathlib import Path

        from . import constants
        from ..tools import shift

        def work(n):
            words = (files("project") / "data" / "words.txt").read_text().split()
            same = Path(__file__).parents[1].joinpath("data/words.txt").read_text()
            assert same.split() == words
            return words[n], shift(n * constants.FACTOR)
        """,
    "project/tools.py": "def shift(n): return n + 1",
    "project/data/words.txt": "zero one two",
}
WORKED = "[('zero', 1), ('one', 11), ('two', 21)]\n"


def test_a_package_with_relative_imports_and_data_files(run: Run) -> None:
    """All of it travels, wherever the worker keeps it."""
    script = main(
        "print(await executor.map(work, range(3)))", "from project.core.job import work"
    )

    assert run(["script.py"], {**PACKAGE, "script.py": script}) == WORKED


def test_python_m_package(run: Run) -> None:
    """``python -m project`` runs a package's ``__main__``."""
    assert run(["-m", "project"], PACKAGE) == WORKED


def test_python_m_module_within_a_package(run: Run) -> None:
    """Its functions are of ``__main__``, and its relative imports of the package."""
    module = """
        import anyio
        import wren
        from . import constants

        def scaled(n):
            from .job import work
            return n * constants.FACTOR, work(n)[0]

        async def main():
            async with wren.Executor(concurrency=2) as executor:
                print(await executor.map(scaled, range(2)))

        anyio.run(main)
        """
    files = {**PACKAGE, "project/core/start.py": module}

    printed = run(["-m", "project.core.start"], files)

    assert printed == "[(0, 'zero'), (10, 'one')]\n"


def test_an_editable_install_of_a_src_layout(run: Run) -> None:
    """Its package is found by an import hook, not in a folder of ``sys.path``."""
    files = {f"checkout/src/{name}": text for name, text in PACKAGE.items()}
    files["site/finder.py"] = """
        import importlib.util
        import pathlib
        import sys

        ROOT = pathlib.Path(__file__).parents[1] / "checkout" / "src" / "project"

        class Finder:
            @classmethod
            def find_spec(cls, name, path=None, target=None):
                if name == "project":
                    return importlib.util.spec_from_file_location(
                        name,
                        ROOT / "__init__.py",
                        submodule_search_locations=[str(ROOT)],
                    )

        sys.meta_path.append(Finder)
        """
    files["script.py"] = "import sys; sys.path.insert(0, 'site'); import finder\n" + (
        textwrap.dedent(
            main(
                "print(await executor.map(work, range(3)))",
                "from project.core.job import work",
            )
        )
    )
    assert run(["script.py"], files) == WORKED


def test_a_notebook(run: Run) -> None:
    """Cells run in one namespace, whose module is ``__main__`` and has no file."""
    script = """
        import linecache
        import sys
        import types

        CELLS = [
            "import anyio, wren, math\\nimport helper",
            "def square(n):\\n    return n * n + helper.ONE",
            "class Thing:\\n    def __init__(self, n): self.n = square(n)",
            "async def run(fn, items):\\n"
            "    async with wren.Executor(concurrency=2) as executor:\\n"
            "        return await executor.map(fn, items)",
            "print(anyio.run(run, square, range(3)))",
            "def square(n):\\n    return -n",
            "print(anyio.run(run, square, range(3)))",
            "print([t.n for t in anyio.run(run, Thing, range(3))])",
        ]
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        for n, cell in enumerate(CELLS):
            name = f"<ipython-input-{n}>"
            linecache.cache[name] = (len(cell), None, cell.splitlines(True), name)
            exec(compile(cell, name, "exec"), main.__dict__)
        """
    files = {"kernel.py": script, "helper.py": "ONE = 1"}

    assert run(["kernel.py"], files) == "[1, 2, 5]\n[0, -1, -2]\n[0, -1, -2]\n"


def test_the_interactive_interpreter(run: Run) -> None:
    """There is no file at all."""
    code = (
        "import anyio, wren\n"
        "def work(n): return n + 1\n"
        "async def main():\n"
        "    async with wren.Executor(concurrency=2) as executor:\n"
        "        print(await executor.map(work, range(3)))\n"
        "anyio.run(main)\n"
    )
    assert run(["-c", code], {}) == "[1, 2, 3]\n"


def test_tasks_that_use_executors_themselves(run: Run) -> None:
    """A worker can be a driver."""
    script = """
        import anyio
        import wren

        def outer(n):
            async def inner():
                async with wren.Executor(concurrency=2) as executor:
                    return await executor.map(lambda m: n * m, range(3))
            return anyio.run(inner)

        async def main():
            async with wren.Executor(concurrency=2) as executor:
                print(await executor.map(outer, range(3), chunksize=1))

        anyio.run(main)
        """
    printed = run(["script.py"], {"script.py": script})

    assert printed == "[[0, 0, 0], [0, 1, 2], [0, 2, 4]]\n"


def test_a_name_that_only_the_worker_lacks_is_told(run: Run) -> None:
    """A module that cannot travel is a clear error, not a hang."""
    script = """
        import sys, types
        import anyio
        import wren

        ghost = types.ModuleType("ghost")
        ghost.VALUE = 1
        sys.modules["ghost"] = ghost

        def work(_):
            import ghost
            return ghost.VALUE

        async def main():
            async with wren.Executor(concurrency=2) as executor:
                try:
                    await executor.map(work, range(3))
                except (ImportError, wren.WrenError) as error:
                    print(type(error).__name__, "ghost" in str(error))

        anyio.run(main)
        """
    printed = run(["script.py"], {"script.py": script})

    assert printed == "ModuleNotFoundError True\n"


def test_this_is_the_tested_interpreter(run: Run) -> None:
    """Workers run the same Python as their driver."""
    body = "print(await executor.submit(lambda: sys.executable))"

    assert run(["script.py"], {"script.py": main(body, "import sys")}).strip() == (
        sys.executable
    )
