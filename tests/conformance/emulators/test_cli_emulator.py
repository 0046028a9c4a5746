"""``wren emulator`` as a shell runs it: its output, its signals, its exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from subprocess import PIPE, CompletedProcess, Popen
from typing import TypeAlias

import pytest

from wren.conformance.emulators.emulator import request as send

Until: TypeAlias = Callable[[Callable[[], bool]], None]
IsAlive: TypeAlias = Callable[[int], bool]
Start: TypeAlias = Callable[..., "Popen[str]"]
Run: TypeAlias = Callable[..., "CompletedProcess[str]"]

pytestmark = pytest.mark.usefixtures("s3_server")  # skips where it is not installed

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
ON_SIGNAL = """
import signal, sys
signal.signal(signal.{name}, lambda number, frame: sys.exit(5))
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A user who has a cloud account, and does not want its data touched."""
    (tmp_path / "tmp").mkdir()
    return os.environ | {
        "AWS_ACCESS_KEY_ID": "of-the-user",
        "AWS_PROFILE": "production",
        "AWS_SESSION_TOKEN": "of-the-user",
        "TMPDIR": str(tmp_path / "tmp"),
    }


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """Runs ``wren emulator`` to its end."""

    def run(*arguments: str, **variables: str) -> CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "wren", "emulator", *arguments],
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    return run


@pytest.fixture
def start(environment: dict[str, str]) -> Generator[Start]:
    """Starts ``wren emulator`` in a session of its own, without a terminal."""
    started: list[Popen[str]] = []

    def start(*arguments: str) -> Popen[str]:
        process = Popen(
            [sys.executable, "-m", "wren", "emulator", *arguments],
            env=environment,
            stdout=PIPE,
            stderr=PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def served(process: Popen[str]) -> dict[str, str]:
    """Return the variables that ``wren emulator NAME`` prints, once it has."""
    assert process.stdout is not None
    found: dict[str, str] = {}
    while "WREN_STORAGE" not in found:
        line = process.stdout.readline()
        assert line, "it ended"
        if match := re.fullmatch(r"export (\w+)=(.*)\n", line):
            found[match[1]] = match[2]
    return found


def port_in(variables: dict[str, str]) -> int:
    """Return the server's port."""
    return int(variables["AWS_ENDPOINT_URL_S3"].rpartition(":")[2])


def test_a_command_finds_the_servers(run: Run) -> None:
    """And nothing of the user's own account, for which its keys would be wrong."""
    done = run("s3", "--", sys.executable, "-c", SHOW)

    assert (done.returncode, done.stderr) == (0, "")
    seen = json.loads(done.stdout)
    assert seen["WREN_STORAGE"] == "s3://wren"
    assert seen["AWS_ENDPOINT_URL_S3"].startswith("http://127.0.0.1:")
    assert seen["AWS_ACCESS_KEY_ID"] != "of-the-user"
    assert seen.keys() & {"AWS_PROFILE", "AWS_SESSION_TOKEN"} == set()
    assert seen["PATH"] == os.environ["PATH"]


def test_the_servers_are_gone_after_the_command(run: Run, tmp_path: Path) -> None:
    """The next line of a script can start them anew, or use the memory."""
    done = run("s3", "--", sys.executable, "-c", SHOW)

    assert send(port_in(json.loads(done.stdout)), "GET", "/") is None
    assert list((tmp_path / "tmp").iterdir()) == []


def test_its_exit_code_is_the_commands(run: Run) -> None:
    """So that it can stand before any command of a script."""
    assert run("s3", "--", sys.executable, "-c", "raise SystemExit(7)").returncode == 7
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run("s3", "--", sys.executable, "-c", killed).returncode == 128 + 9


def test_the_commands_own_options_are_its_own(run: Run) -> None:
    """Also those that wren would know, and a second ``--``."""
    show = "import sys; print(sys.argv[1:])"

    done = run("s3", "--", sys.executable, "-c", show, "--json", "-h", "--", "last")

    assert done.stdout == "['--json', '-h', '--', 'last']\n"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_signals_are_the_commands(name: str, start: Start, tmp_path: Path) -> None:
    """It may have more to clear up than wren, and says itself how it ended."""
    process = start("s3", "--", sys.executable, "-c", ON_SIGNAL.format(name=name))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    process.send_signal(signal.Signals[name])

    assert process.wait(30) == 5
    assert list((tmp_path / "tmp").iterdir()) == []


