"""Search an endless stream for the first number with a property, then stop.

    python examples/endless_stream.py --bits 20

The input is an async generator that never ends; it could as well be a message queue.
The job pulls it only as fast as results are consumed, so memory stays the same however
long the search takes. Leaving the loop is enough: the executor cancels what still runs.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import resource
import sys
from collections.abc import AsyncIterator

import wren

BLOCK = 500


def search(text: str, start: int, bits: int) -> int | None:
    """Return the first number of a block whose hash begins with ``bits`` zero bits."""
    prefix = hashlib.sha256(text.encode())
    for number in range(start, start + BLOCK):
        digest = prefix.copy()
        digest.update(str(number).encode())
        if int.from_bytes(digest.digest()[:8]) >> (64 - bits) == 0:
            return number
    return None


def peak_memory() -> float:
    """Return the most memory that this process has had, in MiB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


async def main(text: str, bits: int) -> None:
    """Search block after block until the first hit."""
    pulled = searched = 0
    warm = 0.0

    async def blocks() -> AsyncIterator[tuple[str, int, int]]:
        nonlocal pulled
        while True:
            pulled += 1
            yield text, (pulled - 1) * BLOCK, bits

    async with wren.Executor() as executor:
        async for number in executor.starmap(search, blocks()):
            searched += 1
            if searched == 10:
                warm = peak_memory()
            if number is not None:
                print(f"sha256({text + str(number)!r}) begins with {bits} zero bits")
                break

    print(f"{searched:,} blocks searched, {pulled - searched:,} more had been pulled")
    if warm:
        print(f"memory grew by {peak_memory() - warm:.1f} MiB after the first ten")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Search an endless stream.")
    parser.add_argument("--text", default="wren ")
    parser.add_argument("--bits", type=int, default=20)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.text, arguments.bits))
