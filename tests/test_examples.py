"""Every example runs as its reader would run it, and does what its docstring says."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

import anyio
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
TESTED = {
    "word_count",
    "monte_carlo",
    "endless_stream",
    "web_service",
    "sqlite_storage",
}
ALL_CORES: dict[str, str] = {}


def run(name: str, *arguments: str | Path, environment: dict[str, str]) -> str:
    """Run an example to its end and return what it prints."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def numbers(text: str, pattern: str) -> list[float]:
    """Return the numbers in the groups of the one place where a pattern matches."""
    (match,) = re.finditer(pattern, text)
    return [float(group.replace(",", "")) for group in match.groups()]


def test_no_example_is_left_out() -> None:
    """An example that nothing runs is wrong sooner or later."""
    assert {path.stem for path in EXAMPLES.glob("*.py")} == TESTED


def test_sqlite_storage_keeps_files(tmp_path: Path) -> None:
    """Two runs on one database: the second still has what the first one stored."""
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_text(name * 1000)
    database = tmp_path / "objects.db"

    run("sqlite_storage", database, tmp_path / "b.txt", environment={})
    listed = run("sqlite_storage", database, tmp_path / "a.txt", environment={})

    assert listed.split() == ["5,000", "a.txt", "5,000", "b.txt"]


def test_word_count_counts_the_standard_library() -> None:
    """The main job of the README: every file read, every word counted once."""
    root = Path(sysconfig.get_path("stdlib"))
    word = re.compile(r"[^\W\d_]+")
    expected: Counter[str] = Counter()
    files = 0
    for path in root.rglob("*.py"):
        if not {"site-packages", "dist-packages"} & {*path.relative_to(root).parts}:
            expected.update(word.findall(path.read_text("utf-8", errors="replace")))
            files += 1

    output = run("word_count", environment=ALL_CORES)

    words, different = numbers(output, r"([\d,]+) words, ([\d,]+) of them different")
    assert (words, different) == (expected.total(), len(expected))
    assert numbers(output, r"([\d,]+) files,") == [files]
    top = re.findall(r"^ *([\d,]+)  (\w+)$", output, re.MULTILINE)
    assert [int(n.replace(",", "")) for n, _ in top] == [
        n for _, n in expected.most_common(10)
    ]


def test_word_count_takes_any_folder(tmp_path: Path) -> None:
    """Newcomers try it on files of their own first."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.md").write_text("to be or not", encoding="utf-8")
    (tmp_path / "deep" / "b.md").write_text("to be", encoding="utf-8")
    (tmp_path / "c.txt").write_text("ignored", encoding="utf-8")

    output = run("word_count", tmp_path, "*.md", environment=ALL_CORES)

    assert "6 words, 4 of them different" in output
    assert "2 files" in output


def test_word_count_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """A misspelt folder is an error, not a count of nothing."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "word_count.py"), str(tmp_path / "none")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == 2
    assert "no such folder" in done.stderr


def test_monte_carlo_is_right_and_reproducible() -> None:
    """The seed decides the result, not the number of workers."""
    pytest.importorskip("numpy", reason="pip install numpy")
    arguments = ("--paths", "400000", "--batch", "50000")

    one, two = (
        run("monte_carlo", *arguments, environment={"WREN_CONCURRENCY": workers})
        for workers in ("1", "2")
    )

    assert one == two
    price, error = numbers(one, r"simulated +([\d.]+) \+- ([\d.]+)")
    (exact,) = numbers(one, r"exact +([\d.]+)")
    assert 0 < error < 0.1
    assert abs(price - exact) < 5 * error


def test_endless_stream_stops_at_the_first_hit_in_constant_memory() -> None:
    """Results come in input order, so the hit is the first; and nothing piles up.

    The search is several times as long as the buffer, which must fill and drain.
    """
    first, buffer = 1_332_954, 500  # the number is what a plain loop finds

    output = run(
        "endless_stream",
        *("--text", "troglodytes ", "--bits", "20"),
        environment={"WREN_BUFFER": str(buffer)},
    )

    assert hashlib.sha256(f"troglodytes {first}".encode()).digest() < b"\0\0\x10"
    assert f"sha256('troglodytes {first}') begins with 20 zero bits" in output
    searched, ahead = numbers(output, r"([\d,]+) blocks searched, ([\d,]+) more")
    assert searched == first // 500 + 1
    assert ahead <= buffer
    (grown,) = numbers(output, r"memory grew by ([\d.]+) MiB")
    assert grown < 5


@pytest.fixture
def service() -> Generator[int]:
    """Start the web service as a program, yield its port, and stop it like a user."""
    pytest.importorskip("starlette", reason="pip install starlette")
    pytest.importorskip("uvicorn", reason="pip install uvicorn")
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / "web_service.py"), "--port", "0"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr
        try:
            yield _port(process.stderr)
        finally:
            process.send_signal(signal.SIGINT)
            errors = process.stderr.read()
    assert "Application shutdown complete" in errors
    assert "Traceback" not in errors


def _port(log: IO[str]) -> int:
    seen: list[str] = []
    for line in log:
        seen.append(line)
        if match := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
            return int(match[1])
    raise AssertionError("".join(seen))


async def ask(port: int, path: str) -> tuple[int, Any]:
    """Send one request over a real socket and return status and decoded answer."""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        await stream.send(request.encode())
        answer = b"".join([part async for part in stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.anyio
async def test_web_service_answers_while_it_computes(service: int) -> None:
    """The point of it all: a request that computes delays nobody else's request.

    Were the primes counted on the event loop, no answer could show them running.
    """
    answers: list[tuple[int, Any]] = []

    async def slow() -> None:
        answers.append(await ask(service, "/primes?below=5000000"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(slow)
        while not (await ask(service, "/health"))[1]["running"]:
            assert not answers
        for _ in range(20):
            status, health = await ask(service, "/health")
            assert (status, health["status"]) == (200, "ok")
            assert health["running"] == [5_000_000]

    assert answers == [(200, {"below": 5_000_000, "primes": 348_513})]


@pytest.mark.anyio
async def test_web_service_refuses_bad_input(service: int) -> None:
    """Checked before a worker is asked."""
    for below in ("", "-1", "1e3", "99999999999"):
        status, answer = await ask(service, f"/primes?below={below}")

        assert status == 400
        assert "below must be" in answer["error"]
