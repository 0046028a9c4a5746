"""The user's requirements, resolved for the machine that a function runs on."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from anyio import run_process, to_thread

from wren.errors import ConfigurationError, DeploymentError

_NESTED: Final = re.compile(
    rb"^\s*(?:-r|--requirement|-c|--constraint)[\s=]*(\S+)", re.MULTILINE
)
_LOCAL: Final = re.compile(
    rb"^\s*(?:-e\b|--editable\b|\.{1,2}/|/|file:).*", re.MULTILINE
)
_TAIL: Final = 1500
"""Bytes of an installer's complaints that an error shows."""

# What installers write that differs from run to run, or that a function never runs.
_NOISE: Final = (
    "*.dist-info/RECORD",
    "*.dist-info/INSTALLER",
    "*.dist-info/REQUESTED",
    "*.dist-info/direct_url.json",
    "*.dist-info/uv_cache.json",
    ".lock",
    "bin",
    "**/__pycache__",
)


@dataclass(frozen=True, slots=True)
class Target:
    """What a function runs on: Linux with glibc, and CPython."""

    python: str
    """Such as ``"3.11"``."""

    machine: str = "x86_64"
    """Or ``"aarch64"``."""

    glibc: str = "2.17"
    """The oldest that the platform has: wheels for it or for an older one will do."""


def texts(file: Path) -> Iterator[bytes]:
    """Yield the content of a requirements file, and of each one that it names.

    Raises:
        ConfigurationError: One cannot be read, or asks for a package of this machine:
            such a package's content is not in the text.
    """
    todo, seen = [file.absolute()], set[Path]()
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        try:
            text = path.read_bytes()
        except OSError as exc:
            raise ConfigurationError(
                f"requirements = {str(file)!r}: {path}: {exc.strerror}"
            ) from exc
        if local := _LOCAL.search(text):
            raise ConfigurationError(
                f"requirements = {str(file)!r}: {local[0].decode(errors='replace')!r}"
                " is on this machine: your own modules travel by themselves, and"
                " anything else must come from an index"
            )
        todo += [path.parent / name.decode() for name in _NESTED.findall(text)]
        yield text


async def install(file: Path, target: Target, folder: Path) -> None:
    """Install requirements for a target into a folder, from wheels alone.

    Raises:
        ConfigurationError: There is neither uv nor pip.
        DeploymentError: One has no wheel for the target, or they contradict each other;
            the message has the installer's own words.
    """
    command = await to_thread.run_sync(_command, file, target, folder)
    done = await run_process(command, check=False)
    if done.returncode:
        words = (done.stderr or done.stdout)[-_TAIL:].decode(errors="replace").strip()
        raise DeploymentError(
            f"requirements = {str(file)!r} cannot be installed for Python"
            f" {target.python} on Linux {target.machine}, from wheels:\n{words}"
        )
    await to_thread.run_sync(_remove_noise, folder)


def _command(file: Path, target: Target, folder: Path) -> Sequence[str]:
    options = ["--only-binary=:all:", "--python-version", target.python]
    where = ["--target", str(folder), "-r", str(file)]
    if uv := shutil.which("uv"):
        major, minor = target.glibc.split(".")
        platform = f"{target.machine}-manylinux_{major}_{minor}"
        quiet = ["--quiet", "--no-progress", "--python-platform", platform]
        return [uv, "pip", "install", *quiet, *options, *where]
    if find_spec("pip") is None:
        raise ConfigurationError(
            "requirements need uv or pip to be installed into a function:"
            " pip install uv"
        )
    quiet = ["--quiet", "--disable-pip-version-check", "--no-compile"]
    tags = [f"--platform={tag}" for tag in _tags(target)]
    python = [sys.executable, "-m", "pip", "install", *quiet]
    return [*python, "--implementation=cp", *tags, *options, *where]


def _tags(target: Target) -> Iterator[str]:
    """Yield the platform tags of wheels that run on a target; pip infers none."""
    oldest = 17 if target.machine == "aarch64" else 5
    newest = int(target.glibc.partition(".")[2])
    for minor in range(newest, oldest - 1, -1):
        yield f"manylinux_2_{minor}_{target.machine}"
    yield f"manylinux2014_{target.machine}"
    if target.machine == "x86_64":
        yield "manylinux2010_x86_64"
        yield "manylinux1_x86_64"


def _remove_noise(folder: Path) -> None:
    for pattern in _NOISE:
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
