"""The arrows between the parts: who may import whom, and what an import may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from wren import package

ROOT = Path(__file__).parent.parent
FOLDERS = ("backends", "conformance", "storage")

DEPENDENCIES = {"anyio", "cloudpickle"}
CLOUD = {"aiobotocore", "aiohttp", "azure", "boto3", "botocore", "google", "grpc"}
EVENT_LOOPS = {"anyio._backends._asyncio", "anyio._backends._trio", "asyncio", "trio"}

SUITES = "wren.conformance"
EMULATORS = "wren.conformance.emulators."  # these need neither pytest nor an extra

WORKER = {*package.WORKER}


def _sources() -> dict[str, ast.Module]:
    """Return every module of the library by its import name, parsed."""
    found: dict[str, ast.Module] = {}
    paths = [("wren", path) for path in (ROOT / "wren").glob("*.py")]
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            package = ".".join(("wren", *path.parent.relative_to(ROOT).parts))
            paths.append((package, path))
    for package, path in paths:
        name = package if path.stem == "__init__" else f"{package}.{path.stem}"
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


SOURCES = _sources()


class _Imports(ast.NodeVisitor):
    """Collects the names of imported modules, but not those for type checkers only."""

    def __init__(self, *, in_functions: bool) -> None:
        self.found: set[str] = set()
        self._in_functions = in_functions

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) != "TYPE_CHECKING":
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if self._in_functions:
            self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        if self._in_functions:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        for alias in node.names:
            inner = f"{module}.{alias.name}"
            self.found.add(inner if inner in SOURCES else module)


def imports(name: str, *, in_functions: bool = True) -> set[str]:
    """Return what a module imports: full names of wren's modules, and all others'."""
    visitor = _Imports(in_functions=in_functions)
    visitor.visit(SOURCES[name])
    return visitor.found


def foreign(name: str) -> set[str]:
    """Return the top-level packages a module imports that somebody must install."""
    top = {module.partition(".")[0] for module in imports(name)}
    return top - sys.stdlib_module_names - {"wren"}


def reachable(start: str) -> set[str]:
    """Return all of wren's modules that a module imports, directly or not."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += imports(name) & SOURCES.keys()
    return seen - {start}


def is_cli(name: str) -> bool:
    """Say whether a module belongs to the command line."""
    return name.rpartition(".")[2].startswith(("cli", "__main__"))


def adapters() -> set[str]:
    """Return every module that opens a store or a backend, and all of its package."""
    found: set[str] = set()
    for name, tree in SOURCES.items():
        functions = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
        if name.startswith("wren.storage.") and "open_storage" in functions:
            found.add(name)
        if name.startswith("wren.backends."):
            found.add(name)
    return found


