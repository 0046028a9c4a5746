"""A server process ends with its owner, however that ends, and leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

import pytest

from wren.conformance.emulators.errors import EmulatorError
from wren.conformance.emulators.process import ServerProcess

Until = Callable[[Callable[[], bool]], None]
IsAlive = Callable[[int], bool]

# Takes connections, has a child, and ignores SIGTERM as a stubborn server does.
STUBBORN = """
import json, os, signal, socket, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
listener = socket.create_server(("127.0.0.1", 0))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
open("left-here", "w").close()
print(json.dumps([listener.getsockname()[1], os.getpid(), child.pid]), flush=True)
while True:
    listener.accept()
"""

# Owns such a server: prints its directory and what it says, and waits to be killed.
OWNER = """
import json, os, signal, sys
from wren.conformance.emulators.process import ServerProcess
with ServerProcess("stubborn") as process:
    process.start([sys.executable, "-c", sys.argv[1]], {{}})
    said = process.wait_until(lambda: process.output() or None)
    {then}
    print(json.dumps([str(process.directory), *json.loads(said)]), flush=True)
    signal.pause()
"""


class Running(NamedTuple):
    """A server and its owner."""

    owner: subprocess.Popen[str]
    directory: Path
    port: int
    pids: tuple[int, ...]


@pytest.fixture
def owned(
    request: pytest.FixtureRequest, tmp_path: Path, until: Until, is_alive: IsAlive
) -> Generator[Running]:
    """A stubborn server whose owner is another process; all are gone afterwards."""
    then: str = getattr(request, "param", "pass")
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER.format(then=then), STUBBORN],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    with owner:
        assert owner.stdout is not None
        directory, port, *pids = json.loads(owner.stdout.readline())
        yield Running(owner, Path(directory), port, tuple(pids))
        owner.kill()
    until(lambda: not any(map(is_alive, pids)))


def refuses(port: int) -> bool:
    """Say whether nobody listens on a port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


def python(code: str) -> list[str]:
    """Return a command."""
    return [sys.executable, "-c", code]


def gone(running: Running, until: Until, is_alive: IsAlive) -> None:
    """Wait until nothing is left of a server."""
    until(lambda: not any(map(is_alive, running.pids)))
    until(lambda: refuses(running.port))
    until(lambda: not running.directory.exists())


def test_nothing_outlives_an_owner_that_is_killed(
    owned: Running, tmp_path: Path, until: Until, is_alive: IsAlive
) -> None:
    """A test run that is killed could clean up nothing itself."""
    assert (owned.directory / "left-here").exists()

    owned.owner.send_signal(signal.SIGKILL)

    gone(owned, until, is_alive)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "owned", ["if os.fork() == 0: signal.sigwait([signal.SIGUSR1])"], indirect=True
)
def test_a_forked_child_of_the_owner_keeps_no_server_alive(
    owned: Running, until: Until, is_alive: IsAlive
) -> None:
    """It inherits the pipe that the guard watches, and may itself be an orphan."""
    children = Path(f"/proc/{owned.owner.pid}/task/{owned.owner.pid}/children")
    forked = int(children.read_text(encoding="utf-8").split()[-1])
    try:
        owned.owner.send_signal(signal.SIGKILL)

        gone(owned, until, is_alive)
        assert is_alive(forked)
    finally:
        os.kill(forked, signal.SIGKILL)


def test_a_server_is_stopped_at_the_end_of_the_block(
    until: Until, is_alive: IsAlive
) -> None:
    """And so are its children; the port is free at once, and the directory gone."""
    with ServerProcess("demo") as process:
        process.start(python(STUBBORN), {})
        port, *pids = json.loads(process.wait_until(lambda: process.output() or None))
        directory = process.directory

    until(lambda: not any(map(is_alive, pids)))
    assert not directory.exists()
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_killed_guard_leaves_its_work_to_the_owner(
    until: Until, is_alive: IsAlive
) -> None:
    """Who kills processes by name, or for want of memory, may meet any of them."""
    with ServerProcess("demo") as process:
        process.start(python("import time; time.sleep(1000)"), {})
        stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8")
        os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
        server, directory = process.pid, process.directory

    until(lambda: not is_alive(server))
    assert not directory.exists()


def test_a_server_that_ends_early_is_reported_with_its_output() -> None:
    """The reason is known to the server alone."""
    with ServerProcess("demo") as process:
        process.start(python("print('no such flag'); raise SystemExit(3)"), {})

        with pytest.raises(EmulatorError, match=r"demo .* code 3.*\n.*no such flag"):
            process.wait_until(lambda: None)

        assert process.exit_code() == 3


def test_a_server_that_is_never_ready_is_reported_with_its_output() -> None:
    """The deadline is for servers that hang, and they may have said on what."""
    with ServerProcess("demo") as process:
        process.start(
            python("print('waiting', flush=True); import time; time.sleep(1000)"), {}
        )
        process.wait_until(lambda: process.output() or None)

        with pytest.raises(EmulatorError, match=r"not ready after 0.1 s.*\nwaiting"):
            process.wait_until(lambda: None, 0.1)


def test_a_program_that_cannot_be_run_is_reported() -> None:
    """As after half of an installation was deleted."""
    with ServerProcess("demo") as process:
        process.start(["/no/such/program"], {})

        with pytest.raises(EmulatorError, match="/no/such/program"):
            process.wait_until(lambda: None)


def test_readiness_of_a_server_that_has_ended_does_not_count(until: Until) -> None:
    """Then it was another process that answered, on a port that both wanted."""
    with ServerProcess("demo") as process:
        process.start(python("pass"), {})
        until(lambda: process.exit_code() is not None)

        with pytest.raises(EmulatorError, match="code 0"):
            process.wait_until(lambda: True)


def test_a_talkative_server_fills_no_disk() -> None:
    """What is kept is bounded, and is the end."""
    code = "for n in range(200_000): print('line', n)"
    with ServerProcess("demo") as process:
        process.start(python(code), {})
        with pytest.raises(EmulatorError):
            process.wait_until(lambda: None)

        output = process.output()

    assert 60_000 < len(output) < 400_000
    assert output.endswith("line 199999\n")


def test_a_server_gets_no_environment_but_its_own() -> None:
    """No credential of the user reaches it, nor any file below the user's home."""
    code = "import json, os; print(json.dumps(dict(os.environ)), flush=True)"
    with ServerProcess("demo") as process:
        process.start(python(code), {"GIVEN": "1"})
        with pytest.raises(EmulatorError):
            process.wait_until(lambda: None)
        seen = json.loads(process.output())
        directory = str(process.directory)

    assert seen.pop("LC_CTYPE", "C.UTF-8") == "C.UTF-8"  # Python adds it itself
    assert seen == {"GIVEN": "1", "HOME": directory, "TMPDIR": directory}


def test_its_end_can_be_awaited(until: Until) -> None:
    """A descriptor that becomes readable fits into every event loop."""
    with ServerProcess("demo") as process:
        process.start(python("import time; time.sleep(1000)"), {})
        assert process.exit_code() is None

        os.kill(process.pid, signal.SIGKILL)

        until(lambda: process.exit_code() is not None)
        assert process.exit_code() == -signal.SIGKILL


def test_a_stopped_server_says_so() -> None:
    """Rather than a file descriptor of something else."""
    with ServerProcess("demo") as process:
        pass
    process.stop()

    with pytest.raises(EmulatorError, match="stopped"):
        process.fileno()
    with pytest.raises(EmulatorError, match="not entered"):
        _ = ServerProcess("demo").directory
