"""The pytest plugin: what it gives to tests, and what it says about checks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, TypeAlias

import pytest

Pytest: TypeAlias = Callable[..., CompletedProcess[str]]

SUITE = '''
import pytest
from wren.conformance.spec import Level, check, not_offered
from wren.storage.memory import MemoryStorage


@pytest.mark.anyio
class Suite:
    @check("S01")
    async def test_passes(self, store):
        """It holds."""
        await store.put("k", b"")

    @check("S02", Level.COMMIT)
    async def test_fails(self, store):
        """It does not."""
        assert store.name == "another"

    @check("S03")
    async def test_is_not_offered(self, store):
        """It was refused."""
        not_offered("grants")

    @check("S04")
    async def test_is_left_out(self, store):
        """It waits for a reason."""
        pytest.skip("for a reason")

    @check("S05")
    @pytest.mark.xfail(reason="a known bug", strict=True)
    async def test_is_known_to_fail(self, store):
        """It is known."""
        assert store.name == "another"

    @check("S06")
    async def test_has_no_fixture(self, store, broken):
        """It does not even begin."""

    @check("S07")
    async def test_leaves_a_mess(self, store, messy):
        """It holds, but its end does not."""

    async def test_is_no_check(self, store):
        """It is somebody's own."""


class TestMemory(Suite):
    @pytest.fixture
    def anyio_backend(self):
        return "asyncio"

    @pytest.fixture
    async def store(self):
        store = MemoryStorage()
        yield store
        await store.aclose()

    @pytest.fixture
    def broken(self):
        raise OSError("no server")

    @pytest.fixture
    def messy(self):
        yield
        raise OSError("not closed")
'''


@pytest.fixture
def run(tmp_path: Path) -> Pytest:
    """Runs pytest in an empty folder, as somebody else's project would."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WREN_")}

    def run(*arguments: str, test: str = SUITE) -> CompletedProcess[str]:
        (tmp_path / "test_it.py").write_text(test)
        plugins = ("-p", "no:cacheprovider", "-p", "wren.conformance.plugin")
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *plugins, *arguments],
            cwd=tmp_path,
            env=environment | {"HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    return run


def checks_of(path: Path) -> dict[str, dict[str, Any]]:
    """Return what a report says of each check."""
    return {each["id"]: each for each in json.loads(path.read_text())["checks"]}


def test_every_outcome_is_told_apart(run: Pytest, tmp_path: Path) -> None:
    """A skip is no pass, a refusal is no skip, and a known failure is a failure."""
    done = run("--wren-report=out.json")

    assert done.returncode == 1
    checks = checks_of(tmp_path / "out.json")
    assert {identity: each["status"] for identity, each in checks.items()} == {
        "S01": "passed",
        "S02": "failed",
        "S03": "not offered",
        "S04": "not run",
        "S05": "failed",
        "S06": "failed",
        "S07": "failed",
    }
    assert "'memory' == 'another'" in checks["S02"]["detail"]
    assert checks["S03"]["detail"] == "not offered: grants"
    assert checks["S04"]["detail"] == "for a reason"
    assert checks["S05"]["detail"] == "expected: a known bug"
    assert "no server" in checks["S06"]["detail"]
    assert "not closed" in checks["S07"]["detail"]


def test_each_check_is_described(run: Pytest, tmp_path: Path) -> None:
    """A report is read by somebody who has not seen the tests."""
    run("--wren-report=out.json", "-k", "test_fails")

    found = json.loads((tmp_path / "out.json").read_text())
    check = checks_of(tmp_path / "out.json")["S02"]
    assert check["seconds"] >= 0
    assert {name: check[name] for name in ("adapter", "title", "level", "test")} == {
        "adapter": "memory",
        "title": "It does not.",
        "level": "commit",
        "test": "test_fails",
    }
    assert found["adapters"][0]["name"] == "memory"
    assert found["adapters"][0]["version"].startswith("wren-cloud ")
    assert found["adapters"][0]["capabilities"]["grants"] is True


def test_what_is_left_out_is_told(run: Pytest, tmp_path: Path) -> None:
    """By a selection, or because the run ended before."""
    run("--wren-report=out.json", "-x", "-k", "S01 or S02 or test_is_left_out")

    checks = checks_of(tmp_path / "out.json")
    assert (checks["S01"]["status"], checks["S02"]["status"]) == ("passed", "failed")
    assert checks["S04"]["status"] == checks["S07"]["status"] == "not run"
    assert checks["S04"]["detail"] == "the run ended before"
    assert checks["S07"]["detail"] == "not selected"
    assert {each["adapter"] for each in checks.values()} == {"memory"}


def test_checks_are_selected_by_identity_and_level(run: Pytest) -> None:
    """As a report names them."""
    assert "1 failed" in run("-k", "S02").stdout
    assert "1 failed" in run("-k", "commit").stdout


def test_table_is_printed_when_asked_for(run: Pytest) -> None:
    """Among what pytest prints."""
    assert "S01  passes" in run("--wren-table").stdout
    assert "S01  passes" not in run().stdout


def test_it_does_nothing_unless_asked(run: Pytest, tmp_path: Path) -> None:
    """Somebody's own tests, and fixtures of the same names, are left alone."""
    own = """
import pytest

@pytest.fixture
def store():
    return "mine"

def test_own(store):
    assert store == "mine"
"""

    done = run(test=own)

    assert done.returncode == 0
    assert "1 passed" in done.stdout
    assert not list(tmp_path.glob("*.json"))


def test_fixtures_open_what_is_configured(run: Pytest, tmp_path: Path) -> None:
    """Each test has an empty place of its own, of which nothing is left."""
    test = """
import pytest
from wren.conformance.spec import check

@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"

@pytest.mark.anyio
@pytest.mark.parametrize("time", [1, 2])
@check("S01")
async def test_store(store, time):
    assert [info async for info in store.list()] == []
    await store.put("a/b", b"", if_absent=True)
    await store.aclose()

@pytest.mark.anyio
@check("C01")
async def test_compute(compute):
    await compute.prepare()

@pytest.mark.anyio
@check("E01")
async def test_executor(open_executor):
    async with open_executor(concurrency=1, retries=0) as executor:
        assert await executor.map(abs, [-1, -2]) == [1, 2]
"""
    folder = tmp_path / "objects"
    options = (f"--wren-storage={folder.as_uri()}", "--wren-backend=local")

    done = run(*options, "--wren-report=out.json", "-W", "error", test=test)

    assert done.returncode == 0, done.stdout
    assert list(folder.iterdir()) == []
    checks = checks_of(tmp_path / "out.json")
    assert {each["adapter"] for each in checks.values()} == {"local", "local+file"}
    found = json.loads((tmp_path / "out.json").read_text())["adapters"]
    assert {each["target"] for each in found} == {folder.as_uri(), "local"}
