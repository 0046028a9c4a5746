"""Every check by name: `nox -l` lists them, `nox` runs what a change must pass."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.11.12"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "types", "downstream", "tests"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = ["3.11", "3.12", "3.13"]
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
if HERE not in PYTHONS:  # `tests` must not pass because no interpreter was found
    PYTHONS.append(HERE)


EXTRAS = "aws,azure,cli,conformance,gcp"


def group(name: str) -> list[str]:
    """Return the requirements of one PEP 735 dependency group."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


def install_servers(session: nox.Session) -> None:
    """Have the servers installed that tests start; once for all sessions of a user.

    Without them, tests are skipped on a developer's machine, and fail where ``CI`` is
    set.
    """
    tolerated = [0] if os.environ.get("CI") else [0, 1]
    session.run("wren", "emulator", "install", success_codes=tolerated)


def build(session: nox.Session) -> Path:
    """Build the wheel by way of the sdist, as a release does, and return its path."""
    shutil.rmtree("build", ignore_errors=True)  # setuptools would ship deleted files
    out = Path(session.create_tmp()).resolve() / "dist"
    shutil.rmtree(out, ignore_errors=True)
    session.install("build")
    session.run("python", "-m", "build", f"--outdir={out}", silent=True)
    (wheel,) = out.glob("*.whl")
    return wheel


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, as linter and as formatter."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy is the judge; pyright is what most editors run."""
    session.install("-e", f".[{EXTRAS}]", *group("types"))
    session.run("mypy")
    session.run("pyright")


@nox.session
def downstream(session: nox.Session) -> None:
    """Type-check a project that has installed the wheel and sees none of this tree."""
    wheel = build(session)
    session.install(str(wheel), "mypy", "pyright[nodejs]")
    project = Path(session.create_tmp()).resolve() / "project"
    project.mkdir(exist_ok=True)
    for source in Path("tests", "typing").iterdir():
        if source.is_file():
            shutil.copy(source, project)
    with session.chdir(project):
        session.run("mypy", "--strict", "downstream.py")
        session.run("pyright", "--project", "pyrightconfig.json")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests, on each Python that this machine has."""
    session.install("-e", f".[{EXTRAS}]", *group("test"))
    install_servers(session)
    session.run("pytest", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """The same tests, and what none reached; a worker that is killed tells nothing."""
    session.install("-e", f".[{EXTRAS}]", *group("test"))
    install_servers(session)
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session
def lowest(session: nox.Session) -> None:
    """The same tests with the oldest dependencies that pyproject.toml admits."""
    if session.venv_backend != "uv":
        session.skip("only uv resolves to the lowest versions: pip install uv")
    requirements = ("-e", f".[{EXTRAS}]", *group("test"))
    session.install("--resolution=lowest-direct", *requirements)
    install_servers(session)
    session.run("pytest", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Test what a user installs. `pytest`, not `python -m pytest`: ./wren must lose."""
    session.install(f"{build(session)}[{EXTRAS}]", *group("test"))
    install_servers(session)
    session.run("pytest", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Wren beside its peers, in one run; arguments after `--` go to the benchmark."""
    session.install("-e", ".", *group("bench"))
    session.run("python", "-m", "tests.benchmarks.run", *session.posargs)
