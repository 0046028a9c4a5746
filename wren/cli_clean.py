"""``wren clean``: remove what crashed drivers left behind."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from anyio import to_thread

from wren import registry
from wren.clean import StaleJob, remove_job, stale_jobs, stale_sessions
from wren.cli_common import (
    OK,
    Command,
    add_json,
    add_settings,
    print_json,
    print_table,
    settings_of,
)
from wren.config import Settings, load

_UNITS: Final = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


def _age(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if match is None:
        raise ArgumentTypeError(
            f"{text!r}: expected a number and s, m, h, d or w, such as 12h or 7d"
        )
    return int(match[1]) * _UNITS[match[2]]


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--older-than",
        type=_age,
        default="7d",
        metavar="AGE",
        help="how long ago a job last wrote, such as 12h (default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would go")
    add_json(parser)
    add_settings(parser, "storage")


async def _run(args: Namespace) -> int:
    settings = load(**settings_of(args))
    now = datetime.now(UTC)
    jobs = await _clean_storage(settings, now - args.older_than, args.dry_run)
    sessions = await to_thread.run_sync(lambda: stale_sessions(dry_run=args.dry_run))
    if args.json:
        print_json(_document(jobs, sessions))
    elif jobs or sessions:
        print_table(
            [
                *(
                    ("job", job.id, f"{job.objects} objects", f"{job.size} bytes")
                    for job in jobs
                ),
                *(("session", path, None, None) for path in sessions),
            ]
        )
    removed = "would be removed" if args.dry_run else "removed"
    print(
        f"wren: {len(jobs)} jobs and {len(sessions)} sessions {removed}",
        file=sys.stderr,
    )
    return OK


async def _clean_storage(
    settings: Settings, before: datetime, dry_run: bool
) -> list[StaleJob]:
    if settings.storage is None:  # the local backend's own goes with its session
        return []
    storage = registry.open_storage(settings.storage, settings)
    try:
        jobs = [job async for job in stale_jobs(storage, before)]
        if not dry_run:
            for job in jobs:
                await remove_job(storage, job)
    finally:
        await storage.aclose()
    return jobs


def _document(jobs: list[StaleJob], sessions: list[Path]) -> dict[str, object]:
    return {
        "jobs": [
            {
                "id": job.id,
                "objects": job.objects,
                "bytes": job.size,
                "newest": job.newest.isoformat(),
            }
            for job in jobs
        ],
        "sessions": [str(path) for path in sessions],
    }


COMMAND = Command("clean", "remove what crashed drivers left behind", _configure, _run)