def loaded_by(statement: str) -> set[str]:
    """Return the modules that a new interpreter has loaded after a statement."""
    code = (
        f"import sys; old = set(sys.modules)\n{statement}\nprint(*{{*sys.modules}}-old)"
    )
    # -I: the installed package, not whatever lies in the current folder.
    done = subprocess.run(
        [sys.executable, "-I", "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return set(done.stdout.split())


CORE = sorted(name for name in SOURCES if name.count(".") < 2 and name != "wren")


def test_importing_wren_loads_nothing_else() -> None:
    """A worker imports it too, and pays for every module at each cold start."""
    loaded = loaded_by("import wren")

    installed = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names
    assert installed <= {"wren"}
    assert {name for name in loaded if name.startswith("wren.")} == set()
    assert loaded & EVENT_LOOPS == set()


@pytest.mark.parametrize(
    "statement",
    ["from wren import Executor", "import wren.registry", "from wren import Storage"],
)
def test_the_core_loads_no_cloud_library_and_no_event_loop(statement: str) -> None:
    """What was not chosen costs no time, and need not be installed."""
    loaded = loaded_by(statement)

    assert loaded & EVENT_LOOPS == set()
    top = {name.partition(".")[0] for name in loaded}
    assert top & (CLOUD | {"hypothesis", "numpy", "pytest", "tqdm"}) == set()


def test_a_worker_loads_the_standard_library_and_cloudpickle() -> None:
    """A function's archive then holds wren and cloudpickle, and starts fast."""
    loaded = loaded_by("import wren.worker")

    installed = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names
    assert installed <= {"wren", "cloudpickle"}
    assert {name for name in loaded if name.partition(".")[0] == "wren"} <= WORKER
    assert loaded & EVENT_LOOPS == set()


def test_a_worker_never_needs_more_than_its_archive_holds() -> None:
    """Imports inside functions count: they fail late, on the worker, in production."""
    assert reachable("wren.worker") <= WORKER
    for name in WORKER & SOURCES.keys():
        assert foreign(name) <= {"cloudpickle"}, name


@pytest.mark.parametrize("name", CORE)
def test_the_core_needs_its_two_dependencies_only(name: str) -> None:
    """Everything else is an extra, imported by an adapter or the command line."""
    extra = {"tqdm"} if is_cli(name) else set[str]()

    assert foreign(name) <= DEPENDENCIES | extra


@pytest.mark.parametrize("name", CORE)
def test_the_core_imports_no_adapter(name: str) -> None:
    """Adapters are chosen by name in `wren.registry`, so that each can be left out."""
    assert imports(name) & adapters() == set()
    tests = {module for module in imports(name) if module.startswith(SUITES)}
    assert {module for module in tests if not module.startswith(EMULATORS)} == set()
    assert tests == set() or is_cli(name)


@pytest.mark.parametrize(
    "name", sorted(name for name in SOURCES if name.startswith(EMULATORS))
)
def test_an_emulator_needs_nothing_installed(name: str) -> None:
    """``wren emulator`` is for everybody; a server's packages are in its own place."""
    if name.startswith(f"{EMULATORS}gcs_"):  # runs there
        return
    assert foreign(name) == set()
    assert {each for each in reachable(name) if each.startswith(SUITES)} <= {
        each for each in SOURCES if each.startswith(EMULATORS)
    }


@pytest.mark.parametrize("name", sorted(adapters()))
def test_an_adapter_knows_the_contract_and_not_the_driver(name: str) -> None:
    """An adapter that reached into dispatch would work with this version only."""
    driver = {"wren.cli", "wren.dispatch", "wren.executor", "wren.job"}

    assert reachable(name) & driver == set()


@pytest.mark.parametrize(
    ("name", "above"),
    [
        ("wren.executor", {"wren.cli"}),
        ("wren.dispatch", {"wren.cli", "wren.executor"}),
        ("wren.serialize", {"wren.cli", "wren.dispatch", "wren.executor", "wren.job"}),
        ("wren.config", {"wren.cli", "wren.dispatch", "wren.executor", "wren.job"}),
    ],
)
def test_arrows_point_one_way(name: str, above: set[str]) -> None:
    """A lower layer can be read, tested and replaced without the ones above it."""
    assert reachable(name) & above == set()


def test_the_contracts_stand_alone() -> None:
    """Whoever implements or reads them needs nothing else."""
    assert reachable("wren.protocols") == set()
    assert reachable("wren.errors") == set()
    assert reachable("wren.envelope") <= {"wren", "wren.errors"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    """A circle works until somebody imports the other end first."""
    graph = {name: imports(name, in_functions=False) for name in SOURCES}

    order = list(TopologicalSorter(graph).static_order())  # raises CycleError

    assert SOURCES.keys() <= set(order)


def _reads_environment(node: ast.AST) -> bool:
    names = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    if isinstance(node, ast.ImportFrom):
        return node.module == "os" and not names.isdisjoint(a.name for a in node.names)
    return isinstance(node, ast.Attribute) and node.attr in names


def _prints(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    )


def _where(found: Callable[[ast.AST], bool]) -> Iterator[tuple[str, int]]:
    """Yield module and line of every piece of syntax for which ``found`` is true."""
    for name, tree in SOURCES.items():
        for node in ast.walk(tree):
            if found(node):
                yield name, getattr(node, "lineno", 0)


def test_only_the_configuration_reads_the_environment() -> None:
    """Otherwise ``wren config`` could not say where each setting comes from."""
    allowed = {
        "wren.config",
        "wren.backends.local.serve",  # puts back what a task changed; reads no setting
    }

    # A check looks at what surrounds a worker; settings are not its business.
    assert [
        at
        for at in _where(_reads_environment)
        if at[0] not in allowed and not at[0].startswith(SUITES)
    ] == []


def test_only_the_command_line_prints() -> None:
    """Standard output belongs to the program that uses the library."""
    assert [at for at in _where(_prints) if not is_cli(at[0])] == []
