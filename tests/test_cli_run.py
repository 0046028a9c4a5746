"""``wren run`` as a shell runs it: real processes, pipes, terminals and signals."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import uuid
from collections.abc import Callable, Generator
from pathlib import Path
from subprocess import PIPE, CompletedProcess, Popen
from typing import IO, Any, TypeAlias

import pytest

Run: TypeAlias = Callable[..., CompletedProcess[bytes]]
Start: TypeAlias = Callable[..., "Popen[bytes]"]

TASKS = """
import asyncio
import os
import time


def length(line):
    return len(line)


def same(value):
    return value


def add(first, second):
    return first + second


async def later(line):
    await asyncio.sleep(0)
    return line.upper()


def loud(line):
    print("printed", line)
    os.write(1, b"written")
    return line


def number(line):
    return int(line)


def odd(line):
    return {"set": {1}, "nan": float("nan"), "key": {(1, 2): 3}}[line]


def wait(line):
    if line == "wait":
        time.sleep(1000)
    return os.getpid()


def refuse(line):
    from wren.errors import ConfigurationError

    raise ConfigurationError("not here")


limit = 3
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """No settings, two workers, and a mark by which descendants are known."""
    (tmp_path / "tasks.py").write_text(TASKS)
    outside = {k: v for k, v in os.environ.items() if not k.startswith("WREN_")}
    ours = {"HOME": str(tmp_path), "WREN_CONCURRENCY": "2", "MARK": uuid.uuid4().hex}
    return outside | ours


@pytest.fixture
def run(tmp_path: Path, environment: dict[str, str]) -> Run:
    """Runs ``wren run`` on an input to its end."""

    def run(*arguments: str, data: bytes = b"") -> CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "wren", "run", *arguments],
            cwd=tmp_path,
            env=environment,
            input=data,
            capture_output=True,
            timeout=50,
            check=False,
        )

    return run


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str]) -> Generator[Start]:
    """Starts ``wren run`` in a process group of its own."""
    started: list[Popen[bytes]] = []

    def start(
        *arguments: str,
        stdin: Any = PIPE,
        stdout: Any = PIPE,
        stderr: Any = PIPE,
        preexec_fn: Callable[[], Any] | None = None,
    ) -> Popen[bytes]:
        process = Popen(
            [sys.executable, "-m", "wren", "run", *arguments],
            cwd=tmp_path,
            env=environment,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            preexec_fn=preexec_fn,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
        for stream in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()


def documents(output: bytes) -> list[Any]:
    return [
        json.loads(line, parse_constant=pytest.fail) for line in output.splitlines()
    ]


def marked(environment: dict[str, str]) -> list[int]:
    """Return the processes that were started with this environment."""
    mark = f"MARK={environment['MARK']}".encode()
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def all_end(handles: list[int]) -> bool:
    """Wait for the processes behind these handles; False if one lives on."""
    poll = select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN)
    while handles:
        ready = poll.poll(10_000)
        if not ready:
            return False
        for handle, _ in ready:
            poll.unregister(handle)
            handles.remove(handle)
            os.close(handle)
    return True


def test_a_function_is_applied_to_every_line(run: Run) -> None:
    """Results in the order of the input, one JSON document a line."""
    data = b"".join(b"x" * (n % 50) + b"\n" for n in range(3000))

    done = run("tasks:length", data=data)

    assert done.returncode == 0, done.stderr
    assert documents(done.stdout) == [n % 50 for n in range(3000)]
    assert done.stderr == b""


def test_a_file_is_read(run: Run, tmp_path: Path) -> None:
    """As it was written on any system: byte order mark, carriage returns, no end."""
    (tmp_path / "input.txt").write_bytes("\ufeffä\r\n\r\nend".encode())

    done = run("tasks:same", "input.txt")

    assert done.stdout.decode() == '"ä"\n""\n"end"\n'


def test_nothing_in_nothing_out(run: Run) -> None:
    """An empty input is no error."""
    done = run("tasks:same")

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("option", ["--json-lines", "--jsonl"])
def test_lines_can_be_json(option: str, run: Run) -> None:
    """What other programs write; blank lines are no documents."""
    values = [{"a": [1, 2.5, None]}, "text", True, None, 10**30]
    data = "\n\n".join(map(json.dumps, values)).encode()

    done = run("tasks:same", option, data=data)

    assert documents(done.stdout) == values


def test_arrays_can_be_arguments(run: Run) -> None:
    """Functions of several arguments need no wrapper."""
    done = run("tasks:add", "--star", data=b'[1, 2]\n["a", "b"]\n')

    assert documents(done.stdout) == [3, "ab"]


def test_a_coroutine_function_is_awaited(run: Run) -> None:
    """As everywhere in wren."""
    done = run("tasks:later", data=b"a\nb\n")

    assert documents(done.stdout) == ["A", "B"]


