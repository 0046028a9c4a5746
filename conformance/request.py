"""Requests for one function call, and what their responses say.

The bytes are those that wren's own driver writes and reads; nothing here is a second
codec. What is different is that no job is needed, and that the functions of the suite
travel by value, since a worker on a platform has no `wren.conformance`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import cloudpickle

from wren.conformance import probes
from wren.envelope import REQUEST, RESPONSE, Buffer, Parts, decode, encode
from wren.failures import load_failure
from wren.serialize import Many, dump, dump_many, load_many, pack_function
from wren.worker import versions

_NOTE: Final = "raised on the worker"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response."""

    header: dict[str, Any]

    results: list[Any]
    """For each task its value, or the exception that it ended with."""

    @property
    def value(self) -> Any:
        """What the only task returned. A failed task, or a refusal, is an assertion."""
        assert "refused" not in self.header, self.header
        (result,) = self.results
        assert not isinstance(result, BaseException), repr(result)
        return result

    @property
    def refused(self) -> str:
        """Why the request was refused; ``""`` if it was carried out."""
        reason: str = self.header.get("refused", "")
        return reason

    @property
    def output(self) -> str:
        """The tail of what the tasks printed."""
        output: str = self.header["output"]
        return output


def ask(function: object, *items: object, **header: Any) -> list[Buffer]:
    """Return a request to call a function once for each item.

    Args:
        function: Takes one item; or something that must not be unpickled.
        items: What is passed to it.
        header: More, or other, fields of the envelope's header.
    """
    identity, parts = pack(function)
    many = pack_items(*items)
    fields: dict[str, Any] = {
        "versions": versions(),
        "function": identity,
        "function_inline": True,
        "call": "item",
    }
    if many.each is not None:
        fields["each"] = many.each
    return encode(REQUEST, fields | header, [parts, *many.frames])


def pack(function: object) -> tuple[str, list[Buffer]]:
    """Return a function's identity and what travels of it."""
    with _by_value():
        pickled = dump(function)
    return pack_function(pickled, [], [None] * len(pickled.buffers))


def pack_items(*items: object) -> Many:
    """Return arguments as they travel."""
    with _by_value():
        many = dump_many([*items], dump)
    assert not many.failures, many.failures
    return many


def read(response: Buffer) -> Answer:
    """Return what a response says.

    Raises:
        IntegrityError: It is no response.
    """
    header, buffers = decode(response, RESPONSE)
    if header.keys() & {"refused", "stored"}:
        return Answer(header, [])
    described: list[list[Any]] = header.get("failures", [])
    pickles = sum(bool(failure[-1]) for failure in described)
    values: Sequence[Buffer] = buffers[: len(buffers) - pickles]
    results, broken = load_many(values, header.get("each"))
    assert not broken, broken
    rest = iter(buffers[len(values) :])
    for position, *description, pickled in described:
        error = load_failure(description, next(rest) if pickled else None, _NOTE)
        results.insert(position, error)
    return Answer(header, results)


def split(request: Parts) -> tuple[dict[str, Any], list[memoryview]]:
    """Return a copy of a request's header, and its buffers."""
    header, buffers = decode(b"".join(request), REQUEST)
    return dict(header), buffers


@contextmanager
def _by_value() -> Generator[None]:
    cloudpickle.register_pickle_by_value(probes)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(probes)
