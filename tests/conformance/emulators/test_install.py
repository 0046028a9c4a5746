"""An installation is whole or absent, whoever installs it at the same time."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wren.conformance.emulators import install as installing
from wren.conformance.emulators.errors import EmulatorError, NotInstalledError
from wren.conformance.emulators.install import (
    Installation,
    Recipe,
    Runner,
    cache_directory,
    find,
    install,
    is_installed,
)

METADATA = "Metadata-Version: 2.1\nName: tiny-server\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
RECORD = (
    "tiny_server.py,,\n"
    "tiny_server-1.0.dist-info/METADATA,,\n"
    "tiny_server-1.0.dist-info/WHEEL,,\n"
    "tiny_server-1.0.dist-info/RECORD,,\n"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_directory()


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A package in a file, so that nothing is downloaded."""
    path = tmp_path / "tiny_server-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny_server.py", "print('served')")
        wheel.writestr("tiny_server-1.0.dist-info/METADATA", METADATA)
        wheel.writestr("tiny_server-1.0.dist-info/WHEEL", WHEEL)
        wheel.writestr("tiny_server-1.0.dist-info/RECORD", RECORD)
    return Recipe(name="tiny", version="1.0", python=(str(path),))


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was really built."""
    names: list[str] = []
    build = installing.build

    def counting(recipe: Recipe, target: Installation, runner: Runner) -> None:
        names.append(recipe.name)
        build(recipe, target, runner)

    monkeypatch.setattr(installing, "build", counting)
    return names


def served(python: Path) -> str:
    """Run the tiny server."""
    done = subprocess.run(
        [python, "-m", "tiny_server"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout


def test_what_is_installed_runs(recipe: Recipe, cache: Path) -> None:
    """In its place in the cache, not in the one where it was built."""
    found = install(recipe)

    assert served(found.python) == "served\n"
    assert find(recipe) == found
    assert {path.name for path in cache.iterdir()} == {
        recipe.key,
        f"{recipe.key}.lock",
    }


def test_pip_does_what_uv_would(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uv is faster, but nobody has to have it."""

    def no_uv(name: str) -> None:
        assert name == "uv"

    monkeypatch.setattr(shutil, "which", no_uv)

    assert served(install(recipe).python) == "served\n"


def test_a_uv_that_does_not_run_is_no_uv(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyenv puts one on the path that fails where another Python is selected."""
    shim = tmp_path / "bin" / "uv"
    shim.parent.mkdir()
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(shim.parent), prepend=":")

    assert served(install(recipe).python) == "served\n"


def test_a_second_installation_does_nothing(recipe: Recipe, built: list[str]) -> None:
    """So every run of the tests can begin with it."""
    first = install(recipe)

    assert install(recipe) == first
    assert built == ["tiny"]


def test_of_two_at_once_one_builds(recipe: Recipe, built: list[str]) -> None:
    """The other one waits, and takes what is there."""
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(install, [recipe] * 4))

    assert set(found) == {find(recipe)}
    assert built == ["tiny"]


def test_what_is_missing_is_answered_with_the_command(recipe: Recipe) -> None:
    """The message is all that a user sees."""
    with pytest.raises(NotInstalledError, match="wren emulator install tiny"):
        find(recipe)


def test_another_recipe_has_another_place(recipe: Recipe) -> None:
    """A changed list of packages would otherwise find the old ones."""
    changed = Recipe(name="tiny", version="1.0", python=(*recipe.python, "more==1"))

    install(recipe)

    assert not is_installed(changed)


def test_a_failure_leaves_nothing_and_says_why(cache: Path, tmp_path: Path) -> None:
    """The next attempt starts anew."""
    recipe = Recipe(name="tiny", version="1", python=(str(tmp_path / "missing.whl"),))

    with pytest.raises(EmulatorError, match=r"missing\.whl"):
        install(recipe)

    assert not is_installed(recipe)
    assert [path.name for path in cache.iterdir()] == [f"{recipe.key}.lock"]


def test_an_installation_can_be_stopped(recipe: Recipe, cache: Path) -> None:
    """Ctrl-C ends what a download would make long."""

    class StopError(Exception):
        pass

    def stop() -> None:
        raise StopError

    with pytest.raises(StopError):
        install(recipe, check=stop)

    assert [path.name for path in cache.iterdir()] == [f"{recipe.key}.lock"]
    assert served(install(recipe).python) == "served\n"


def test_what_a_killed_installation_left_is_no_installation(
    recipe: Recipe, cache: Path
) -> None:
    """It was being built beside its place."""
    rubbish = cache / f"{recipe.key}.partial" / "bin" / "python"
    rubbish.parent.mkdir(parents=True)
    rubbish.touch()

    assert not is_installed(recipe)
    assert served(install(recipe).python) == "served\n"
    assert not rubbish.exists()


def test_an_installation_whose_python_is_gone_is_made_anew(recipe: Recipe) -> None:
    """Its interpreter is a link to one that may be uninstalled any day."""
    found = install(recipe)
    found.python.unlink()
    found.python.symlink_to("/no/such/python3")

    assert not is_installed(recipe)
    assert served(install(recipe).python) == "served\n"


def test_the_cache_follows_the_convention(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is the user's, and is found again by the next run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_directory() == tmp_path / "x" / "wren" / "emulators"

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "wren" / "emulators"
