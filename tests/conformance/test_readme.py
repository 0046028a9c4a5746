"""The guide for authors of adapters works as it is written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "conformance" / "README.md").read_text("utf-8")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with the example adapter and the test file of the guide."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "test_store.py").write_text(code, "utf-8")
    example = ROOT / "examples" / "sqlite_storage.py"
    (tmp_path / "sqlite_storage.py").write_bytes(example.read_bytes())
    return tmp_path


def run_pytest(project: Path, *options: str) -> str:
    """Run the author's tests as the author would, and return what is printed."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-rs",
            "-p",
            "no:cacheprovider",
            *options,
        ],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_example_adapter_passes_the_suite(project: Path) -> None:
    """Whoever follows the guide ends with a tested adapter."""
    printed = run_pytest(project)

    outcome = re.search(r"^(\d+) passed, (\d+) skipped in ", printed, re.MULTILINE)
    assert outcome, printed
    assert int(outcome[1]) > 100
    reasons = re.findall(r"^SKIPPED \[\d+\] \S+: (.*)$", printed, re.MULTILINE)
    assert reasons
    assert {reason.partition(":")[0] for reason in reasons} == {"not offered"}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (
            "ON CONFLICT (key) DO NOTHING",
            "ON CONFLICT (key) DO UPDATE SET data = :data",
        ),
        ("ORDER BY key LIMIT", "ORDER BY key DESC LIMIT"),
        ("raise wren.KeyNotFoundError", "raise wren.KeyExistsError"),
    ],
    ids=["condition ignored", "order reversed", "wrong error"],
)
def test_a_mistake_in_the_adapter_is_found(
    project: Path, right: str, wrong: str
) -> None:
    """A suite that passes everything proves nothing."""
    adapter = project / "sqlite_storage.py"
    code = adapter.read_text("utf-8")
    assert right in code
    adapter.write_text(code.replace(right, wrong), "utf-8")

    assert re.search(r"^1 failed", run_pytest(project, "-x"), re.MULTILINE)


def test_the_guide_fits_on_two_pages() -> None:
    """Longer, and nobody reads it."""
    assert len(README.splitlines()) <= 120
