"""The user's own modules travel with a function, however the project is laid out.

Each test writes a real project, packs a function in a process that runs it the way a
user would, and calls the function in another process, which has the standard library,
wren and cloudpickle and nothing else.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap
import types
import zipfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import wren
from wren import bundle, modules
from wren.errors import SerializationError

SHIP = """
import json, sys
import cloudpickle
from pathlib import Path
from wren import modules

out = Path(sys.argv[1])

def ship(fn, *args):
    number = len(list(out.glob("*.json")))
    pickled = cloudpickle.dumps(fn, 5)
    bundle = modules.collect(fn, pickled)
    (out / f"{number}.function").write_bytes(pickled)
    (out / f"{number}.arguments").write_bytes(cloudpickle.dumps(args, 5))
    about = {"id": None, "modules": []}
    if bundle is not None:
        about = {"id": bundle.id, "modules": bundle.modules}
        (out / f"{number}.bundle").write_bytes(bundle.data)
    (out / f"{number}.json").write_text(json.dumps(about))
"""

WORK = """
import asyncio, json, pickle, sys

sys.path.append(sys.argv[1])
from pathlib import Path
from wren import importer

out = Path(sys.argv[2])
answers = []
for number in range(len(list(out.glob("*.json")))):
    about = json.loads((out / f"{number}.json").read_text())
    if about["id"] is not None:
        data = (out / f"{number}.bundle").read_bytes()
        importer.install(about["id"], data, str(out / "modules"))
    function = pickle.loads((out / f"{number}.function").read_bytes())
    arguments = pickle.loads((out / f"{number}.arguments").read_bytes())
    value = function(*arguments)
    answers.append(asyncio.run(value) if asyncio.iscoroutine(value) else value)
print(json.dumps(answers))
"""


@dataclass
class Shipped:
    """What a program packed."""

    out: Path
    site: Path

    def about(self, number: int = 0) -> dict[str, Any]:
        about: dict[str, Any] = json.loads((self.out / f"{number}.json").read_text())
        return about

    def files(self, number: int = 0) -> list[str]:
        """Return the paths in a bundle, without the manifest's."""
        with zipfile.ZipFile(self.out / f"{number}.bundle") as archive:
            return [name for name in archive.namelist() if "wren-bundle" not in name]

    def answers(self) -> Any:
        """Call each function in one process that has none of the project's modules."""
        return json.loads(
            run([sys.executable, "-I", "-S", "-P", "-c", WORK, self.site, self.out])
        )


def run(
    command: Sequence[str | Path],
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    umask: int = -1,
) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        umask=umask,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Project:
    """A folder with a user's files."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "project"
        self.tools = tmp_path / "tools"
        self.site = tmp_path / "site"
        self._tmp = tmp_path
        self._runs = 0
        for folder in (self.root, self.tools, self.site):
            folder.mkdir()
        (self.tools / "shipping.py").write_text(SHIP)
        for package in (wren, cloudpickle):
            assert package.__file__ is not None
            folder = Path(package.__file__).parent
            (self.site / folder.name).symlink_to(folder)

    def write(self, files: dict[str, str], root: Path | None = None) -> None:
        for name, content in files.items():
            path = (root or self.root) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(content))

    def run(
        self,
        *arguments: str,
        cwd: Path | None = None,
        python: str | Path = sys.executable,
        path: Sequence[Path] = (),
        umask: int = -1,
    ) -> Shipped:
        """Run the user's program, which calls ``ship``."""
        out = self._tmp / f"out{self._runs}"
        self._runs += 1
        out.mkdir()
        places = os.pathsep.join(map(str, (*path, self.tools, self.site)))
        command = [python, *arguments, str(out)]
        run(command, cwd or self.root, {"PYTHONPATH": places}, umask)
        return Shipped(out, self.site)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


# --- layouts --------------------------------------------------------------------------


def test_a_module_beside_the_script_travels(project: Project) -> None:
    """The smallest project there is: a script and a helper."""
    project.write(
        {
            "helper.py": "import other\ndef double(x): return other.TWO * x",
            "other.py": "TWO = 2",
            "unused.py": "",
            "main.py": """
                from helper import double
                from shipping import ship

                def work(x):
                    return double(x) + 1

                ship(work, 20)
                ship(double, 4)
            """,
        }
    )

    shipped = project.run("main.py")

    assert shipped.answers() == [41, 8]
    assert shipped.files() == ["helper.py", "other.py"]
    assert shipped.about()["modules"] == ["helper", "other"]


