"""What the tests of the local backend share."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import textwrap
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

import wren
from wren.backends.local.zygote import children
from wren.envelope import REQUEST, RESPONSE, Buffer, decode, encode
from wren.serialize import dump, dump_many, load_many, pack_function
from wren.worker import versions

PATIENCE = 20.0


@pytest.fixture(scope="module")
async def executor(anyio_backend: str) -> AsyncGenerator[wren.Executor]:
    """Two workers, shared by the tests of a module."""
    async with wren.Executor(concurrency=2) as executor:
        yield executor


TASKS = 12
BAD = 7


@pytest.fixture(params=[1, TASKS], ids=["alone", "in a chunk"])
def chunksize(request: pytest.FixtureRequest) -> int:
    """Whether a bad task has its worker for itself or shares the request."""
    size: int = request.param
    return size


@pytest.fixture
def outcome(executor: wren.Executor) -> Callable[..., Awaitable[object]]:
    """Run a bad task among good ones; check these, and return what became of it.

    As `outcome(bad, chunksize, **options)`; it is number 7 of 12.
    """

    async def outcome(
        bad: Callable[[], object], chunksize: int, **options: Any
    ) -> object:
        def task(n: int) -> object:
            if n == BAD:
                return bad()
            sys.stdout.write(f"task {n}\n")
            return n

        with anyio.fail_after(40):
            results = await executor.map(
                task,
                range(TASKS),
                chunksize=chunksize,
                return_exceptions=True,
                **options,
            )
            assert await executor.submit(abs, -1) == 1

        bad_one = results.pop(BAD)
        assert results == [n for n in range(TASKS) if n != BAD]
        return bad_one

    return outcome


# --- requests -------------------------------------------------------------------------


@pytest.fixture(scope="session")
def ask() -> Callable[[Callable[[Any], Any], object], list[Buffer]]:
    """Make a request with one task: `ask(function, item)`."""

    def ask(function: Callable[[Any], Any], item: object) -> list[Buffer]:
        pickled = dump(function)
        identity, parts = pack_function(pickled, [], [None] * len(pickled.buffers))
        many = dump_many([item], dump)
        header: dict[str, Any] = {
            "versions": versions(),
            "function": identity,
            "function_inline": True,
            "call": "item",
        }
        if many.each is not None:
            header["each"] = many.each
        return encode(REQUEST, header, [parts, *many.frames])

    return ask


@pytest.fixture(scope="session")
def answer() -> Callable[[Buffer], list[Any]]:
    """Return the values in a response all of whose tasks returned."""

    def answer(response: Buffer) -> list[Any]:
        header, buffers = decode(response, RESPONSE)
        assert not header.keys() & {"refused", "failures", "stored"}
        values, failures = load_many(buffers, header.get("each"))
        assert not failures
        return values

    return answer


# --- processes ------------------------------------------------------------------------


@pytest.fixture(scope="session")
def ends() -> Callable[[int], bool]:
    """Wait until a process has ended; False if it goes on and on."""

    def ends(pid: int) -> bool:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            return bool(poll.poll(PATIENCE * 1000))
        finally:
            os.close(descriptor)

    return ends


@pytest.fixture(scope="session")
def session_of() -> Callable[[int], Path]:
    """Return the session directory that a zygote was started with."""

    def session_of(zygote: int) -> Path:
        command = Path(f"/proc/{zygote}/cmdline").read_text()
        found = re.search(r"main\('([^']+)'", command)
        assert found is not None
        return Path(found[1])

    return session_of


@pytest.fixture(scope="session")
def own_children() -> Callable[[], set[int]]:
    """Return the children of this process."""
    return lambda: set(children(os.getpid()))


@pytest.fixture(scope="session")
def own_descriptors() -> Callable[[], int]:
    """Count the open descriptors of this process."""
    return lambda: len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # pathlib opens more


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Wait until something is true that another process brings about."""

    async def until(true: Callable[[], bool]) -> None:
        with anyio.fail_after(PATIENCE):
            while not true():  # noqa: ASYNC110  # the other process sets no event
                await anyio.sleep(0.005)

    return until


# --- programs -------------------------------------------------------------------------


@pytest.fixture
def start(tmp_path: Path) -> Generator[Callable[..., subprocess.Popen[str]]]:
    """Start a program: `start(source, *arguments)`; it is killed at the test's end.

    It has a process group and a directory of temporary files for itself.
    """
    started: list[subprocess.Popen[str]] = []
    (tmp_path / "temporary").mkdir()

    def start(source: str, *arguments: str) -> subprocess.Popen[str]:
        program = tmp_path / f"program{len(started)}.py"
        program.write_text(textwrap.dedent(source))
        process = subprocess.Popen(
            [sys.executable, str(program), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "TMPDIR": str(tmp_path / "temporary")},
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Sequence[str], dict[str, str]], str]:
    """Run Python with arguments in a folder of files; return what it prints."""

    def run(arguments: Sequence[str], files: dict[str, str]) -> str:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=40,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run
