"""Count the words in every source file of a folder, on all cores.

    python examples/word_count.py                     # Python's standard library
    python examples/word_count.py ~/notes '*.md'      # any folder, any files

The driver reads the files and sends their contents, so the same program runs where the
workers cannot see this machine's disk. Each file is one task; wren groups them.
"""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import os
import re
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import wren

WORD = re.compile(r"[^\W\d_]+")
INSTALLED = {"site-packages", "dist-packages"}  # beside the standard library, not of it


def count(source: bytes) -> tuple[Counter[str], int]:
    """Return the words of one file and its size in bytes. Runs on a worker."""
    return Counter(WORD.findall(source.decode(errors="replace"))), len(source)


def contents(folder: Path, pattern: str) -> Iterator[bytes]:
    """Yield the content of every matching file, each read when it is asked for."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - INSTALLED)  # what os.walk enters next
        for name in fnmatch.filter(sorted(names), pattern):
            yield Path(parent, name).read_bytes()


async def main(folder: Path, pattern: str) -> None:
    """Count, merge and print."""
    total: Counter[str] = Counter()
    files = read = 0
    started = time.perf_counter()
    async with wren.Executor() as executor:
        async for words, size in executor.map(count, contents(folder, pattern)):
            total.update(words)
            files += 1
            read += size
    seconds = time.perf_counter() - started

    for word, times in total.most_common(10):
        print(f"{times:>10,}  {word}")
    print(f"{total.total():,} words, {len(total):,} of them different")
    print(
        f"{files:,} files, {read / 1e6:.1f} MB in {seconds:.2f} s: "
        f"{read / 1e6 / seconds:.1f} MB/s"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Count words on all cores.")
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path(sysconfig.get_path("stdlib")),
        help="where to look (default: Python's standard library)",
    )
    parser.add_argument(
        "pattern", nargs="?", default="*.py", help="which files (default: *.py)"
    )
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        parser.error(f"no such folder: {arguments.folder}")
    asyncio.run(main(arguments.folder, arguments.pattern))
