from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from wren import ConfigurationError
from wren.config import Settings
from wren.registry import BACKENDS, STORAGE, Adapter, open_compute, open_storage
from wren.storage.memory import MemoryStorage

Install: TypeAlias = Callable[..., None]

BACKEND = '''
class Remote:
    """Just enough of a backend."""

    def __init__(self, settings):
        self.settings = settings

    async def prepare(self): ...
    async def invoke(self, request, *, timeout): ...
    async def aclose(self): ...


def open_compute(settings):
    return Remote(settings)


def open_half(settings):
    return object()


not_callable = 3
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Installs a distribution that has one module and one entry point."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()

    def install(
        entry: str,
        source: str = BACKEND,
        *,
        group: str = "wren.backends",
        distribution: str = "wren-remote",
    ) -> None:
        module = entry.partition("=")[2].strip().partition(":")[0]
        (tmp_path / f"{module}.py").write_text(source)
        monkeypatch.delitem(sys.modules, module, raising=False)
        info = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")

    return install


def test_the_local_backend_is_built_in() -> None:
    """What a newcomer uses needs nothing installed."""
    assert open_compute("local", Settings()).name == "local"


@pytest.mark.parametrize("scheme", ["memory", "MEMORY"])
def test_a_scheme_chooses_the_store(scheme: str) -> None:
    """Schemes of URLs are the same in capitals."""
    assert isinstance(open_storage(f"{scheme}:", Settings()), MemoryStorage)


def test_a_file_store_is_opened_by_url(tmp_path: Path) -> None:
    """The whole URL reaches the adapter."""
    assert open_storage(f"file://{tmp_path}/store", Settings()).name == "local"


def test_every_built_in_adapter_is_there() -> None:
    """The tables hold strings, which no type checker compares with the modules."""
    for table, opener in ((BACKENDS, "open_compute"), (STORAGE, "open_storage")):
        for name, adapter in table.items():
            module = pytest.importorskip(adapter.module, reason=f"pip install {name}")
            assert callable(getattr(module, opener))


def test_an_unknown_backend_is_answered_with_the_known(install: Install) -> None:
    """Built in and installed, and the nearest one first."""
    install("remote = remote_adapter:open_compute")

    with pytest.raises(ConfigurationError) as caught:
        open_compute("remot", Settings())

    assert str(caught.value) == (
        "unknown backend 'remot' (did you mean remote?); known: local, remote"
    )


def test_an_unknown_scheme_is_answered_with_the_known() -> None:
    """The same for storage."""
    with pytest.raises(ConfigurationError) as caught:
        open_storage("fiel:///tmp/x", Settings())

    assert str(caught.value) == (
        "unknown storage scheme 'fiel' (did you mean file?);"
        f" known: {', '.join(sorted(STORAGE))}"
    )


def test_a_path_is_no_url() -> None:
    """It is what a user tries first; a password in it must not be shown."""
    with pytest.raises(ConfigurationError) as caught:
        open_storage("//me:canary@host/data", Settings())

    known = " or ".join(f"{scheme}:" for scheme in sorted(STORAGE))
    assert f"expected a URL that begins with {known}" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_an_installed_backend_is_chosen_by_name(install: Install) -> None:
    """A third party adds a cloud without touching wren."""
    install("remote = remote_adapter:open_compute")
    settings = Settings(memory=128)

    opened: Any = open_compute("remote", settings)

    assert type(opened).__name__ == "Remote"
    assert opened.settings is settings


def test_an_installed_store_is_chosen_by_scheme(install: Install) -> None:
    """The same for storage; it gets the whole URL."""
    install(
        "ftp = ftp_adapter:open_it",
        "from wren.storage.memory import MemoryStorage\n"
        "def open_it(url, settings):\n"
        "    store = MemoryStorage()\n"
        "    store.url = url\n"
        "    return store\n",
        group="wren.storage",
    )

    opened: Any = open_storage("FTP://Host/dir", Settings())

    assert opened.url == "ftp://Host/dir"


def test_a_built_in_name_cannot_be_taken(install: Install) -> None:
    """Installing a package must not change where ``local`` runs."""
    install("local = remote_adapter:open_compute")

    assert type(open_compute("local", Settings())).__name__ == "LocalCompute"


def test_two_distributions_with_one_name_are_both_named(install: Install) -> None:
    """Which of them would win depends on the file system."""
    install("remote = one:open_compute", distribution="wren-one")
    install("remote = two:open_compute", distribution="wren-two")

    with pytest.raises(ConfigurationError, match="wren-one, wren-two"):
        open_compute("remote", Settings())


@pytest.mark.parametrize(
    ("target", "source", "message"),
    [
        ("broken:open_compute", "1/0", "does not load: ZeroDivisionError"),
        ("broken:open_compute", "x = (", "does not load: SyntaxError"),
        ("broken:open_compute", "", "does not load: AttributeError"),
        ("broken:open_compute", "import lacking_xyz", "does not load: ModuleNotFound"),
        ("broken:open_half", BACKEND, "lacks prepare, invoke, aclose"),
        ("broken:not_callable", BACKEND, "broken:not_callable is no function"),
    ],
)
def test_a_broken_entry_point_names_its_distribution(
    target: str, source: str, message: str, install: Install
) -> None:
    """The user can then update or remove the right package."""
    install(f"remote = {target}", source)

    with pytest.raises(ConfigurationError) as caught:
        open_compute("remote", Settings())

    assert "'wren-remote'" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "source", ["import lacking_xyz", "def opens(s):\n    import lacking_xyz"]
)
def test_a_third_party_with_an_extra_is_answered_with_pip(
    source: str, install: Install
) -> None:
    """Whether the adapter imports its cloud library early or late."""
    install("remote = remote_extra:opens [fast]", source)

    with pytest.raises(ConfigurationError, match=r"pip install 'wren-remote\[fast\]'"):
        open_compute("remote", Settings())


def test_a_third_partys_own_fault_is_not_blamed_on_an_extra(install: Install) -> None:
    """No installation would mend it; the traceback will."""
    source = "def opens(s):\n    import remote_extra.lacking"
    install("remote = remote_extra:opens [fast]", source)

    with pytest.raises(ModuleNotFoundError):
        open_compute("remote", Settings())


def built_in(
    monkeypatch: pytest.MonkeyPatch, opens: Callable[..., object], extra: str = "aws"
) -> None:
    """Add a built-in backend ``cloud``."""
    module = types.ModuleType("wren_cloud_under_test")
    module.__dict__["open_compute"] = opens
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(BACKENDS, "cloud", Adapter(module.__name__, extra))


def missing(name: str) -> Callable[..., object]:
    """Make an adapter that imports what is not there."""

    def opens(_: Settings) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return opens


def test_a_missing_extra_is_answered_with_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command can be pasted; the distribution is not called wren."""
    built_in(monkeypatch, missing("aiobotocore.session"))

    with pytest.raises(ConfigurationError) as caught:
        open_compute("cloud", Settings())

    assert str(caught.value) == (
        "backend 'cloud': No module named 'aiobotocore.session';"
        " needs: pip install 'wren-cloud[aws]'"
    )
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


@pytest.mark.parametrize("name", ["wren.lacking", "wren", "asyncio.lacking"])
def test_only_a_foreign_module_is_blamed_on_an_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in wren keeps its own traceback."""
    built_in(monkeypatch, missing(name))

    with pytest.raises(ModuleNotFoundError):
        open_compute("cloud", Settings())


def test_an_adapter_without_an_extra_blames_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There would be nothing to install."""
    built_in(monkeypatch, missing("numpy"), extra="")

    with pytest.raises(ModuleNotFoundError):
        open_compute("cloud", Settings())
