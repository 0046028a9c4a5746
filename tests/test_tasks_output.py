"""What tasks print is passed on and remembered, whatever they do to the streams."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
import threading
import tracemalloc
from array import array
from collections.abc import Callable, Generator
from typing import Any, TextIO, cast

import pytest

from wren import tasks
from wren.errors import TaskTimeoutError
from wren.failures import dump_failure
from wren.tasks import TAIL, TaskRunner

# pytest-timeout's own way uses the signal that is tested here.
pytestmark = pytest.mark.timeout(60, method="thread")

SHORT = 0.05


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> TaskRunner:
    """A runner; afterwards the streams are as they were."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    return TaskRunner()


@pytest.fixture
def keep_descriptor() -> Generator[None]:
    """Put standard output's descriptor back."""
    kept = os.dup(1)
    yield
    os.dup2(kept, 1)
    os.close(kept)


@pytest.fixture
def logger() -> Generator[logging.Logger]:
    """A logger that a task has yet to set up."""
    logger = logging.getLogger("own")
    logger.propagate = False
    yield logger
    logger.handlers.clear()


def run(runner: TaskRunner, *functions: Callable[[], object]) -> str:
    """Run functions as the tasks of one request; return what is remembered."""
    outcome = runner.run(call, "item", list(functions), None)
    assert not outcome.failures
    return runner.output.take()


def call(function: Callable[[], object]) -> None:
    function()


def say(text: str) -> Callable[[], object]:
    return lambda: print(text)  # noqa: T201


def detach() -> None:
    stdout = cast("io.TextIOWrapper[Any]", sys.stdout)
    sys.stdout = io.TextIOWrapper(stdout.detach())


def rewrap() -> None:
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="latin-1")


