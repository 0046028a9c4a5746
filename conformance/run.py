"""``python -m wren.conformance.run``: the suites, run on what is configured.

This is what ``wren conformance`` starts. It is a process of its own, because pytest and
the checks leave much behind in theirs.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from wren.conformance.guard import Guard
from wren.conformance.report import Report, compare, table

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2

_SECONDS: Final = 300.0  # for one check

# Others' plugins and a project's settings shall not decide what is checked, or how.
_OPTIONS: Final = (
    "-p", "anyio.pytest_plugin",
    "-p", "wren.conformance.plugin",
    "-p", "no:cacheprovider",
    "--import-mode=importlib",
    "--noconftest",
    "--strict-markers",
    "--tb=short",
    "-q",
    "-W", "error",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suites or compare two reports, and return the exit code."""
    parser = ArgumentParser(prog="wren conformance")
    actions = parser.add_subparsers(required=True)
    check = actions.add_parser("check")
    check.add_argument("--storage")
    check.add_argument("--backend")
    check.add_argument("--report", type=Path)
    check.add_argument("--json", action="store_true")
    check.add_argument("-k", dest="expression")
    check.set_defaults(action=_check)
    diff = actions.add_parser("diff")
    diff.add_argument("before", type=Path)
    diff.add_argument("after", type=Path)
    diff.set_defaults(action=_diff)
    args = parser.parse_args(argv)
    code: int = args.action(args)
    return code


def _check(args: Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="wren-conformance-") as folder:
        written = Path(folder, "report.json")
        code = _run_pytest(args, Path(folder), written)
        if code == pytest.ExitCode.USAGE_ERROR:  # of -k; pytest has said why
            return USAGE
        if not written.exists():
            return FAILED
        text = written.read_text(encoding="utf-8")
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        return _refuse(f"no check matches {args.expression!r}")
    if args.report is not None:
        args.report.write_text(text, encoding="utf-8")
    report = Report.from_json(text)
    for line in [text.rstrip()] if args.json else table(report):
        sys.stdout.write(f"{line}\n")
    return OK if code == pytest.ExitCode.OK and report.passed else FAILED


def _run_pytest(args: Namespace, folder: Path, written: Path) -> int:
    """Run the suites; what pytest prints goes to standard error."""
    neutral = folder / "pytest.ini"
    neutral.write_text("[pytest]\n", encoding="utf-8")
    suites = find_spec("wren.conformance.suites")
    assert suites is not None
    assert suites.origin is not None
    options = [*_OPTIONS, f"--wren-report={written}", "-c", str(neutral)]
    if args.storage is not None:
        options.append(f"--wren-storage={args.storage}")
    if args.backend is not None:
        options.append(f"--wren-backend={args.backend}")
    if args.expression is not None:
        options.append(f"-k={args.expression}")
    guard = Guard(_SECONDS)
    signal.signal(signal.SIGINT, guard.interrupt)
    sys.stdout.flush()
    results = os.dup(1)
    os.dup2(2, 1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("PYTEST_ADDOPTS", raising=False)
            patch.delenv("PYTEST_PLUGINS", raising=False)
            patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
            return pytest.main([*options, suites.origin], plugins=[guard])
    finally:
        sys.stdout.flush()
        os.dup2(results, 1)
        os.close(results)


def _diff(args: Namespace) -> int:
    reports: list[Report] = []
    for path in (args.before, args.after):
        try:
            reports.append(Report.from_json(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as exc:
            return _refuse(f"{path}: {exc}")
    changes = compare(*reports)
    for each in changes:
        before, after = each.before.value, each.after.value
        sys.stdout.write(
            f"{each.adapter}  {each.id}  {each.test}: {before} -> {after}\n"
        )
    return FAILED if any(each.is_loss for each in changes) else OK


def _refuse(reason: str) -> int:
    sys.stderr.write(f"wren: {reason}\n")
    return USAGE


if __name__ == "__main__":
    sys.exit(main())
