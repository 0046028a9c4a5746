"""In whatever way an executor or its program ends, nothing of it is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import anyio
import pytest

import wren
from wren.backends.local.session import sweep
from wren.backends.local.zygote import children

Start: TypeAlias = Callable[..., subprocess.Popen[str]]
Ends: TypeAlias = Callable[[int], bool]
SessionOf: TypeAlias = Callable[[int], Path]


# --- executors that end in a program that goes on -------------------------------------


class Traces:
    """What this process has: children, descriptors and threads."""

    def __init__(self) -> None:
        self._before = self._now()

    def _now(self) -> Counter[str]:
        found = [f"child {pid}" for pid in children(os.getpid())]
        for entry in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # the one that lists them
                found.append(re.sub(r"\d+", "", str(entry.readlink())))
        names = [thread.name for thread in threading.enumerate()]
        pools = ("AnyIO", "Trio")  # which keep their threads for the next use
        found += [name for name in names if not name.startswith(pools)]
        return Counter(found)

    def new(self) -> list[str]:
        """Return what there was not before."""
        return list((self._now() - self._before).elements())


@pytest.fixture
async def traces(anyio_backend: str) -> Traces:
    """What there was before the test, the event loop included."""
    return Traces()


async def use(executor: wren.Executor, session_of: SessionOf) -> Path:
    """Use everything that could leave a trace; return the session directory."""

    def daemon(n: int) -> int:
        if os.fork() == 0:
            os.setsid()
            time.sleep(1000)
        return n

    blob = bytearray(3 << 20)
    sizes = await executor.map(lambda _: len(blob), range(4), chunksize=1)
    assert sizes == [3 << 20] * 4
    assert await executor.map(len, [bytes(1 << 20)] * 4) == [1 << 20] * 4
    assert await executor.map(daemon, range(4)) == list(range(4))
    session = session_of(await executor.submit(os.getppid))
    assert session.is_dir()
    return session


@pytest.mark.anyio
@pytest.mark.blocking  # starting an interpreter blocks the loop for a moment
class TestInAProgramThatGoesOn:
    """Processes, descriptors, threads and directories."""

    async def test_leaving_leaves_nothing(
        self, traces: Traces, session_of: SessionOf
    ) -> None:
        """Also when tasks are still running."""
        async with wren.Executor(concurrency=2) as executor:
            session = await use(executor, session_of)
            executor.map(lambda n: time.sleep(n), [1000] * 100)
            executor.submit(lambda: time.sleep(1000))
            await anyio.sleep(0.05)

        assert traces.new() == []
        assert not session.exists()

    async def test_an_exception_leaves_nothing(
        self, traces: Traces, session_of: SessionOf
    ) -> None:
        """It goes through as it is."""
        sessions: list[Path] = []

        async def program() -> None:
            async with wren.Executor(concurrency=2) as executor:
                sessions.append(await use(executor, session_of))
                executor.map(lambda n: time.sleep(n), [1000] * 100)
                raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            await program()

        assert traces.new() == []
        assert not sessions[0].exists()

    async def test_cancellation_leaves_nothing(
        self, traces: Traces, session_of: SessionOf
    ) -> None:
        """While results are awaited, and with work of every kind under way."""
        sessions: list[Path] = []
        with anyio.move_on_after(10) as scope:
            async with wren.Executor(concurrency=2) as executor:
                sessions.append(await use(executor, session_of))
                executor.submit(lambda: time.sleep(1000))
                scope.deadline = anyio.current_time() + 0.1
                await executor.map(lambda n: time.sleep(n), [1000] * 100)

        assert scope.cancelled_caught
        assert traces.new() == []
        assert not sessions[0].exists()

    async def test_cancellation_at_any_moment_of_the_start_leaves_nothing(
        self, traces: Traces
    ) -> None:
        """Before the first worker exists, while it starts, and just after."""
        for delay in (0, 0.001, 0.01, 0.03, 0.06, 0.1):
            with anyio.move_on_after(delay):
                async with wren.Executor(concurrency=2) as executor:
                    await executor.map(abs, range(1000))

        assert traces.new() == []

    async def test_an_executor_without_work_leaves_nothing(
        self, traces: Traces
    ) -> None:
        """Entered or not."""
        wren.Executor()
        async with wren.Executor():
            pass

        assert traces.new() == []

    async def test_closing_early_leaves_nothing(
        self, traces: Traces, session_of: SessionOf
    ) -> None:
        """At once, not only at the end of the block."""
        async with wren.Executor(concurrency=2) as executor:
            session = await use(executor, session_of)
            await executor.aclose()

            assert not any("child" in trace for trace in traces.new())
            assert not session.exists()

        assert traces.new() == []

    async def test_workers_that_come_and_go_leave_nothing(
        self, traces: Traces, session_of: SessionOf
    ) -> None:
        """Sockets and memory files go with each of them."""

        def exits(n: int) -> int:
            if n % 2:
                os._exit(1)
            return n

        async with wren.Executor(concurrency=2, retries=0, chunksize=1) as executor:
            await use(executor, session_of)
            during = Traces()
            await executor.map(exits, range(30), return_exceptions=True)
            await executor.map(len, [bytes(1 << 20)] * 4)

            assert len(during.new()) <= 4

        assert traces.new() == []

    async def test_a_job_leaves_nothing_in_storage(
        self,
        session_of: SessionOf,
        until: Callable[[Callable[[], bool]], Awaitable[None]],
    ) -> None:
        """An executor lives as long as the application; its jobs do not."""
        async with wren.Executor(concurrency=2) as executor:
            session = await use(executor, session_of)
            storage = session / "storage"

            await until(lambda: not any(map(Path.is_file, storage.rglob("*"))))

    @pytest.mark.parametrize("retries", [0, 2])
    async def test_a_new_zygote_takes_over(
        self, traces: Traces, session_of: SessionOf, retries: int
    ) -> None:
        """Tasks in flight are lost or retried, like those of any lost worker."""

        def slow(n: int) -> int:
            time.sleep(0.01)
            return n

        async with wren.Executor(concurrency=2, retries=retries) as executor:
            zygote = await executor.submit(os.getppid)
            job = executor.map(slow, range(40), chunksize=1, return_exceptions=True)
            await job[10]
            os.kill(zygote, signal.SIGKILL)
            results = await job

            lost = [n for n in range(40) if results[n] != n]
            assert len(lost) <= (0 if retries else 4)
            for n in lost:
                assert isinstance(results[n], wren.WorkerLostError)
            session = await use(executor, session_of)

        assert traces.new() == []
        assert not session.exists()


# --- programs that end ----------------------------------------------------------------

DRIVER = r"""
    import os, re, signal, sys, time
    from pathlib import Path

    import anyio
    import wren
    from wren.backends.local.zygote import children

    DAEMONS = {daemons}

    def hold(n):
        if DAEMONS and os.fork() == 0:
            os.setsid()
            time.sleep(1000)
        Path(f"{{n}}.runs").touch()
        time.sleep(1000)

    async def main():
        async with wren.Executor(concurrency=2) as executor:
            zygote = await executor.submit(os.getppid)
            await executor.map(len, [bytes(1 << 20)] * 4)
            blob = bytearray(3 << 20)
            job = executor.map(lambda n: hold(n) or len(blob), range(9), chunksize=1)
            while not (Path("0.runs").exists() and Path("1.runs").exists()):
                await anyio.sleep(0.01)
            workers = children(zygote)
            others = [pid for worker in workers for pid in children(worker)]
            command = Path(f"/proc/{{zygote}}/cmdline").read_text()
            session = re.search(r"main\('([^']+)'", command)[1]
            print(session, zygote, *workers, *others, flush=True)
            {end}

    anyio.run(main, backend=sys.argv[1])
    """


def started(
    start: Start, backend: str, end: str, *, daemons: bool = True
) -> tuple[subprocess.Popen[str], Path, list[int]]:
    """Start a driver and return it, its session and the processes that it has."""
    program = start(DRIVER.format(end=end, daemons=daemons), backend)
    assert program.stdout is not None
    session, *words = program.stdout.readline().split()
    assert len(words) == (5 if daemons else 3)
    return program, Path(session), [int(word) for word in words]


ENDS = {
    "SIGINT": -signal.SIGINT,
    "SIGTERM": -signal.SIGTERM,
    "SIGKILL": -signal.SIGKILL,
    "SIGHUP": -signal.SIGHUP,
    "os._exit": 5,
    "sys.exit": 6,
    "exception": 1,
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_program_that_ends_leaves_nothing(
    start: Start, ends: Ends, tmp_path: Path, backend: str, end: str
) -> None:
    """No worker, nothing that tasks started, no directory; by itself or by a signal."""
    code = {
        "os._exit": "os._exit(5)",
        "sys.exit": "sys.exit(6)",
        "exception": "raise LookupError",
    }.get(end, "await job")
    program, session, pids = started(start, backend, code)

    if end.startswith("SIG"):
        program.send_signal(signal.Signals[end])
    program.wait(20)

    assert program.returncode == ENDS[end]
    assert all(map(ends, pids))
    assert not session.exists()
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_second_ctrl_c_is_as_good_as_the_first(
    start: Start, ends: Ends, backend: str
) -> None:
    """An impatient user interrupts the cleaning up as well."""
    program, session, pids = started(start, backend, "await job")

    for _ in range(3):
        program.send_signal(signal.SIGINT)
    program.wait(20)

    assert all(map(ends, pids))
    assert not session.exists()


def test_what_is_left_when_all_is_killed_at_once_can_be_swept(
    start: Start, ends: Ends
) -> None:
    """Workers die with the zygote; the directory waits for the next `wren clean`."""
    program, session, pids = started(start, "asyncio", "await job", daemons=False)
    os.kill(program.pid, signal.SIGSTOP)
    os.kill(pids[0], signal.SIGKILL)
    program.kill()
    program.wait()

    assert all(map(ends, pids))
    assert session.exists()
    assert session in sweep(dry_run=True)
    sweep()
    assert not session.exists()


def test_few_descriptors_are_enough_for_many_tasks(start: Start) -> None:
    """2,000 requests, workers that die and large messages, with 64 descriptors."""
    program = start(
        """
        import os, resource
        import anyio
        import wren

        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

        def task(n):
            if n % 100 == 99:
                os._exit(1)
            return n

        async def main():
            async with wren.Executor(concurrency=8, retries=0) as executor:
                await executor.map(len, [bytes(200_000)] * 8)
                before = len(os.listdir("/proc/self/fd"))
                results = await executor.map(
                    task, range(2000), chunksize=1, return_exceptions=True
                )
                assert len(os.listdir("/proc/self/fd")) <= before + 8
                lost = [n for n, result in enumerate(results) if result != n]
                assert lost == list(range(99, 2000, 100)), lost

        anyio.run(main)
        print("done")
        """
    )
    assert program.communicate(timeout=50) == ("done\n", "")


def test_programs_that_fork_keep_their_executors_apart(start: Start) -> None:
    """The child has an executor of its own; the parent's goes on and closes."""
    program = start(
        """
        import os, sys, time, warnings
        import anyio
        import wren

        # Python 3.12 and later advise against what this does, with or without wren.
        warnings.simplefilter("ignore", DeprecationWarning)

        async def child():
            async with wren.Executor(concurrency=2) as executor:
                assert await executor.map(abs, range(-9, 0)) == list(range(9, 0, -1))

        async def main():
            async with wren.Executor(concurrency=2) as executor:
                zygote = await executor.submit(os.getppid)
                pid = os.fork()
                if pid == 0:
                    os.execv(sys.executable, [sys.executable, __file__, "child"])
                idle = os.fork()
                if idle == 0:
                    time.sleep(1000)
                assert os.waitpid(pid, 0)[1] == 0
                assert await executor.submit(os.getppid) == zygote
            os.kill(idle, 9)
            print("done")

        if sys.argv[1:] == ["child"]:
            anyio.run(child)
        else:
            anyio.run(child)
            pid = os.fork()
            if pid == 0:
                anyio.run(child)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            anyio.run(main)
        """
    )
    assert program.communicate(timeout=40) == ("done\n", "")
