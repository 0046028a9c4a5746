"""Row 19: a storage adapter beside raw calls of the client library that it uses.

Run one with its emulator, or against a store of your own::

    python -m tests.benchmarks.storage s3
    python -m tests.benchmarks.storage s3 --url s3://my-bucket/benchmark

Both do the same work on the same server, 64 calls at a time, in rounds that take turns,
so that whatever else the machine does hits both. What counts is the ratio of medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path
from secrets import token_hex
from statistics import median
from time import perf_counter
from typing import Final, NamedTuple, Protocol, cast

from tests.benchmarks import machine
from wren.config import load
from wren.conformance.emulators.catalogue import entry
from wren.registry import open_storage
from wren.transfer import delete_prefix

MODULES: Final = {
    "s3": "tests.benchmarks.storage_s3",
    "gcs": "tests.benchmarks.storage_gcs",
    "azure": "tests.benchmarks.storage_azure",
}

AT_ONCE: Final = 64
_KIB: Final = 1024
_MIB: Final = 1024 * _KIB


class Client(NamedTuple):
    """What is measured; the adapter, or the library that it uses."""

    put: Callable[[str, bytes], Awaitable[object]]
    """Writes an object under a key of the store, unconditionally."""

    get: Callable[[str], Awaitable[bytes]]
    """Reads all of an object."""


class Library(Protocol):
    """A module of `MODULES`: raw calls, set up as the library's documentation says."""

    EMULATOR: str
    """Its name in `wren emulator`."""

    DISTRIBUTION: str
    """Of the library, for its version."""

    def raw(self, url: str) -> AbstractAsyncContextManager[Client]:
        """Open a client with room for `AT_ONCE` connections and no retries.

        Args:
            url: A value of ``WREN_STORAGE``.
        """
        ...


class Load(NamedTuple):
    """Objects that are written and read."""

    name: str
    objects: int
    size: int
    unit: str

    def rate(self, seconds: float) -> float:
        """Return objects, or megabytes, in a second."""
        each = self.size / 1e6 if self.unit == "MB/s" else 1
        return self.objects * each / seconds


LOADS: Final = (
    Load("1 KiB", 1000, _KIB, "objects/s"),
    Load("8 MiB", 32, 8 * _MIB, "MB/s"),
)


async def _spread(calls: Iterable[Callable[[], Awaitable[object]]]) -> float:
    """Make all calls, `AT_ONCE` at a time; return how long it took."""
    todo = iter(calls)

    async def work() -> None:
        for call in todo:
            await call()

    started = perf_counter()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return perf_counter() - started


async def _round(client: Client, load: Load, prefix: str) -> dict[str, float]:
    """Write and read once; return the two rates."""
    data = os.urandom(load.size)
    keys = [f"{prefix}/{number}" for number in range(load.objects)]
    lengths: list[int] = []

    async def read(key: str) -> None:
        lengths.append(len(await client.get(key)))

    puts = await _spread(partial(client.put, key, data) for key in keys)
    gets = await _spread(partial(read, key) for key in keys)
    if lengths != [load.size] * load.objects:
        raise AssertionError("something else was read than was written")
    return {"put": load.rate(puts), "get": load.rate(gets)}


class Figures(NamedTuple):
    """The rates of one operation, round by round."""

    load: Load
    operation: str
    ours: list[float]
    raw: list[float]

    @property
    def ratio(self) -> float:
        """The adapter's median, with the library's as 1."""
        return median(self.ours) / median(self.raw)

    def line(self) -> str:
        """Describe it for a person."""
        return (
            f"{self.operation} {self.load.name:6} "
            f"adapter {median(self.ours):8.1f}  raw {median(self.raw):8.1f} "
            f"{self.load.unit:9}  ratio {self.ratio:.2f}"
        )


async def measure(library: Library, url: str, rounds: int) -> list[Figures]:
    """Return the figures of every load and operation."""
    settings = load(storage=url, concurrency=AT_ONCE)
    store = open_storage(url, settings)
    results = {
        (each, operation): Figures(each, operation, [], [])
        for each, operation in product(LOADS, ("put", "get"))
    }
    root = f"benchmark-{token_hex(4)}"
    try:
        async with library.raw(url) as raw:
            clients = {"ours": Client(store.put, store.get), "raw": raw}
            for number, each in product(range(rounds + 1), LOADS):
                # Who comes first alternates, since it warms the server for the other.
                order = sorted(clients, reverse=bool(number % 2))
                for name in order:
                    prefix = f"{root}/{name}-{number}"
                    rates = await _round(clients[name], each, prefix)
                    await delete_prefix(store, f"{prefix}/")
                    if number:  # the first round is for caches and connections
                        for operation, rate in rates.items():
                            figures = results[each, operation]
                            (figures.ours if name == "ours" else figures.raw).append(
                                rate
                            )
    finally:
        await delete_prefix(store, f"{root}/")
        await store.aclose()
    return list(results.values())


@contextmanager
def _served(library: Library, url: str | None) -> Generator[str]:
    """Return the store's URL; start the emulator if there is none."""
    if url is not None:
        yield url
        return
    with entry(library.EMULATOR).serve() as emulator:
        for name in emulator.unset:
            os.environ.pop(name, None)
        os.environ.update(emulator.environment)
        yield emulator.url


def main() -> None:
    """Measure, print a line for each operation, and write all figures."""
    parser = argparse.ArgumentParser(description="A storage adapter beside raw calls.")
    parser.add_argument("name", choices=MODULES)
    parser.add_argument("--url", help="of a store; by default an emulator's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write all figures")
    options = parser.parse_args()
    library = cast("Library", import_module(MODULES[options.name]))
    with _served(library, options.url) as url:
        figures = asyncio.run(measure(library, url, options.rounds))
    for each in figures:
        sys.stdout.write(f"{each.line()}\n")
    if options.json:
        document = {
            **machine.describe(),
            "load": machine.load_average(),
            "versions": machine.versions([library.DISTRIBUTION]),
            "storage": options.name,
            "figures": [
                {**each._asdict(), "load": each.load._asdict(), "ratio": each.ratio}
                for each in figures
            ],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
