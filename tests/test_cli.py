"""The commands as a shell runs them: real processes, pipes and exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, TypeAlias

import pytest

import wren
from wren import cli
from wren.cli_common import Command

Run: TypeAlias = Callable[..., CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs ``wren`` in an empty home directory without any settings."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WREN_")}

    def run(*arguments: str, **variables: str) -> CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "wren", *arguments],
            cwd=tmp_path,
            env=environment | {"HOME": str(tmp_path)} | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    return run


def test_the_version_is_told(run: Run) -> None:
    """The first thing to say in a report of a bug."""
    done = run("--version")

    assert (done.returncode, done.stdout) == (0, f"wren {wren.__version__}\n")


def test_without_a_command_the_commands_are_listed(run: Run) -> None:
    """2 means that the command line was wrong."""
    assert run().returncode == 2
    listed = run("--help").stdout
    assert all(name in listed for name in ("hello", "run", "config", "doctor", "clean"))


def test_hello_reaches_every_worker(run: Run) -> None:
    """It proves that the set-up works, so each slot must have answered."""
    done = run("hello", "--json", "--concurrency", "2")

    answers = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert len({answer["pid"] for answer in answers}) == 2
    assert {answer["backend"] for answer in answers} == {"local"}
    assert all(answer["start"] == "cold" for answer in answers)
    assert all(answer["seconds"] >= 0 for answer in answers)
    assert done.stderr == "wren: 2 of 2 workers answered\n"


@pytest.mark.parametrize(("count", "answers"), [("1", 1), ("3", 2)])
def test_hello_reaches_as_many_workers_as_asked_for(
    count: str, answers: int, run: Run
) -> None:
    """Or as there are."""
    done = run("hello", "--json", "--concurrency", "2", "--count", count)

    assert done.returncode == 0
    assert len(json.loads(done.stdout)) == answers
    assert done.stderr == f"wren: {answers} of {count} workers answered\n"


@pytest.mark.parametrize("count", ["0", "-1", "two"])
def test_hello_needs_a_worker(count: str, run: Run) -> None:
    """Nobody to greet is a mistake on the command line."""
    done = run("hello", f"--count={count}")

    assert done.returncode == 2
    assert "expected a whole number, 1 or more" in done.stderr


def test_hello_is_shown_as_a_table(run: Run) -> None:
    """One line for each worker, under a heading."""
    done = run("hello", "--concurrency", "1")

    heading, *lines = done.stdout.splitlines()
    assert heading.split() == [
        "backend",
        "worker",
        "python",
        "host",
        "pid",
        "start",
        "seconds",
    ]
    assert len(lines) == 1


def test_config_shows_values_and_sources(run: Run, tmp_path: Path) -> None:
    """In a form for programs, with nothing secret in it."""
    (tmp_path / "wren.toml").write_text("chunksize = 5\ncommit_after = inf")

    done = run("config", "--json", WREN_STORAGE="s3://me:canary@bucket")

    settings = json.loads(done.stdout, parse_constant=pytest.fail)
    assert done.returncode == 0
    assert settings["storage"]["value"] == "s3://***@bucket"
    assert settings["storage"]["source"] == "WREN_STORAGE"
    assert settings["chunksize"]["value"] == 5
    assert settings["chunksize"]["source"] == str(tmp_path / "wren.toml")
    assert settings["commit_after"]["value"] == "inf"
    assert settings["retries"]["source"] == "default"
    assert settings["retries"]["variable"] == "WREN_RETRIES"


def test_config_is_shown_as_a_table(run: Run) -> None:
    """In a form for people, with nothing secret in it."""
    done = run("config", WREN_STORAGE="s3://me:canary@bucket", WREN_BACKEND="gcp")

    assert "canary" not in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if "WREN_BACKEND" in line)
    assert line.split()[:3] == ["backend", "gcp", "WREN_BACKEND"]


@pytest.mark.parametrize("command", ["config", "hello", "clean"])
def test_a_wrong_configuration_is_no_failure_of_a_backend(
    command: str, run: Run
) -> None:
    """Exit code 2 and one line that says what is wrong."""
    done = run(command, WREN_RETRY="3")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("wren: unknown environment variable WREN_RETRY (did")
    assert done.stderr.count("\n") == 1


def test_doctor_finds_a_sound_set_up_sound(run: Run) -> None:
    """A newcomer's first command, without any configuration."""
    done = run("doctor")

    assert done.returncode == 0, done.stdout + done.stderr
    assert all(line.startswith("ok ") for line in done.stdout.splitlines())


def test_doctor_says_what_mends_a_fault(run: Run) -> None:
    """And exits with 1, so that a script can ask it."""
    done = run("doctor", "--json", "--storage", "nope:")

    report = json.loads(done.stdout)
    assert done.returncode == 1
    assert report["ok"] is False
    (failed,) = (check for check in report["checks"] if not check["ok"])
    assert failed["name"] == "storage: put and get"
    assert "unknown storage scheme 'nope'" in failed["detail"]
    assert failed["fix"]


