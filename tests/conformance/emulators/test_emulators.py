"""Each emulator serves this machine only, asks who calls, and dies with its owner."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from wren.config import load
from wren.conformance.emulators import emulator as emulator_module
from wren.conformance.emulators import gcs, s3
from wren.conformance.emulators.azurite import Certificate
from wren.conformance.emulators.catalogue import EMULATORS, entry
from wren.conformance.emulators.emulator import Emulator, PortTakenError, request
from wren.errors import ConfigurationError

Until = Callable[[Callable[[], bool]], None]
IsAlive = Callable[[int], bool]

SOCKET: Final = re.compile(r"socket:\[(\d+)]")
LISTENING: Final = "0A"
LOOPBACK: Final = {"0100007F", "00000000000000000000000001000000"}

OWNER = """
import json, signal, sys
from wren.conformance.emulators.catalogue import entry
with entry(sys.argv[1]).serve() as emulator:
    for process in emulator.processes:
        print(json.dumps([process.pid, str(process.directory)]), flush=True)
    print(flush=True)
    signal.pause()
"""


@pytest.fixture(params=EMULATORS)
def name(request: pytest.FixtureRequest) -> str:
    """Each of the emulators that there are."""
    found: str = request.param
    return found


@pytest.fixture
def emulator(request: pytest.FixtureRequest, name: str) -> Emulator:
    """The one that the whole run shares."""
    server: Emulator = request.getfixturevalue(f"{name}_server")
    return server


def group(leader: int) -> set[int]:
    """Return the processes of a group."""
    found: set[int] = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(text.rpartition(")")[2].split()[2]) == leader:
            found.add(int(stat.parent.name))
    return found


def addresses(pid: int) -> set[tuple[str, int]]:
    """Return where a process listens for TCP connections, as the kernel writes it."""
    links = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()]
    sockets = {match[1] for match in map(SOCKET.match, links) if match}
    found: set[tuple[str, int]] = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text(encoding="utf-8").splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in sockets:
                host, _, port = fields[1].partition(":")
                found.add((host, int(port, 16)))
    return found


def port_of(emulator: Emulator) -> int:
    """Return the port of the store."""
    for value in emulator.environment.values():
        if match := re.search(r"https?://127\.0\.0\.1:(\d+)", value):
            return int(match[1])
    raise AssertionError(emulator.environment)


def secrets_of(emulator: Emulator) -> set[str]:
    """Return what proves to the emulator who calls."""
    found: set[str] = set()
    for name, value in emulator.environment.items():
        if name == "GOOGLE_APPLICATION_CREDENTIALS":
            found.add(json.loads(Path(value).read_bytes())["private_key"])
        elif "KEY" in name:
            found.add(value)
        elif "CONNECTION_STRING" in name:
            found.update(re.findall(r"AccountKey=([^;]+)", value))
    assert found
    return found


def test_it_listens_on_this_machine_only(emulator: Emulator) -> None:
    """A laptop in a café must not serve the café."""
    found = {
        address
        for process in emulator.processes
        for pid in group(process.pid)
        for address in addresses(pid)
    }

    assert port_of(emulator) in {port for _, port in found}
    assert {host for host, _ in found} <= LOOPBACK


def test_its_url_is_a_setting(emulator: Emulator) -> None:
    """It is given to programs in ``WREN_STORAGE``."""
    assert load(storage=emulator.url).storage == emulator.url


def test_its_variables_are_whole(emulator: Emulator) -> None:
    """A variable is set or taken away, and what is set has a value."""
    assert all(emulator.environment.values())
    assert emulator.environment.keys() & set(emulator.unset) == set()


def test_it_asks_who_calls(emulator: Emulator) -> None:
    """Otherwise tests against it would show nothing about credentials and grants."""
    path = "/" + emulator.url.split("//")[1]
    headers = {"x-ms-blob-type": "BlockBlob"}  # Azurite looks at that first
    answer = request(port_of(emulator), "PUT", f"{path}/key", headers, b"data")

    assert answer is not None
    assert answer[0] in {401, 403}


def test_two_are_strangers(name: str, emulator: Emulator) -> None:
    """Two runs at the same time must not meet, not even by each other's credentials."""
    with entry(name).serve() as other:
        assert port_of(other) != port_of(emulator)
        assert secrets_of(other).isdisjoint(secrets_of(emulator))


@pytest.mark.usefixtures("emulator")
def test_it_does_not_outlive_a_killed_run(
    name: str, until: Until, is_alive: IsAlive, tmp_path: Path
) -> None:
    """The next run would find ports taken, memory used and disks full."""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", OWNER, name]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment
    ) as owner:
        assert owner.stdout is not None
        told = [json.loads(line) for line in iter(owner.stdout.readline, "\n")]
        pids = {pid for leader, _ in told for pid in group(leader)}
        assert all(Path(directory).is_dir() for _, directory in told)
        assert pids

        owner.send_signal(signal.SIGKILL)

    until(lambda: not any(map(is_alive, pids)))
    until(lambda: list(tmp_path.iterdir()) == [])


def test_a_port_that_was_taken_meanwhile_is_no_failure(
    s3_server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the choice of a port and the server's start, everybody may take it."""
    taken = port_of(s3_server)
    ports = iter([taken, taken])
    choose: Callable[[], int] = emulator_module.free_port
    monkeypatch.setattr(
        emulator_module, "free_port", lambda: next(ports, None) or choose()
    )

    with s3.serve() as server:
        assert port_of(server) != taken
    assert next(ports, None) is None


def test_ports_that_are_always_taken_are_a_failure(
    s3_server: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something else is wrong then, and the server's output says what."""
    monkeypatch.setattr(emulator_module, "free_port", lambda: port_of(s3_server))

    with pytest.raises(PortTakenError, match=r"in use|somebody else"), s3.serve():
        pass


def test_azurite_can_prove_who_it_is(
    azurite_oauth_server: Emulator, certificate: Certificate
) -> None:
    """Tokens of Entra ID are sent through HTTPS only."""
    port = port_of(azurite_oauth_server)
    trust = ssl.create_default_context(cafile=certificate.authority)

    assert request(port, "GET", "/", trust=ssl.create_default_context()) is None
    assert request(port, "GET", "/", trust=trust) is not None


def test_an_unknown_name_is_answered_with_those_known() -> None:
    """Names are short, and typed by hand."""
    with pytest.raises(ConfigurationError, match=r"emulator s33 .*did you mean s3"):
        entry("s33")


def test_the_gcs_server_is_installed_with_what_it_asks_for() -> None:
    """It cannot be imported here to be asked."""
    source = Path(gcs.__file__).with_name("gcs_server.py").read_text(encoding="utf-8")
    (found,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.AnnAssign)
        and ast.unparse(node.target) == "REQUIREMENTS"
    )
    assert found.value is not None

    assert gcs.RECIPES[0].python == ast.literal_eval(found.value)