def test_both_streams_are_passed_on_and_remembered(
    runner: TaskRunner, logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    """A person watching a local run sees it at once; a failure shows it later."""
    heard = run(
        runner,
        say("é\ud800"),
        lambda: sys.stderr.write("error\n"),
        lambda: sys.stdout.buffer.write(b"\xff\n"),
        lambda: logger.addHandler(logging.StreamHandler()),
        lambda: logger.warning("logged"),
    )

    assert heard == "é\\ud800\n\ufffd\nerror\nlogged\n"
    out, err = capfd.readouterr()
    assert out == "é\\ud800\n\ufffd\n"
    assert err == "error\nlogged\n"


def test_only_what_was_printed_since_is_remembered(runner: TaskRunner) -> None:
    """Each response tells of its own tasks."""
    assert run(runner, say("first")) == "first\n"
    assert run(runner, lambda: None) == ""
    assert run(runner, say("second")) == "second\n"


def test_a_line_that_has_not_ended_is_passed_on_in_the_end(
    runner: TaskRunner, capfd: pytest.CaptureFixture[str]
) -> None:
    """When it is flushed, as progress bars do, or with the request."""

    def unended() -> None:
        sys.stdout.write("10 %")
        assert capfd.readouterr().out == ""
        sys.stdout.flush()
        assert capfd.readouterr().out == "10 %"
        sys.stdout.write("20 %")

    assert run(runner, unended) == "10 %20 %"
    assert capfd.readouterr().out == "20 %"


def test_what_is_kept_of_endless_output_has_a_bound(
    runner: TaskRunner, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also where no line ever ends."""
    piece = "x" * 1000

    def chatty() -> None:
        for _ in range(5000):
            sys.stdout.write(piece)
        assert len(capfd.readouterr().out) > 4_900_000

    tracemalloc.start()
    try:
        outcome = runner.run(call, "item", [chatty], None)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert not outcome.failures
    assert kept < 1_000_000


@pytest.mark.parametrize("pieces", [1, 7, 5000])
def test_of_megabytes_the_tail_is_remembered(
    pieces: int, runner: TaskRunner, capfd: pytest.CaptureFixture[str]
) -> None:
    """All of it is passed on; what is kept has a bound."""
    piece = "x" * (4_000_000 // pieces)

    def chatty() -> None:
        for _ in range(pieces):
            sys.stdout.write(piece)
        sys.stdout.write("end\n")

    heard = run(runner, chatty)

    assert len(heard) == TAIL
    assert heard.endswith("xend\n")
    assert capfd.readouterr().out == piece * pieces + "end\n"


def test_writing_reports_bytes(runner: TaskRunner) -> None:
    """Libraries that write arrays count on it."""
    written: list[int] = []

    def binary() -> None:
        data = (b"ab", bytearray(b"cd"), array("I", [10, 10]), memoryview(b"e"))
        written.extend(sys.stdout.buffer.write(each) for each in data)

    heard = run(runner, binary)

    assert written == [2, 2, 8, 1]
    assert heard == "abcd\n\0\0\0\n\0\0\0e"


def test_text_is_not_bytes(runner: TaskRunner) -> None:
    """As with any binary file."""

    def confused() -> None:
        with pytest.raises(TypeError):
            cast("Any", sys.stdout.buffer).write("text")

    assert run(runner, confused) == ""


def test_the_descriptors_are_the_tasks_own(
    runner: TaskRunner, capfd: pytest.CaptureFixture[str]
) -> None:
    """Programs that it starts, and C code, write to the same place; not remembered."""

    def outside() -> None:
        os.write(1, b"from C\n")
        subprocess.run(["/bin/echo", "from a program"], stdout=sys.stdout, check=True)
        assert sys.stderr.fileno() == 2

    assert run(runner, outside) == ""
    assert capfd.readouterr().out == "from C\nfrom a program\n"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda: sys.stdout.close(),
        lambda: sys.stdout.buffer.close(),
        detach,
        rewrap,
    ],
    ids=["close", "close the buffer", "detach", "wrap again"],
)
def test_the_next_task_can_print_whatever_one_did(
    spoil: Callable[[], None], runner: TaskRunner
) -> None:
    """It shares a request with tasks that it knows nothing of."""

    def next_one() -> None:
        print("still here", flush=True)  # noqa: T201

    assert run(runner, say("before"), spoil, next_one) == "before\nstill here\n"
    assert run(runner, next_one) == "still here\n"


@pytest.mark.parametrize("stream", [io.StringIO(), None])
def test_streams_that_were_replaced_are_taken_back(
    stream: TextIO | None, runner: TaskRunner, logger: logging.Logger
) -> None:
    """With the next request. Logging that was set up before is heard again, too."""

    def replace() -> None:
        sys.stdout = sys.stderr = cast("TextIO", stream)

    run(runner, lambda: logger.addHandler(logging.StreamHandler()), replace)
    heard = run(runner, say("back"), lambda: logger.warning("logged"))
    assert heard == "back\nlogged\n"


@pytest.mark.usefixtures("keep_descriptor")
def test_without_its_descriptor_output_is_still_remembered(runner: TaskRunner) -> None:
    """A task that closes it does not make the others fail."""
    assert run(runner, lambda: os.close(1), say("lost")) == "lost\n"


@pytest.mark.usefixtures("keep_descriptor")
def test_a_timeout_while_printing_spoils_only_its_task(runner: TaskRunner) -> None:
    """Nobody reads a pipe, so a task waits there until its time is up."""
    _, writer = pipe = os.pipe()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(writer, 1)

    def one(order: str) -> None:
        while order == "endless":
            print("x" * 1000)  # noqa: T201
        os.dup2(null, 1)
        print("heard")  # noqa: T201

    outcome = runner.run(one, "item", ["endless", "next"], SHORT)
    heard = runner.output.take()
    for descriptor in (*pipe, null):
        os.close(descriptor)

    assert outcome.values == [None]
    assert isinstance(outcome.failures[0], TaskTimeoutError)
    assert heard.endswith("x\nheard\n")
    (_, _, text), _ = dump_failure(outcome.failures[0], inside=tasks.__file__)
    assert 'print("x" * 1000)' in text
    assert tasks.__file__ not in text


def test_threads_may_print_at_the_same_time(
    runner: TaskRunner, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each line arrives once and whole."""
    lines = [f"{number} {'x' * 50}" for number in range(2000)]

    def speak(start: int) -> None:
        for line in lines[start::8]:
            sys.stdout.write(f"{line}\n")

    def many() -> None:
        threads = [threading.Thread(target=speak, args=[n]) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    heard = run(runner, many)

    assert sorted(capfd.readouterr().out.splitlines()) == sorted(lines)
    assert len(heard) == TAIL


def test_a_signal_handler_may_print(
    runner: TaskRunner,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even if it interrupts a task that prints."""
    real = os.write
    signals = [signal.SIGUSR1]

    def handler(_number: int, _frame: object) -> None:
        print("signal")  # noqa: T201

    before = signal.signal(signal.SIGUSR1, handler)

    def interrupted(descriptor: int, data: bytes) -> int:
        if signals:
            signal.raise_signal(signals.pop())
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", interrupted)

    heard = run(runner, say("task"), say("next"))
    signal.signal(signal.SIGUSR1, before)

    assert heard.split() == ["task", "signal", "next"]
    assert sorted(capfd.readouterr().out.split()) == ["next", "signal", "task"]
