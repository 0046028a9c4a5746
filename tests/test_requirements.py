"""Requirements, resolved for another machine than this one."""

from __future__ import annotations

import base64
import hashlib
import shutil
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from wren import requirements
from wren.errors import ConfigurationError, DeploymentError
from wren.package import Package
from wren.requirements import Target

pytestmark = pytest.mark.anyio

TARGET = Target("3.12", machine="aarch64", glibc="2.34")
TAG = "cp312-cp312-manylinux_2_17_aarch64"


def make_wheel(folder: Path, tag: str) -> None:
    """Write a wheel of a package ``parrot`` with one module and one extension."""
    info = "parrot-1.0.dist-info"
    files = {
        "parrot.py": "COLOUR = 'blue'\n",
        "_parrot.so": "not really",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: parrot\nVersion: 1.0\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n",
        f"{info}/entry_points.txt": "[console_scripts]\nparrot = parrot:main\n",
    }
    record = ""
    with zipfile.ZipFile(folder / f"parrot-1.0-{tag}.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
            record += f"{name},sha256={digest.decode().rstrip('=')},{len(text)}\n"
        wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")


def find_nothing(_name: str) -> None:
    """Say that there is no such program or module."""


@pytest.fixture(params=["uv", "pip"])
def installer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return which of the two installs, each in turn."""
    name: str = request.param
    if name == "pip":
        monkeypatch.setattr("shutil.which", find_nothing)
        if find_spec("pip") is None:
            pytest.skip("uv pip install pip")
    elif shutil.which("uv") is None:
        pytest.skip("pip install uv")
    return name


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a requirements file that needs no network."""
    path = tmp_path / "requirements.txt"
    path.write_text(f"--no-index\n--find-links {tmp_path}\nparrot\n")
    return path


@pytest.mark.usefixtures("installer")
async def test_wheels_for_the_target_are_installed(tmp_path: Path, file: Path) -> None:
    """For its Python, its processor and its C library, whatever this machine has."""
    make_wheel(tmp_path, TAG)

    built = await Package(entry={}, target=TARGET, requirements=file).build()
    again = await Package(entry={}, target=TARGET, requirements=file).build()

    archive = tmp_path / "function.zip"
    archive.write_bytes(built.data)
    names = zipfile.ZipFile(archive).namelist()
    assert {"parrot.py", "_parrot.so", "wren/worker.py"} <= set(names)
    assert "parrot-1.0.dist-info/METADATA" in names
    assert "parrot-1.0.dist-info/RECORD" not in names
    assert [name for name in names if name.startswith("bin/")] == []
    assert again.data == built.data


@pytest.mark.usefixtures("installer")
@pytest.mark.parametrize(
    "tag",
    [
        TAG.replace("312", "311"),
        TAG.replace("aarch64", "x86_64"),
        TAG.replace("2_17", "2_38"),
    ],
    ids=["another Python", "another processor", "a newer C library"],
)
async def test_a_requirement_without_a_wheel_is_named(
    tmp_path: Path, file: Path, tag: str
) -> None:
    """At deployment, not when the first task imports it."""
    make_wheel(tmp_path, tag)

    with pytest.raises(DeploymentError, match="parrot"):
        await Package(entry={}, target=TARGET, requirements=file).build()


async def test_no_installer_is_a_clear_error(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment made by uv has no pip."""
    monkeypatch.setattr("shutil.which", find_nothing)
    monkeypatch.setattr(requirements, "find_spec", find_nothing)

    with pytest.raises(ConfigurationError, match="pip install uv"):
        await requirements.install(file, TARGET, tmp_path)


async def test_what_this_process_runs_on_is_a_target(tmp_path: Path) -> None:
    """Nothing but a requirements file's own lines is installed."""
    empty = tmp_path / "requirements.txt"
    empty.write_text("# none yet\n")
    here = Target(f"{sys.version_info.major}.{sys.version_info.minor}")

    built = await Package(entry={}, target=here, requirements=empty).build()

    assert built.data == (await Package(entry={}, target=here).build()).data