def test_what_a_function_prints_is_no_result(run: Run) -> None:
    """Standard output must stay JSON lines."""
    done = run("tasks:loud", data=b"a\nb\n")

    assert done.stdout == b'"a"\n"b"\n'


def test_the_first_failure_ends_the_run(run: Run) -> None:
    """Its line is named, its traceback shown, and what came before it is there."""
    data = b"".join(b"%d\n" % n for n in range(20)) + b"twenty\n21\n"

    done = run("tasks:number", data=data)

    errors = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert documents(done.stdout) == list(range(20))
    assert errors[-1].startswith("wren: line 21: ValueError: invalid literal for int()")
    assert any('tasks.py", line' in line for line in errors)
    assert not any("cli_run.py" in line and "_collect" in line for line in errors)


def test_failures_can_stand_among_the_results(run: Run) -> None:
    """So that each line of the output belongs to one of the input."""
    done = run("tasks:number", "--keep-going", data=b"0\none\n2\n\n4\n")

    first, second, *rest = documents(done.stdout)
    assert done.returncode == 1
    assert first == 0
    assert second["line"] == 2
    assert second["error"]["type"] == "ValueError"
    assert "invalid literal" in second["error"]["message"]
    assert rest[0] == 2
    assert rest[1]["line"] == 4
    assert rest[2:] == [4]
    assert done.stderr == b"wren: 2 of 5 lines failed\n"


@pytest.mark.parametrize(
    ("arguments", "data", "message"),
    [
        (
            ["tasks:same", "--jsonl"],
            b"1\n\n{x}",
            "line 3: SerializationError: the line",
        ),
        (
            ["tasks:same", "--jsonl"],
            b"1\n\n{x}",
            "is not JSON: Expecting property name",
        ),
        (
            ["tasks:add", "--star"],
            b"[1, 2]\n{}",
            "line 2: SerializationError: the line is no",
        ),
        (
            ["tasks:same"],
            b"ok\n\xff\n",
            "line 2: SerializationError: the line is not UTF",
        ),
        (
            ["tasks:odd"],
            b"set",
            "line 1: SerializationError: the result cannot be JSON",
        ),
        (
            ["tasks:odd"],
            b"nan",
            "line 1: SerializationError: the result cannot be JSON",
        ),
        (
            ["tasks:odd"],
            b"key",
            "line 1: SerializationError: the result cannot be JSON",
        ),
    ],
)
def test_what_is_not_json_is_named_with_its_line(
    arguments: list[str], data: bytes, message: str, run: Run
) -> None:
    """One line of a million is wrong; which?"""
    done = run(*arguments, data=data)

    assert done.returncode == 1
    assert message in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_a_bad_line_can_stand_among_the_results(run: Run) -> None:
    """The same for what no function has seen."""
    done = run("tasks:same", "--jsonl", "--keep-going", data=b"1\n{x\n3\n")

    first, second, third = documents(done.stdout)
    assert (first, second["line"], third) == (1, 2, 3)
    assert second["error"]["type"] == "SerializationError"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere:f"], "no module named 'nowhere'"),
        (["tasks:lenght"], "did you mean length?"),
        (["tasks:limit"], "cannot be called"),
        (["tasks"], "expected module:function"),
        (["tasks:same", "no-such-file"], "no-such-file cannot be read: No such file"),
        (["tasks:same", "."], ". cannot be read: it is a directory"),
        (["tasks:same", "--backend", "lokal"], "did you mean local?"),
        (["tasks:same", "--concurrency", "0"], "concurrency = 0: expected a whole"),
        (["tasks:same", "--timeout", "soon"], "invalid float value: 'soon'"),
        ([], "required: MODULE:NAME"),
    ],
)
def test_a_wrong_command_line_is_explained(
    arguments: list[str], message: str, run: Run
) -> None:
    """Exit code 2, and nothing ran."""
    done = run(*arguments, data=b"1\n")

    assert (done.returncode, done.stdout) == (2, b"")
    assert message in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_results_come_as_lines_go(start: Start) -> None:
    """The end of a log is served while the log is written."""
    process = start("tasks:length")
    assert process.stdin is not None
    assert process.stdout is not None

    for size in (1, 3, 2):
        process.stdin.write(b"x" * size + b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"%d\n" % size
    process.stdin.close()

    assert process.wait(30) == 0


def test_a_reader_that_leaves_ends_an_endless_run(
    start: Start, environment: dict[str, str]
) -> None:
    """``yes | wren run … | head -1``: constant memory, no noise, no process left."""
    with Popen(["/usr/bin/yes"], stdout=PIPE) as endless:
        process = start("tasks:same", stdin=endless.stdout)
        assert endless.stdout is not None
        endless.stdout.close()
        assert process.stdout is not None
        first = process.stdout.readline()
        handles = [os.pidfd_open(pid) for pid in marked(environment)]
        process.stdout.close()
        code = process.wait(30)

    assert first == b'"y"\n'
    assert code == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert len(handles) > 1
    assert all_end(handles)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
)
def test_a_signal_stops_everything(
    number: signal.Signals, code: int, start: Start, environment: dict[str, str]
) -> None:
    """Ctrl-C reaches the whole group, `kill` the driver only; no process is left."""
    process = start("tasks:wait")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"go\n")
    process.stdin.flush()
    assert process.stdout.readline()
    process.stdin.write(b"wait\nwait\n")
    process.stdin.flush()
    handles = [os.pidfd_open(pid) for pid in marked(environment)]

    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)

    assert process.wait(30) == code
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert len(handles) > 1
    assert all_end(handles)
    assert marked(environment) == []


