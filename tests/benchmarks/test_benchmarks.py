"""The benchmark measures what it says; how fast anything is, no test says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

CHEAP = ("--quick", "--rows", "3")


class Bench:
    """Runs the benchmark in a directory of the test's own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.output = ""

    def pretend(self, module: str, source: str) -> None:
        """Put a module in the place of an installed peer, or of a missing one."""
        (self.directory / f"{module}.py").write_text(source)

    def run(self, *arguments: str) -> dict[str, Any]:
        """Return the JSON document of a run."""
        path = self.directory / "bench.json"
        script = ROOT / "tests" / "benchmarks" / "run.py"
        self.output = subprocess.run(
            [sys.executable, script, *arguments, "--json", path],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(self.directory)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        document: dict[str, Any] = json.loads(path.read_text())
        return document

    def contenders(self, *arguments: str) -> dict[str, dict[str, Any]]:
        """Return what the JSON says of each contender of a run over one row."""
        (row,) = self.run(*arguments)["rows"]
        return {entry["name"]: entry for entry in row["contenders"]}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_each_round_of_each_contender_is_recorded(bench: Bench) -> None:
    """A median of rounds that were not run would be an invention."""
    document = bench.run(*CHEAP, "--rounds", "2", "--peers", "pool,multiprocessing")

    assert {"date", "python", "cores", "load", "versions"} <= document.keys()
    (row,) = document["rows"]
    assert row["row"] == 3
    assert [entry["name"] for entry in row["contenders"]] == ["pool", "multiprocessing"]
    for entry in row["contenders"]:
        assert entry["status"] == "ok"
        rate = entry["figures"]["rate"]
        assert len(rate["values"]) == 2
        assert 0 < rate["minimum"] <= rate["median"] <= rate["maximum"]
    assert "ProcessPoolExecutor" in bench.output


def test_wren_is_compared_with_the_best_peer(bench: Bench) -> None:
    """The ratio is the figure that counts; it must be wren's median over the peer's."""
    arguments = ("--peers", "wren,pool,multiprocessing")
    (row,) = bench.run(*CHEAP, *arguments)["rows"]

    medians = {
        entry["name"]: entry["figures"]["rate"]["median"] for entry in row["contenders"]
    }
    ours = medians.pop("wren")
    (comparison,) = row["comparisons"]
    assert comparison["theirs"] == max(medians.values())
    assert comparison["ratio"] == ours / comparison["theirs"]


def test_a_missing_peer_is_a_line_that_says_so(bench: Bench) -> None:
    """A table must not look complete when somebody did not take part."""
    bench.pretend("loky", "raise ModuleNotFoundError('loky')")

    found = bench.contenders(*CHEAP, "--peers", "loky,multiprocessing")

    assert found["loky"]["status"] == "missing"
    assert "pip install loky" in bench.output
    assert found["multiprocessing"]["status"] == "ok"


def test_a_wrong_result_is_no_figure(bench: Bench) -> None:
    """Being fast at something else does not count."""
    source = """
        from concurrent.futures import ProcessPoolExecutor as Pool

        class ProcessPoolExecutor(Pool):
            def map(self, fn, items, **options):
                results = list(super().map(fn, items, **options))
                return results[:-1] + [0] if len(results) > 100 else results
    """
    bench.pretend("loky", "if True:" + source)

    found = bench.contenders(*CHEAP, "--peers", "loky")

    assert found["loky"]["status"] == "wrong"
    assert not found["loky"]["figures"]


def test_a_hang_is_reported_and_leaves_no_process(bench: Bench) -> None:
    """A contender that hangs must not take the others' results with it."""
    source = """
        import os, pathlib, subprocess, sys, time

        def ProcessPoolExecutor(workers):
            sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
            stray = subprocess.Popen(sleep, start_new_session=True)
            processes = f"{os.getpid()} {stray.pid}"
            (pathlib.Path(__file__).parent / "processes").write_text(processes)
            time.sleep(600)
    """
    bench.pretend("loky", "if True:" + source)

    arguments = ("--limit", "5", "--peers", "loky,multiprocessing")
    found = bench.contenders(*CHEAP, *arguments)

    assert found["loky"]["status"] == "hangs"
    assert found["multiprocessing"]["status"] == "ok"
    for process in (bench.directory / "processes").read_text().split():
        assert not _runs(int(process))


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # killed, and not yet collected by init


def test_unknown_names_are_refused(bench: Bench) -> None:
    """A misspelt row would otherwise be an empty table."""
    with pytest.raises(subprocess.CalledProcessError) as refused:
        bench.run("--rows", "3,99")

    assert "no such row: 99" in refused.value.stderr
