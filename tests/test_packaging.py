"""The folders at the top, the import names and the metadata must not drift apart."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import wren

ROOT = Path(__file__).parent.parent
FOLDERS = ("backends", "conformance", "storage")


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_is_listed_for_the_build(pyproject: dict[str, Any]) -> None:
    """A package that is not in the table works in the tree and is not in the wheel."""
    table = pyproject["tool"]["setuptools"]
    found = {"wren"}
    for folder in FOLDERS:
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join(("wren", *init.parent.relative_to(ROOT).parts)))

    assert found == set(table["packages"])
    assert {f"wren.{f}": f for f in FOLDERS} | {"wren": "wren"} == table["package-dir"]


def test_every_folder_with_modules_is_a_package() -> None:
    """A forgotten __init__.py would hide a folder from the test above."""
    folders = {
        module.parent
        for folder in ("wren", *FOLDERS)
        for module in (ROOT / folder).rglob("*.py")
    }

    assert [f for f in sorted(folders) if not (f / "__init__.py").is_file()] == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_link_points_at_its_folder(folder: str) -> None:
    """Type checkers and editors follow the links, and nothing else tells if they break.

    It is a text file on a git without symbolic links, and absent from an sdist.
    """
    link = ROOT / "wren" / folder

    if link.is_symlink():
        assert link.readlink() == Path("..", folder)


def test_one_version_is_told_everywhere(pyproject: dict[str, Any]) -> None:
    """The worker compares `wren.__version__`; the release is named by the metadata."""
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version = pyproject["project"]["version"]

    assert metadata.version("wren-cloud") == version
    assert wren.__version__ == version
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [version]
    assert re.findall(r"^## \[(\d[^]]*)]", changelog, re.MULTILINE)[0] == version


def test_the_core_needs_two_packages_only() -> None:
    """Every dependency of the core is installed by everybody, on every machine."""
    required = metadata.requires("wren-cloud") or []

    assert sorted(r for r in required if "extra ==" not in r) == [
        "anyio>=4.9",
        "cloudpickle>=3.1",
    ]


def test_all_extras_are_in_all(pyproject: dict[str, Any]) -> None:
    """``pip install 'wren-cloud[all]'`` is for those who do not want to choose."""
    extras = dict(pyproject["project"]["optional-dependencies"])
    (everything,) = extras.pop("all")
    del extras["conformance"]  # for authors of adapters, not for users

    assert everything == f"wren-cloud[{','.join(sorted(extras))}]"


def test_types_are_published() -> None:
    """Without this file a type checker takes everything of wren for `Any`."""
    files = {str(file) for file in metadata.files("wren-cloud") or []}
    editable = any("__editable__" in file for file in files)

    assert editable or "wren/py.typed" in files
    assert (Path(wren.__file__).parent / "py.typed").is_file()


def test_the_command_is_installed() -> None:
    """The script in the metadata must name a function that exists."""
    (script,) = metadata.entry_points(group="console_scripts", name="wren")
    code = f"import sys; from {script.module} import {script.attr}; {script.attr}()"

    done = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "wren" in done.stdout
