"""``wren conformance``, as a shell runs it: real processes, pipes and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, TypeAlias

import pytest

Run: TypeAlias = Callable[..., CompletedProcess[str]]

COMMAND = (sys.executable, "-m", "wren", "conformance")


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """An empty home directory, no settings, and a project that interferes."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (tmp_path / "conftest.py").write_text("raise RuntimeError('not to be imported')\n")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WREN_")}
    environment = kept | {"HOME": str(tmp_path), "PYTEST_ADDOPTS": "--nor-such-one"}
    return {"cwd": tmp_path, "env": environment, "stdin": subprocess.DEVNULL}


@pytest.fixture
def run(options: dict[str, Any]) -> Run:
    """Runs the command to its end."""

    def run(*arguments: str) -> CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            capture_output=True,
            text=True,
            timeout=55,
            check=False,
            **options,
        )

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where objects go."""
    return tmp_path / "objects"


def test_the_whole_storage_part_passes_on_files(run: Run, folder: Path) -> None:
    """A table is all there is on standard output, and nothing is left behind."""
    done = run("--storage", folder.as_uri(), "-k", "TestStorage")

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["storage", "local"]
    shown = {line.split()[0]: line.split()[-1] for line in lines if line[:3] == "  S"}
    assert len(shown) > 35
    assert set(shown.values()) == {"ok"}
    assert list(folder.iterdir()) == []


def test_other_objects_are_left_alone(run: Run, folder: Path) -> None:
    """Deleting and emptying end at the prefix of the suite."""
    folder.mkdir(mode=0o700)
    (folder / "precious").write_text("data")

    done = run("--storage", folder.as_uri(), "-k", "delete or prefix")

    assert done.returncode == 0
    assert [path.name for path in folder.iterdir()] == ["precious"]


def test_report_and_json_are_the_same(run: Run, tmp_path: Path) -> None:
    """A file for later, standard output for a program that waits."""
    done = run("--storage", "memory:", "-k", "S05", "--json", "--report", "r.json")

    assert done.returncode == 0
    said = json.loads(done.stdout)
    assert json.loads((tmp_path / "r.json").read_text()) == said
    passed = [each["id"] for each in said["checks"] if each["status"] == "passed"]
    assert set(passed) == {"S05"}


def test_a_store_without_a_setting_is_the_backends_own(run: Run) -> None:
    """The local backend has one, so there is something to check at once."""
    done = run("-k", "S01 or C26 or E01")

    assert done.returncode == 0, done.stdout
    shown = [line.split()[0] for line in done.stdout.splitlines() if line[-2:] == "ok"]
    assert shown == ["S01", "C26", "E01"]


BROKEN = """
from wren.storage.memory import MemoryStorage

class Broken(MemoryStorage):
    async def get(self, key, *, start=0, stop=None):
        return b""

def open_storage(url, settings):
    return Broken()
"""


def test_what_fails_is_told(run: Run, tmp_path: Path, options: dict[str, Any]) -> None:
    """A third party's store, found by its entry point, and broken."""
    installed = tmp_path / "site"
    about = installed / "broken_store-1.2.dist-info"
    about.mkdir(parents=True)
    (installed / "broken_store.py").write_text(BROKEN)
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: broken-store\nVersion: 1.2\n"
    )
    (about / "top_level.txt").write_text("broken_store\n")
    (about / "entry_points.txt").write_text(
        "[wren.storage]\nbroken = broken_store:open_storage\n"
    )
    options["env"]["PYTHONPATH"] = str(installed)

    done = run("--storage", "broken://x", "-k", "S01 or S02")

    assert done.returncode == 1
    rows = {
        line.split()[0]: line.split()[-1] for line in done.stdout.splitlines() if line
    }
    assert (rows["S01"], rows["S02"]) == ("FAILED", "ok")
    assert "storage memory (broken-store 1.2): 1 passed, 1 failed" in done.stdout
    assert "FAILED memory S01 test_all_byte_values_come_back" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--storage", "nowhere://x"], "nowhere"),
        (["--backend", "nowhere"], "nowhere"),
        (["--storage", "memory:", "-k", "no_such_check"], "no_such_check"),
        (["--storage", "memory:", "-k", "not not ("], "-k"),
        (["diff", "absent.json", "absent.json"], "absent.json"),
    ],
)
def test_a_wrong_command_line_is_told(
    run: Run, arguments: list[str], said: str
) -> None:
    """2 means that nothing was checked, and how to mend it is said."""
    done = run(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_extra_is_named(run: Run, options: dict[str, Any]) -> None:
    """pytest is not installed with wren."""
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name: None if name == 'pytest' else find(name)\n"
        "from wren import cli; sys.exit(cli.main(['conformance']))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        **options,
    )

    assert done.returncode == 2
    assert "pip install 'wren-cloud[conformance]'" in done.stderr


def test_two_reports_are_compared(run: Run, tmp_path: Path) -> None:
    """What no longer holds is a failure; what holds now as well is none."""
    run("--storage", "memory:", "-k", "S01 or S02", "--report", "both.json")
    text = (tmp_path / "both.json").read_text()
    one = text.replace('"status": "passed"', '"status": "failed"', 1)
    (tmp_path / "one.json").write_text(one)

    assert run("diff", "both.json", "both.json").returncode == 0
    assert run("diff", "one.json", "both.json").returncode == 0
    lost = run("diff", "both.json", "one.json")
    assert lost.returncode == 1
    assert lost.stdout.count("passed -> failed") == 1


def test_an_interruption_cleans_up(options: dict[str, Any], folder: Path) -> None:
    """Ctrl-C in the middle of a check: its objects go, and the exit code tells."""
    process = subprocess.Popen(
        [*COMMAND, "--storage", folder.as_uri(), "-k", "TestStorage"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **options,
    )
    try:
        give_up = time.monotonic() + 30
        while not (folder.exists() and list(folder.iterdir())):
            assert time.monotonic() < give_up
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)

        assert process.wait(40) == 130
    finally:
        process.kill()
        process.wait()
    assert list(folder.iterdir()) == []