def test_ctrl_c_works_while_nobody_types(start: Start) -> None:
    """A terminal that stays silent must not hold the program."""
    keyboard, terminal = pty.openpty()
    process = start("tasks:same", stdin=terminal)
    os.close(terminal)
    assert process.stdout is not None
    os.write(keyboard, b"typed\n")
    assert process.stdout.readline() == b'"typed"\n'

    os.killpg(process.pid, signal.SIGINT)

    assert process.wait(30) == 130
    os.close(keyboard)


def test_ctrl_c_works_while_the_module_is_imported(
    start: Start, tmp_path: Path
) -> None:
    """Some modules take long; there is nothing to clean up yet."""
    (tmp_path / "slow.py").write_text(
        "print(1, flush=True)\nimport time\ntime.sleep(99)"
    )
    process = start("slow:f")
    assert process.stderr is not None
    process.stderr.readline()

    os.killpg(process.pid, signal.SIGINT)

    assert process.wait(30) == 130
    assert process.stderr.read() == b""


def test_a_slow_reader_gets_everything(start: Start) -> None:
    """Results wait, and then the input does."""
    count = 50_000
    process = start("tasks:same")
    assert process.stdin is not None
    assert process.stdout is not None
    feeder = threading.Thread(target=feed, args=(process.stdin, count))
    feeder.start()

    lines = [process.stdout.readline()]
    select.select([], [], [], 0.3)  # a reader that is busy with something else
    lines += process.stdout.readlines()

    feeder.join()
    assert process.wait(30) == 0
    assert lines == [b'"%d"\n' % n for n in range(count)]


def feed(pipe: IO[bytes], count: int) -> None:
    with contextlib.suppress(BrokenPipeError), pipe:
        pipe.writelines(b"%d\n" % n for n in range(count))


def test_what_ends_every_line_ends_the_run(run: Run) -> None:
    """A backend that does not start is no fault of a line, so none is blamed."""
    done = run("tasks:refuse", "--keep-going", data=b"1\n2\n")

    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"wren: not here\n"


def test_a_signal_that_is_ignored_stays_ignored(start: Start) -> None:
    """As ``nohup`` and shells without job control want it."""
    process = start(
        "tasks:same",
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"a\n")
    process.stdin.flush()
    assert process.stdout.readline() == b'"a"\n'

    process.send_signal(signal.SIGHUP)
    process.stdin.write(b"b\n")
    process.stdin.close()

    assert process.stdout.readline() == b'"b"\n'
    assert process.wait(30) == 0


def test_a_full_disk_is_told(run: Run, start: Start) -> None:
    """Not a traceback, and not success."""
    with Path("/dev/full").open("wb") as full:
        process = start("tasks:same", stdout=full)
        _, errors = process.communicate(b"a\n", timeout=50)

    assert process.returncode == 1
    assert errors == b"wren: standard output: No space left on device\n"


def on_terminal(start: Start, program: list[str], *, both: bool = False) -> bytes:
    """Return what a run shows whose standard error is a terminal, or both outputs."""
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    process = start(*program, stderr=terminal, stdout=terminal if both else PIPE)
    os.close(terminal)
    process.communicate(b"a\n" * 10, timeout=50)
    assert process.returncode == 0
    shown = b""
    try:
        while data := os.read(screen, 4096):
            shown += data
    except OSError:  # how a terminal ends
        os.close(screen)
    return shown


def test_a_terminal_shows_progress(start: Start) -> None:
    """How far it is; results go elsewhere."""
    pytest.importorskip("tqdm", reason="pip install tqdm")

    shown = on_terminal(start, ["tasks:same"])

    assert b"10 lines" in shown


def test_results_and_progress_share_a_terminal(start: Start) -> None:
    """The bar makes room for each result."""
    pytest.importorskip("tqdm", reason="pip install tqdm")

    shown = on_terminal(start, ["tasks:same"], both=True)

    lines = re.split(rb"[\r\n]", shown)
    assert lines.count(b'"a"') == 10
    assert b"10 lines" in shown


def test_without_tqdm_a_terminal_shows_nothing(start: Start, tmp_path: Path) -> None:
    """The bar is an extra; the command is not."""
    (tmp_path / "tqdm.py").write_text("raise ModuleNotFoundError(name='tqdm')")

    assert on_terminal(start, ["tasks:same"]) == b""