PACKAGE = {
    "pkg/__init__.py": "",
    "pkg/work.py": """
        import importlib.resources
        from pathlib import Path
        from . import numbers
        from .sub.deep import shout

        def read(name):
            text = importlib.resources.files("pkg.data").joinpath(name).read_text()
            same = (Path(__file__).parent / "data" / name).read_text()
            return [shout(text), same, numbers.ONE]
    """,
    "pkg/numbers.py": "ONE = 1",
    "pkg/sub/__init__.py": "",
    "pkg/sub/deep.py": """
        from ..numbers import ONE
        def shout(x): return x.upper() * ONE
    """,
    "pkg/never_imported.py": "",
    "pkg/data/greeting.txt": "hello",
}


def test_a_package_travels_whole(project: Project) -> None:
    """With relative imports and data files, but without what tools leave behind."""
    project.write(
        {
            **PACKAGE,
            "pkg/.git/config": "",
            "pkg/sub/__pycache__/x.pyc": "",
            "pkg/old.pyc": "",
            "pkg.egg-info/PKG-INFO": "",
            "pkg/pkg.egg-info/PKG-INFO": "",
            "pkg/.venv/pyvenv.cfg": "",
            "pkg/.venv/lib/much.py": "",
            "main.py": """
                from pkg.work import read
                from shipping import ship
                ship(read, "greeting.txt")
            """,
        }
    )
    (project.root / "pkg" / "gone.txt").symlink_to("/nowhere/at/all")
    (project.root / "pkg" / "sub" / "loop").symlink_to(project.root / "pkg")

    shipped = project.run("main.py")

    assert shipped.answers() == [["HELLO", "hello", 1]]
    assert shipped.files() == sorted(PACKAGE)
    assert shipped.about()["modules"] == ["pkg"]


def test_a_linked_folder_of_a_package_travels(project: Project) -> None:
    """Where it is a link, its files lie elsewhere."""
    project.write(
        {
            "elsewhere/table.csv": "a,b",
            "pkg/__init__.py": """
                from pathlib import Path
                TABLE = Path(__file__).parent / "data" / "table.csv"
                def read(): return TABLE.read_text()
            """,
            "main.py": "import pkg\nfrom shipping import ship\nship(pkg.read)",
        }
    )
    (project.root / "pkg" / "data").symlink_to(project.root / "elsewhere")

    assert project.run("main.py").answers() == ["a,b"]


def test_a_tool_in_a_package_stays_executable(project: Project) -> None:
    """A package may call a script that it brings."""
    project.write(
        {
            "pkg/__init__.py": """
                import subprocess
                from pathlib import Path
                TOOL = Path(__file__).parent / "tool.sh"
                def call(): return subprocess.check_output(TOOL, text=True)
            """,
            "pkg/tool.sh": "#!/bin/sh\necho done",
            "main.py": "import pkg\nfrom shipping import ship\nship(pkg.call)",
        }
    )
    (project.root / "pkg" / "tool.sh").chmod(0o755)

    assert project.run("main.py").answers() == ["done\n"]


def test_python_m_finds_the_siblings_of_the_main_module(project: Project) -> None:
    """Its functions travel by value, and their relative imports by name."""
    project.write(
        {
            "pkg/__init__.py": "",
            "pkg/sibling.py": "def plus(x): return x + 1",
            "pkg/lazy.py": "def minus(x): return x - 1",
            "pkg/mod.py": """
                from shipping import ship
                from . import sibling
                from .sibling import plus

                def work(x):
                    from .lazy import minus
                    return [plus(x), minus(x), sibling.plus(plus(x))]

                def only_lazy(x):
                    from . import lazy
                    return lazy.minus(x)

                if __name__ == "__main__":
                    ship(work, 10)
                    ship(only_lazy, 10)
            """,
        }
    )

    shipped = project.run("-m", "pkg.mod")

    assert shipped.answers() == [[11, 9, 12], 9]
    assert shipped.about()["modules"] == ["pkg"]


