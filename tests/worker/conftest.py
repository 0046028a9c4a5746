"""A driver that speaks to a worker in this process, without any backend."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from wren.envelope import REQUEST, RESPONSE, Buffer, Parts, decode, encode
from wren.failures import load_failure
from wren.serialize import dump, dump_many, load_many, pack_function
from wren.worker import Worker, versions

NOTE = "a driver's note"


class Driver:
    """Writes requests, and reads responses, as wren's own driver does.

    Attributes:
        worker: The worker that it speaks to.
        ran: What tasks leave here has run. It travels by name, so it is the same list.
    """

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def request(
        self,
        function: Callable[..., Any],
        items: Sequence[object],
        /,
        *,
        inline: bool = True,
        **header: Any,
    ) -> bytearray:
        """Return the bytes of a request, with more, or other, fields in its header."""
        pickled = dump(function)
        identity, parts = pack_function(pickled, [], [None] * len(pickled.buffers))
        many = dump_many(items, dump)
        assert not many.failures
        fields: dict[str, object] = {
            "versions": versions(),
            "function": identity,
            "call": "item",
        }
        if many.each is not None:
            fields["each"] = many.each
        frames: list[Parts] = [*many.frames]
        if inline:
            fields["function_inline"] = True
            frames.insert(0, parts)
        return bytearray(b"".join(encode(REQUEST, fields | header, frames)))

    def send(self, request: Buffer) -> bytes:
        """Return the bytes of the response."""
        return b"".join(self.worker.handle(request))

    def header(self, request: Buffer) -> dict[str, Any]:
        """Return the header of the response."""
        return decode(self.send(request), RESPONSE)[0]

    def results(self, *args: Any, **header: Any) -> list[Any]:
        """Return for each task of a request its value or its exception."""
        return self.read(self.send(self.request(*args, **header)))

    def read(self, response: Buffer) -> list[Any]:
        """Return for each task of a response its value or its exception."""
        header, buffers = decode(response, RESPONSE)
        assert "refused" not in header, header
        described: list[list[Any]] = header.get("failures", [])
        pickles = sum(bool(failure[-1]) for failure in described)
        data = buffers[: len(buffers) - pickles]
        values, broken = load_many(data, header.get("each"))
        rest = iter(buffers[len(data) :])
        ended: dict[int, Any] = {
            position: load_failure(description, next(rest) if pickled else None, NOTE)
            for position, *description, pickled in described
        }
        returned = iter([broken.get(n, value) for n, value in enumerate(values)])
        total = len(values) + len(ended)
        return [ended[n] if n in ended else next(returned) for n in range(total)]


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Driver]:
    """A driver of a fresh worker.

    Afterwards the worker's event loops are closed, the streams as they were.
    """
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    loops: list[asyncio.Runner] = []
    make = asyncio.Runner

    def record() -> asyncio.Runner:
        loops.append(make())
        return loops[-1]

    monkeypatch.setattr(asyncio, "Runner", record)
    yield Driver(Worker("w1", str(tmp_path / "modules")))
    for loop in loops:
        loop.close()
