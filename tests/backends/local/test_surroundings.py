"""What tasks find around them: no secret, no listener, and nothing of other tasks."""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import wren

pytestmark = pytest.mark.anyio

starts_workers = pytest.mark.blocking
"""Starting an interpreter blocks the loop for a moment."""

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "s3cret",
    "AWS_PROFILE": "s3cret",
    "GITHUB_TOKEN": "s3cret",
    "DATABASE_PASSWORD": "s3cret",
    "AZURE_STORAGE_CONNECTION_STRING": "s3cret",
    "GOOGLE_APPLICATION_CREDENTIALS": "s3cret",
    "WREN_STORAGE": "memory:",
    "WREN_TIMEOUT": "1000",
}


@starts_workers
async def test_no_secret_of_the_driver_is_in_a_workers_environment(
    anyio_backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor wren's settings; everything else is."""
    for name, value in {**SECRETS, "MY_SETTING": "kept"}.items():
        monkeypatch.setenv(name, value)

    def environments() -> tuple[dict[str, str], str]:
        parent = Path(f"/proc/{os.getppid()}/environ").read_text(errors="replace")
        return dict(os.environ), parent

    async with wren.Executor(concurrency=1) as executor:
        environment, parents = await executor.submit(environments)

    assert environment["MY_SETTING"] == "kept"
    assert environment["PATH"] == os.environ["PATH"]
    assert not environment.keys() & SECRETS.keys()
    assert "s3cret" not in parents + repr(environment)


@starts_workers
async def test_what_a_task_does_to_its_surroundings_is_undone(
    anyio_backend: str, tmp_path: Path
) -> None:
    """Directory, environment and standard streams, before the next request."""

    def look() -> tuple[str, dict[str, str], str]:
        return os.getcwd(), dict(os.environ), os.readlink("/proc/self/fd/1")  # noqa: PTH109, PTH115

    def disturb() -> None:
        os.chdir(tmp_path)
        os.environ["NEW"] = "1"
        del os.environ["PATH"]
        os.environ["HOME"] = "elsewhere"
        descriptor = os.open("output", os.O_CREAT | os.O_WRONLY)
        os.dup2(descriptor, 1)

    async with wren.Executor(concurrency=1) as executor:
        before = await executor.submit(look)
        await executor.submit(disturb)
        after = await executor.submit(look)

    assert after == before
    assert before[0] == os.getcwd()  # noqa: PTH109  # the driver's


@contextmanager
def odd_signals() -> Generator[None]:
    """Block and ignore signals in this thread, as some programs do."""
    blocked = {signal.SIGALRM, signal.SIGTERM, signal.SIGINT}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    ignored = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, ignored)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@starts_workers
async def test_signals_are_as_in_a_new_process(anyio_backend: str) -> None:
    """Whatever the driver blocks or ignores: time limits depend on it."""

    def look() -> tuple[set[int], dict[str, bool]]:
        mask = {int(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, [])}
        names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGCHLD", "SIGALRM", "SIGUSR1")
        default = {
            name: signal.getsignal(signal.Signals[name]) == signal.SIG_DFL
            for name in names
        }
        return mask, default

    with odd_signals():
        entered = wren.Executor(concurrency=1)
        await entered.__aenter__()
    try:
        mask, default = await entered.submit(look)
    finally:
        await entered.__aexit__(None, None, None)

    assert mask == set()
    assert all(default.values()), default


async def test_standard_input_is_empty(executor: wren.Executor) -> None:
    """A task that asks a question gets no answer, and does not take the driver's."""

    def ask() -> tuple[str, str]:
        return sys.stdin.read(), os.readlink("/proc/self/fd/0")  # noqa: PTH115

    assert await executor.submit(ask) == ("", os.devnull)


def listening() -> set[str]:
    """Return the inodes of all sockets that listen, from the kernel's tables."""
    inodes: set[str] = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        path = Path(f"/proc/net/{table}")
        if path.exists():
            rows = [line.split() for line in path.read_text().splitlines()[1:]]
            # 0A: listening; 07: a datagram socket that takes from anybody.
            inodes |= {row[9] for row in rows if row[3] in ("0A", "07")}
    rows = [row.split() for row in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return inodes | {row[6] for row in rows if int(row[3], 16) & 0x10000}


def sockets(pids: set[int]) -> set[str]:
    """Return the inodes of the sockets of some processes."""
    found: set[str] = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # the one that lists them
                found.update(re.findall(r"socket:\[(\d+)\]", str(entry.readlink())))
    return found


async def test_nothing_listens(executor: wren.Executor) -> None:
    """Nobody can connect to a worker: there is no address, and no port."""

    def processes() -> tuple[int, int]:
        time.sleep(0.05)
        return os.getpid(), os.getppid()

    found = await executor.map(lambda _: processes(), range(4), chunksize=1)
    ours = sockets({os.getpid(), *(pid for both in found for pid in both)})

    assert ours
    assert not ours & listening()


@starts_workers
async def test_nobody_else_can_read_what_is_stored(anyio_backend: str) -> None:
    """Whatever the umask: directories are 0700, files 0600, and all are this user's."""
    big = bytearray(3 << 20)

    def look(_: int) -> list[tuple[str, int, int]]:
        assert len(big)
        command = Path(f"/proc/{os.getppid()}/cmdline").read_text()
        (session,) = re.findall(r"main\('([^']+)'", command)
        paths = [Path(session), *Path(session).rglob("*")]
        kinds = [(path, path.stat()) for path in paths]
        return [(str(path), about.st_mode, about.st_uid) for path, about in kinds]

    umask = os.umask(0)
    try:
        async with wren.Executor(concurrency=2) as executor:
            (found, *_) = await executor.map(look, range(2), chunksize=1)
    finally:
        os.umask(umask)

    assert any(stat.S_ISREG(mode) for _, mode, _ in found)
    for path, mode, owner in found:
        allowed = 0o700 if stat.S_ISDIR(mode) else 0o600
        assert stat.S_IMODE(mode) == allowed, path
        assert owner == os.getuid()