EDITABLE = {
    "src/proj/__init__.py": "",
    "src/proj/core.py": "from proj.data import VALUE\ndef value(x): return VALUE + x",
    "src/proj/data.py": "VALUE = 40",
    "main.py": """
        from proj.core import value
        from shipping import ship
        ship(value, 2)
    """,
}

FINDER = """
import sys
from importlib.util import spec_from_file_location

MAPPING = {mapping!r}

class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        folder = MAPPING.get(name)
        return folder and spec_from_file_location(name, folder + "/__init__.py")

sys.meta_path.append(Finder)
"""


def environment(tmp_path: Path) -> tuple[Path, Path]:
    """Return the interpreter and the site-packages of a new virtual environment."""
    run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"])
    (site_packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    return tmp_path / "venv" / "bin" / "python", site_packages


def test_a_src_layout_installed_by_path_travels(
    project: Project, tmp_path: Path
) -> None:
    """``pip install -e`` puts the folder on the path by a ``.pth`` file."""
    project.write(EDITABLE)
    python, site_packages = environment(tmp_path)
    (site_packages / "proj.pth").write_text(str(project.root / "src"))

    shipped = project.run("main.py", python=python)

    assert shipped.answers() == [42]
    assert shipped.files() == [f"proj/{n}.py" for n in ("__init__", "core", "data")]


BACKEND = r"""
import zipfile

INFO = {
    "METADATA": "Metadata-Version: 2.1\nName: proj\nVersion: 1\n",
    "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "RECORD": "proj.pth,,\nproj-1.dist-info/RECORD,,\n",
}

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "proj-1-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("proj.pth", PLACE)
        for file, content in INFO.items():
            wheel.writestr(f"proj-1.dist-info/{file}", content)
    return name
"""


def test_a_really_installed_src_layout_travels(
    project: Project, tmp_path: Path
) -> None:
    """An installer writes more than the ``.pth`` file, and none of that may mislead."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    project.write(
        {
            **EDITABLE,
            "build/backend.py": BACKEND.replace(
                "PLACE", repr(str(project.root / "src"))
            ),
            "pyproject.toml": """
                [project]
                name = "proj"
                version = "1"
                [build-system]
                requires = []
                build-backend = "backend"
                backend-path = ["build"]
            """,
        }
    )
    python, _ = environment(tmp_path)
    offline = ["--offline", "--no-deps", "--no-cache", "--no-build-isolation"]
    run([uv, "pip", "install", *offline, "-p", python, "-e", project.root])

    shipped = project.run("main.py", python=python)

    assert shipped.answers() == [42]
    assert shipped.about()["modules"] == ["proj"]


def test_a_src_layout_installed_by_a_finder_travels(
    project: Project, tmp_path: Path
) -> None:
    """Nothing on the path leads to it, and a part of it lies elsewhere."""
    project.write({**EDITABLE, "extra/__init__.py": "from proj.data import VALUE"})
    project.write(
        {
            "main.py": """
                from proj.core import value
                from shipping import ship

                def work(x):
                    from proj.extra import VALUE
                    return [value(x), VALUE]

                ship(work, 2)
            """
        }
    )
    python, site_packages = environment(tmp_path)
    mapping = {
        "proj": str(project.root / "src" / "proj"),
        "proj.extra": str(project.root / "extra"),
    }
    (site_packages / "_proj_finder.py").write_text(FINDER.format(mapping=mapping))
    (site_packages / "proj.pth").write_text("import _proj_finder")

    shipped = project.run("main.py", python=python)

    assert shipped.answers() == [[42, 40]]
    assert "proj/extra/__init__.py" in shipped.files()
    assert shipped.about()["modules"] == ["proj"]


def test_an_installed_distribution_does_not_travel(
    project: Project, tmp_path: Path
) -> None:
    """The worker has it, or will have it from the requirements."""
    python, site_packages = environment(tmp_path)
    target = tmp_path / "target"
    overlay = tmp_path / "overlay" / "site-packages"
    project.write({"installed.py": "def f(): pass"}, site_packages)
    project.write({"overlaid.py": "def f(): pass"}, overlay)
    project.write(
        {
            "dep/__init__.py": "def f(): pass",
            "dep-1.0.dist-info/RECORD": "dep/__init__.py,sha256=x,17\n",
        },
        target,
    )
    project.write(
        {
            "main.py": """
                import dep, installed, overlaid
                from shipping import ship
                ship(dep.f)
                ship(lambda: (dep.f(), installed.f(), overlaid.f()))
            """
        }
    )

    shipped = project.run("main.py", python=python, path=[target, overlay])

    assert shipped.about(0)["id"] is None
    assert shipped.about(1)["id"] is None


def test_of_a_namespace_package_the_parts_that_are_reached_travel(
    project: Project,
) -> None:
    """A folder without ``__init__.py`` may be shared by many projects."""
    project.write(
        {
            "space/one.py": "from . import three\nX = three.X + 1",
            "space/two.py": "",
            "space/three/__init__.py": "X = 1",
            "space/three/data.txt": "",
            "main.py": """
                import space.one
                from shipping import ship
                ship(lambda: space.one.X)
            """,
        }
    )

    shipped = project.run("main.py")

    assert shipped.answers() == [2]
    assert shipped.about()["modules"] == ["space.one", "space.three"]
    assert "space/two.py" not in shipped.files()


def test_modules_in_a_zip_travel(project: Project) -> None:
    """An application may be one file."""
    project.write({"main.py": "from pkg.work import read\nfrom shipping import ship\n"})
    with (project.root / "main.py").open("a") as file:
        file.write("import alone\nship(lambda: [*read('greeting.txt'), alone.X])\n")
    app = project.root / "app.zip"
    with zipfile.ZipFile(app, "w") as archive:
        for name, content in {**PACKAGE, "alone.py": "X = 5"}.items():
            archive.writestr(name, textwrap.dedent(content))
        archive.writestr("pkg/data/__init__.py", "")

    shipped = project.run("main.py", path=[app])

    assert shipped.answers() == [["HELLO", "hello", 1, 5]]
    assert {"alone.py", *PACKAGE} <= set(shipped.files())


# --- functions ------------------------------------------------------------------------


def test_every_kind_of_function_finds_its_modules(project: Project) -> None:
    """What it wraps, is bound to, or holds on to counts as much as what it is."""
    project.write(
        {
            "deco.py": """
                import functools
                from deco_helper import note

                def noted(fn):
                    @functools.wraps(fn)
                    def wrapper(*args):
                        return note(fn(*args))
                    return wrapper

                @noted
                def decorated(x):
                    return x
            """,
            "deco_helper.py": "def note(x): return ['noted', x]",
            "shapes.py": """
                import dataclasses

                @dataclasses.dataclass
                class Box:
                    size: int
                    def grow(self, by): return self.size + by
                    def __call__(self, x): return self.size * x
                    @classmethod
                    def make(cls, size): return cls(size).size

                async def later(x): return x
            """,
            "main.py": """
                import functools
                import deco, shapes
                from deco import decorated, noted
                from shapes import Box
                from shipping import ship

                @noted
                def mine(x): return -x

                def closure():
                    box = Box(3)
                    def inner(x): return box.grow(x)
                    return inner

                class Local(Box):
                    def grow(self, by): return super().grow(by) + 100

                ship(mine, 1)
                ship(decorated, 2)
                ship(functools.partial(decorated, 3))
                ship(functools.partial(max, key=Box(1).grow), 4, 5)
                ship(Box(2).grow, 5)
                ship(Box(2), 6)
                ship(Box.make, 7)
                ship(closure(), 8)
                ship(lambda x: shapes.Box(x).size, 9)
                ship(Local(1).grow, 10)
                ship(shapes.later, 11)
                ship(lambda x=Box(12): x.size)
                ship(lambda values: [values["box"][0].size], {"box": [Box(13)]})
            """,
        }
    )

    assert project.run("main.py").answers() == [
        ["noted", -1],
        ["noted", 2],
        ["noted", 3],
        5,
        7,
        12,
        7,
        11,
        9,
        111,
        11,
        12,
        [13],
    ]


def test_an_import_in_a_function_is_found(project: Project) -> None:
    """Wherever it is: nested, in a class, conditional, in a module that is shipped."""
    names = ("one", "two", "three", "four", "five", "six")
    project.write({f"{name}.py": f"X = {name!r}" for name in names})
    project.write({"two.py": "def get():\n    from six import X\n    return X"})
    project.write(
        {
            "main.py": """
                from shipping import ship

                def work():
                    import one
                    def inner():
                        import two as renamed
                        return renamed.get()
                    class Local:
                        from three import X
                    try:
                        import does_not_exist
                    except ImportError:
                        import four
                    import importlib
                    five = importlib.import_module("five")
                    return [one.X, inner(), Local.X, four.X, five.X]

                ship(work)
            """
        }
    )

    shipped = project.run("main.py")

    assert shipped.answers() == [["one", "six", "three", "four", "five"]]
    assert shipped.about()["modules"] == sorted(names)


def test_a_notebook_cell_finds_the_modules_beside_it(project: Project) -> None:
    """A cell is compiled from text and run in the namespace of ``__main__``."""
    project.write(
        {
            "helper.py": "def f(x): return x + 1",
            "lazy.py": "def g(x): return x * 2",
            "main.py": """
                import linecache
                from shipping import ship
                CELL = '''
                from helper import f
                def work(x):
                    import lazy
                    return lazy.g(f(x))
                '''.replace("\\n                ", "\\n")
                linecache.cache["<cell>"] = (
                    len(CELL), None, CELL.splitlines(True), "<cell>"
                )
                exec(compile(CELL, "<cell>", "exec"))
                ship(work, 4)
            """,
        }
    )

    assert project.run("main.py").answers() == [10]


def test_modules_that_import_each_other_travel(project: Project) -> None:
    """The search ends, and the worker's import succeeds as the driver's did."""
    project.write(
        {
            "ping.py": "import pong\ndef f(n): return n and pong.f(n - 1)",
            "pong.py": "import ping\ndef f(n): return n and ping.f(n - 1)",
            "main.py": "import ping\nfrom shipping import ship\nship(ping.f, 5)",
        }
    )

    shipped = project.run("main.py")

    assert shipped.answers() == [0]
    assert shipped.files() == ["ping.py", "pong.py"]


def test_packing_imports_nothing(project: Project) -> None:
    """A function may import on the worker what has no place in the driver."""
    project.write(
        {
            "heavy/__init__.py": "import heavy.inner",
            "heavy/inner.py": "X = 3",
            "main.py": """
                import sys
                from shipping import ship
                def work():
                    from heavy.inner import X
                    return X
                ship(work)
                assert "heavy" not in sys.modules
            """,
        }
    )

    assert project.run("main.py").answers() == [3]


def test_a_function_of_a_spawned_process_finds_its_main_module(
    project: Project,
) -> None:
    """There the script is called ``__mp_main__``, and has no spec."""
    project.write(
        {
            "helper.py": "X = 6",
            "main.py": """
                import multiprocessing
                from helper import X
                from shipping import ship

                def work(): return X
                def child(): ship(work)

                if __name__ == "__main__":
                    multiprocessing.set_start_method("spawn")
                    process = multiprocessing.Process(target=child)
                    process.start()
                    process.join()
            """,
        }
    )

    assert project.run("main.py").answers() == [6]


# --- edits ----------------------------------------------------------------------------


def test_an_edited_module_is_sent_anew(project: Project) -> None:
    """The driver may reload a module, and the worker must not use the old one."""
    project.write(
        {
            "helper.py": "from constants import X\ndef f(): return X",
            "constants.py": "X = 1",
            "main.py": """
                import importlib
                from pathlib import Path
                import constants, helper
                from shipping import ship

                def work(): return helper.f()

                ship(work)
                ship(work)
                Path("constants.py").write_text("X = 2")
                ship(work)
                Path("constants.py").write_text("X = 1")
                ship(work)
            """,
        }
    )

    shipped = project.run("main.py")

    assert shipped.answers() == [1, 1, 2, 1]
    ids = [shipped.about(number)["id"] for number in range(4)]
    assert ids[0] == ids[1] == ids[3] != ids[2]


def test_a_new_import_and_a_new_file_are_noticed(project: Project) -> None:
    """An edit may reach a module that was not needed before."""
    project.write(
        {
            "pkg/__init__.py": "",
            "other.py": "X = 5",
            "third.py": "X = 6",
            "changed.py": "def get(): return None",
            "main.py": """
                from pathlib import Path
                import changed, pkg
                from shipping import ship

                def work():
                    try:
                        from pkg.new import X
                    except ImportError:
                        return None
                    return X

                ship(work)
                ship(changed.get)
                Path("pkg/new.py").write_text("from other import X")
                Path("changed.py").write_text("def get(): import third; return third.X")
                ship(work)
                ship(changed.get)
            """,
        }
    )

    assert project.run("main.py").answers() == [None, None, 5, 6]


def test_a_bundle_depends_on_nothing_but_the_files(
    project: Project, tmp_path: Path
) -> None:
    """The same code has the same identity, so that it is sent and unpacked once."""
    project.write({**PACKAGE, "helper.py": "X = 1"})
    project.write(
        {
            "main.py": """
                import helper
                from pkg.work import read
                from shipping import ship
                ship(lambda: (read, helper))
            """
        }
    )
    first = project.run("main.py", umask=0o077)
    other = tmp_path / "moved"
    for path in sorted(project.root.rglob("*"), reverse=True):
        if path.is_file() and "__pycache__" not in path.parts:
            target = other / path.relative_to(project.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
            target.chmod(0o600)
            os.utime(target, (1, 1))

    second = project.run("main.py", cwd=other, umask=0)

    assert first.about()["id"] == second.about()["id"]
    assert (first.out / "0.bundle").read_bytes() == (
        second.out / "0.bundle"
    ).read_bytes()


# --- in this process ------------------------------------------------------------------


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """Return a folder on the path; what is imported from it is forgotten again."""
    folder = tmp_path / "local"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        del sys.modules[name]


def imported(folder: Path, files: dict[str, str], module: str) -> Any:
    """Write modules, and return the function ``f`` of one of them."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return importlib.import_module(module).f


def collect(fn: object) -> modules.Bundle | None:
    return modules.collect(fn, cloudpickle.dumps(fn, 5))


@pytest.mark.parametrize(
    "fn",
    [
        eval("lambda x: x + 1", {"__name__": "__main__"}),  # noqa: S307
        json.dumps,
        len,
        cloudpickle.dumps,
        pytest.raises,
        SerializationError,
        types.SimpleNamespace(x=[1, 2]),
    ],
    ids=repr,
)
def test_most_functions_need_nothing(fn: object) -> None:
    """Python, wren, cloudpickle and distributions are on the worker already."""
    assert collect(fn) is None


def test_a_function_of_a_test_module_travels() -> None:
    """Users test their code, and pytest imports tests in a way of its own."""
    made = collect(test_most_functions_need_nothing)

    assert made is not None
    assert modules.is_local(__name__)
    assert made.modules == (__name__,)


def test_a_module_in_a_made_up_package_travels(local: Path) -> None:
    """A tool may register a module as part of a package that is no folder."""
    (local / "part.py").write_text("def f(): pass")
    spec = importlib.util.spec_from_file_location("made.up.part", local / "part.py")
    assert spec is not None
    assert spec.loader is not None
    for name in ("made", "made.up"):
        sys.modules[name] = types.ModuleType(name)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    made = collect(module.f)

    assert made is not None
    assert made.modules == ("made.up.part",)


def test_nothing_is_read_again_while_nothing_changes(local: Path) -> None:
    """A second map of the same function must not wait for the disk."""
    f = imported(local, {"unchanging.py": "def f(): pass"}, "unchanging")

    first, second = collect(f), collect(f)

    assert first is not None
    assert first is second


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("json", False),
        ("json.decoder", False),
        ("sys", False),
        ("_frozen_importlib", False),
        ("test.support", False),
        ("__main__", False),
        ("wren.worker", False),
        ("wren.backends.local", False),
        ("cloudpickle", False),
        ("pytest", False),
        ("anyio.abc", False),
        ("does_not_exist", False),
        ("does.not.exist", False),
        (__name__, True),
    ],
)
def test_only_the_users_own_modules_are_local(name: str, expected: bool) -> None:
    """All others are on the worker, or belong into the requirements."""
    assert modules.is_local(name) is expected