def test_doctor_shows_what_mends_a_fault(run: Run) -> None:
    """Under the fault."""
    done = run("doctor", "--backend", "nope")

    lines = done.stdout.splitlines()
    assert done.returncode == 1
    (fault,) = (n for n, line in enumerate(lines) if "backend: start" in line)
    assert lines[fault].startswith("FAILED")
    assert lines[fault + 1].strip().startswith("fix: ")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with one object of a fresh job, and one of a job of last month."""
    root = tmp_path / "store"
    code = (
        "import sys, anyio\n"
        "from wren.config import Settings\n"
        "from wren.registry import open_storage\n"
        "async def main():\n"
        "    storage = open_storage(sys.argv[1], Settings())\n"
        "    await storage.put('wren/jobs/old/in/0', b'12345')\n"
        "    await storage.put('wren/jobs/new/in/0', b'12345')\n"
        "anyio.run(main)\n"
    )
    subprocess.run([sys.executable, "-c", code, root.as_uri()], check=True, timeout=30)
    then = time.time() - 30 * 24 * 3600
    for path in root.rglob("*"):
        if path.is_file() and "old" in path.parts:
            os.utime(path, (then, then))
    return root


def objects(root: Path) -> set[str]:
    return {
        job
        for job in ("old", "new")
        for path in root.rglob("*")
        if path.is_file() and job in path.parts
    }


def test_clean_removes_old_jobs_only(run: Run, store: Path) -> None:
    """A job of another driver that still runs must not lose anything."""
    done = run("clean", "--json", WREN_STORAGE=store.as_uri())

    document: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert [(job["id"], job["bytes"]) for job in document["jobs"]] == [("old", 5)]
    assert objects(store) == {"new"}


def test_clean_needs_no_storage(run: Run, tmp_path: Path) -> None:
    """What the local backend stores lies with its session."""
    done = run("clean", "--json", TMPDIR=str(tmp_path))

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["jobs"] == []


def test_a_dry_run_removes_nothing(run: Run, store: Path) -> None:
    """And says what would go."""
    done = run("clean", "--dry-run", "--storage", store.as_uri())

    assert (done.returncode, done.stdout.split()[:2]) == (0, ["job", "old"])
    assert "1 jobs and" in done.stderr
    assert "would be removed" in done.stderr
    assert objects(store) == {"old", "new"}


def test_the_age_is_chosen(run: Run, store: Path) -> None:
    """Old is what the user says it is."""
    done = run("clean", "--older-than", "5w", "--storage", store.as_uri())

    assert done.stdout == ""
    assert objects(store) == {"old", "new"}


@pytest.mark.parametrize("age", ["7", "d", "-1d", "7y", ""])
def test_an_age_has_a_unit(age: str, run: Run) -> None:
    """Seven seconds instead of seven days would be a costly mistake."""
    done = run("clean", f"--older-than={age}")

    assert done.returncode == 2
    assert "12h or 7d" in done.stderr


@pytest.mark.parametrize("command", [["config"], ["config", "--json"], ["doctor"]])
def test_a_reader_that_leaves_ends_the_command_quietly(
    command: list[str], tmp_path: Path
) -> None:
    """As with every other program in a pipe."""
    reader, writer = os.pipe()
    os.close(reader)

    done = subprocess.run(
        [sys.executable, "-m", "wren", *command],
        cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path), "PYTHONUNBUFFERED": ""},
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=50,
        check=False,
    )

    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_process_without_output_fails(tmp_path: Path) -> None:
    """Descriptor 1 may then be anything that was opened since."""
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {sys.executable} -m wren config >&-"],
        cwd=tmp_path,
        env=os.environ | {"HOME": str(tmp_path)},
        stderr=subprocess.PIPE,
        timeout=50,
        check=False,
    )

    assert (done.returncode, done.stderr) == (1, b"")


def give(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Callable[[], int]:
    """Make a command that raises."""

    async def fail(_: Namespace) -> int:
        raise error

    def configure(_: ArgumentParser) -> None: ...

    monkeypatch.setattr(cli, "COMMANDS", (Command("fail", "", configure, fail),))
    return lambda: cli.main(["fail"])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (wren.ConfigurationError("because"), 2),
        (wren.CredentialsError("because"), 2),
        (wren.ComputeError("because"), 1),
    ],
)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_exit_code_says_whose_fault_it_is(
    error: Exception,
    code: int,
    depth: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """However many task groups the error has passed."""
    for _ in range(depth):
        error = ExceptionGroup("several", [ValueError(), error])

    assert give(monkeypatch, error)() == code
    assert capsys.readouterr() == ("", "wren: because\n")


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), ExceptionGroup("several", [ZeroDivisionError()])]
)
def test_a_bug_keeps_its_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no message for users but a report for us."""
    with pytest.raises(type(error)):
        give(monkeypatch, error)()


def test_a_second_signal_ends_what_is_stuck(tmp_path: Path) -> None:
    """Cleaning up may hang on a dead network; the user need not."""
    program = (
        "import sys, anyio\n"
        "from wren import cli\n"
        "from wren.cli_common import Command\n"
        "async def stuck(args):\n"
        "    with anyio.CancelScope(shield=True):\n"
        "        print('ready', flush=True)\n"
        "        await anyio.sleep_forever()\n"
        "cli.COMMANDS = (Command('stuck', '', lambda parser: None, stuck),)\n"
        "sys.exit(cli.main(['stuck']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()

        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)

        assert process.wait(30) in (130, 143)