def test_without_a_command_it_serves_until_a_signal(
    start: Start, tmp_path: Path
) -> None:
    """A shell takes over what is printed, and uses the server for as long."""
    process = start("s3")
    variables = served(process)
    assert variables["WREN_STORAGE"] == "s3://wren"
    assert send(port_in(variables), "GET", "/_ministack/health") is not None

    process.send_signal(signal.SIGINT)

    assert process.wait(30) == 130
    assert send(port_in(variables), "GET", "/") is None
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_shell_takes_over_what_is_printed(start: Start) -> None:
    """Every line is a command that it knows, values quoted."""
    process = start("s3")
    assert process.stdout is not None
    lines: list[str] = []
    while not any("WREN_STORAGE" in line for line in lines):
        lines.append(process.stdout.readline())

    done = subprocess.run(
        ["/bin/sh", "-euc", f"{''.join(lines)}\nenv"],
        env={"AWS_PROFILE": "production"},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert "AWS_PROFILE" not in done.stdout
    assert "\nWREN_STORAGE=s3://wren\n" in f"\n{done.stdout}"


def test_json_is_for_programs(start: Start) -> None:
    """One document, complete before anything else happens."""
    process = start("s3", "--json")
    assert process.stdout is not None
    text = ""
    while not text.endswith("\n}\n"):
        text += process.stdout.readline()

    told = json.loads(text)
    assert told["environment"]["WREN_STORAGE"] == "s3://wren"
    assert "AWS_PROFILE" in told["unset"]


def test_a_server_that_dies_is_a_failure(start: Start) -> None:
    """Whoever waits for the emulator learns that there is none."""
    process = start("s3")
    mark = f"GATEWAY_PORT={port_in(served(process))}".encode()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            found = mark in environ.read_bytes().split(b"\0")
        except OSError:
            continue
        if found:
            os.kill(int(environ.parent.name), signal.SIGKILL)

    assert process.wait(30) == 1
    assert process.stderr is not None
    assert "the s3 server ended with exit code -9" in process.stderr.read()


def test_nothing_outlives_a_killed_command_line(
    start: Start, tmp_path: Path, until: Until
) -> None:
    """There is no clean-up that SIGKILL would wait for."""
    process = start("s3")
    port = port_in(served(process))

    process.kill()

    until(lambda: send(port, "GET", "/") is None)
    until(lambda: list((tmp_path / "tmp").iterdir()) == [])


def test_what_is_not_installed_is_answered_with_the_command(
    run: Run, tmp_path: Path
) -> None:
    """That message is where most people learn of it."""
    empty = {"XDG_CACHE_HOME": str(tmp_path / "cache")}

    done = run("s3", "--", "true", **empty)

    assert done.returncode == 2
    assert done.stderr.endswith("not installed: wren emulator install s3\n")
    listed = run("list", "--json", **empty)
    assert {row["installed"] for row in json.loads(listed.stdout)} == {False}


def test_what_is_installed_is_listed(run: Run) -> None:
    """With a word on what each stands in for."""
    done = run("list")

    assert re.search(r"(?m)^s3 +installed +Amazon S3", done.stdout)


def test_installing_what_is_there_says_where(run: Run) -> None:
    """And is quick, so that scripts can begin with it."""
    done = run("install", "s3")

    assert (done.returncode, done.stderr) == (0, "")
    name, version, path = done.stdout.split()
    assert (name, version) == ("s3", Path(path).name.split("-")[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("install", "s33"), "unknown emulator s33 (did you mean s3?)"),
        (("s3", "--", "/no/such/command"), "/no/such/command: No such file"),
        (("s3", "--json", "--", "true"), "--json is for an emulator without a command"),
        (("s33",), "invalid choice: 's33'"),
        ((), "required: NAME"),
    ],
)
def test_a_wrong_command_line_is_answered(
    run: Run, arguments: tuple[str, ...], message: str
) -> None:
    """With what is wrong about it, on one line, and exit code 2."""
    done = run(*arguments)

    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