def test_a_module_that_a_worker_missed_is_found(local: Path) -> None:
    """Arguments refer to classes of modules that the function never mentions."""
    (local / "found.py").write_text("import found_helper\nclass C: pass")
    (local / "found_helper.py").write_text("")

    made = modules.find("found")

    assert made is not None
    assert made.modules == ("found", "found_helper")


@pytest.mark.parametrize(
    "name", ["", ".", "..x", "x.", "json", "pytest", "wren.nothing", "nope.x", "../x"]
)
def test_what_cannot_be_sent_is_not_found(name: str) -> None:
    """Then the error says that it must be installed."""
    assert modules.find(name) is None


def test_a_missing_part_of_a_local_package_is_not_found(local: Path) -> None:
    """Sending the package again would not help."""
    (local / "whole").mkdir()
    (local / "whole" / "__init__.py").write_text("")

    assert modules.find("whole") is not None
    assert modules.find("whole.missing") is None


def test_a_missing_folder_is_found_by_what_was_imported_from_it(local: Path) -> None:
    """Of ``folder.module`` a worker says that it has no module ``folder``."""
    files = {"folder/used.py": "def f(): pass", "folder/unused.py": ""}
    imported(local, files, "folder.used")

    made = modules.find("folder")

    assert made is not None
    assert made.modules == ("folder.used",)


# --- what cannot travel ---------------------------------------------------------------


@pytest.mark.parametrize("inside", [False, True])
def test_a_c_extension_is_refused_with_advice(local: Path, inside: bool) -> None:
    """It is made for this machine, and may need libraries that only this one has."""
    place = local / "pkg_c" if inside else local
    place.mkdir(exist_ok=True)
    if inside:
        (place / "__init__.py").write_text("")
    path = place / f"fast{EXTENSION_SUFFIXES[0]}"
    path.write_bytes(b"\x7fELF")
    name = "pkg_c.fast" if inside else "fast"
    source = f"def f():\n    import {'pkg_c' if inside else 'fast'}"
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(source, namespace)  # noqa: S102

    with pytest.raises(SerializationError) as caught:
        collect(namespace["f"])

    text = str(caught.value)
    assert f"{name!r} is a C extension ({path})" in text
    assert "WREN_REQUIREMENTS" in text
    assert "needed by the function 'f'" in text


def test_a_module_that_hides_one_of_pythons_is_refused(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker would import Python's, which has none of the user's functions."""
    monkeypatch.delitem(sys.modules, "profile", raising=False)
    f = imported(local, {"profile.py": "def f(): pass"}, "profile")

    with pytest.raises(SerializationError, match="rename it") as caught:
        collect(f)

    assert f"'profile' ({local / 'profile.py'})" in str(caught.value)


def test_too_much_is_refused_before_it_is_read(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data in a package is easily forgotten, and would be sent to every worker."""
    monkeypatch.setattr(bundle, "MAX_BYTES", 1_000_000)
    files = {"big/__init__.py": "def f(): pass", "big/data.bin": "0" * 2_000_000}
    f = imported(local, files, "big")

    with pytest.raises(SerializationError) as caught:
        collect(f)

    assert "2 MB" in str(caught.value)
    assert str(local / "big" / "data.bin") in str(caught.value)


def test_a_module_that_is_gone_is_reported(local: Path) -> None:
    """The branch may have been switched while a notebook is open."""
    f = imported(local, {"fleeting.py": "def f(): pass"}, "fleeting")
    (local / "fleeting.py").unlink()

    with pytest.raises(SerializationError, match="not where it was imported from"):
        collect(f)


def test_a_module_that_is_not_python_source_is_refused(
    local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a notebook that was imported; a worker could not load it."""
    module = types.ModuleType("strange")
    module.__spec__ = ModuleSpec("strange", None, origin=str(local / "strange.ipynb"))
    module.__spec__.has_location = True
    monkeypatch.setitem(sys.modules, "strange", module)

    with pytest.raises(SerializationError, match=r"strange\.ipynb"):
        collect(lambda: module)
