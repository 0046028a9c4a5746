"""Functions, arguments and results as bytes, and back.

Pickle protocol 5 throughout. Large buffers (numpy arrays and the like) stay outside the
pickle, so that they can be sent from where they lie. What the driver sends goes through
cloudpickle, which takes lambdas, closures and classes of ``__main__`` by value; what a
worker answers goes through the standard pickler when that can do it, which is faster.
"""

from __future__ import annotations

import functools
import hashlib
import math
import pickle
import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from wren.envelope import FUNCTION, Buffer, Parts, decode, encode, size

if TYPE_CHECKING:
    from cloudpickle import CloudPickler

OUT_OF_BAND: Final = 16 * 1024
"""Bytes from which a buffer stays outside the pickle."""

IN_BAND_BUDGET: Final = 256 * 1024
TIME_BUDGET: Final = 0.002


_CACHED: Final = type(functools.cache(len))


class OverBudgetError(Exception):
    """Pickling took longer than an event loop may be blocked; do it in a thread."""


class Pickled:
    """A pickle in parts, and the buffers that stayed outside."""

    __slots__ = ("buffers", "parts")

    def __init__(self, parts: list[Buffer], buffers: list[memoryview]) -> None:
        self.parts = parts
        self.buffers = buffers

    def frames(self) -> list[Parts]:
        """Return the buffers of an envelope: the pickle, then each buffer."""
        return [self.parts, *([buffer] for buffer in self.buffers)]


class _Writer:
    """The pickler's file.

    It is written in Python on purpose. The C pickler calls it once for every 64 KiB,
    and only inside such a call can another thread get the interpreter lock.
    """

    __slots__ = ("_bounded", "_deadline", "parts", "size")

    def __init__(self, bounded: bool) -> None:
        self.parts: list[Buffer] = []
        self.size = 0
        self._bounded = bounded
        self._deadline = perf_counter() + TIME_BUDGET if bounded else 0.0

    def write(self, data: Buffer) -> None:
        self.parts.append(data)
        self.size += len(data)
        if self._bounded:
            self.check()

    def check(self) -> None:
        if self.size > IN_BAND_BUDGET or perf_counter() > self._deadline:
            raise OverBudgetError


class _Reader:
    """The unpickler's file, in Python for the same reason as `_Writer`."""

    __slots__ = ("_position", "_view")

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._position = 0

    def read(self, count: int) -> bytes:
        start = self._position
        self._position = min(start + count, len(self._view))
        return bytes(self._view[start : self._position])

    def readinto(self, target: Any) -> int:
        start = self._position
        count = min(len(target), len(self._view) - start)
        target[:count] = self._view[start : start + count]
        self._position = start + count
        return count

    def readline(self) -> bytes:
        # Only text opcodes of protocol 0 ask for lines.
        rest = bytes(self._view[self._position :])
        line = rest[: rest.find(b"\n") + 1] or rest
        self._position += len(line)
        return line


def _collector(buffers: list[memoryview]) -> Callable[[pickle.PickleBuffer], bool]:
    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if len(raw) < OUT_OF_BAND:
            return True
        buffers.append(raw)
        return False

    return keep_in_band


def dump(value: object, *, bounded: bool = False) -> Pickled:
    """Pickle what the driver sends.

    Args:
        value: Anything cloudpickle takes.
        bounded: Give up after `TIME_BUDGET` seconds or `IN_BAND_BUDGET` bytes.

    Raises:
        OverBudgetError: ``bounded`` and it takes longer.
        Exception: Whatever an object's own pickling support raises.
    """
    writer = _Writer(bounded)
    buffers: list[memoryview] = []
    _pickler()(writer, 5, _collector(buffers)).dump(value)
    return Pickled(writer.parts, buffers)


@functools.cache
def _pickler() -> type[CloudPickler]:
    # Imported when first needed: it is a good part of the driver's start-up.
    from cloudpickle import CloudPickler

    class Pickler(CloudPickler):
        """Cloudpickle, which takes a cached function by name only, also by value."""

        def reducer_override(self, obj: Any) -> Any:
            if type(obj) is _CACHED and not _importable(obj):
                return _cache_again, (obj.__wrapped__, obj.cache_parameters())
            return super().reducer_override(obj)

    return Pickler


def _importable(function: Any) -> bool:
    if function.__module__ == "__main__":
        return False
    module = sys.modules.get(function.__module__)
    return getattr(module, function.__qualname__, None) is function


def _cache_again(function: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """Rebuild a `functools.lru_cache` or `functools.cache`, with an empty cache."""
    return functools.lru_cache(**parameters)(function)


def dump_result(value: object) -> Pickled:
    """Pickle what a worker answers.

    Raises:
        Exception: Whatever an object's own pickling support raises.
    """
    writer = _Writer(bounded=False)
    buffers: list[memoryview] = []
    try:
        pickle.Pickler(writer, 5, buffer_callback=_collector(buffers)).dump(value)
    except Exception:  # noqa: BLE001  # cloudpickle decides
        return dump(value)
    return Pickled(writer.parts, buffers)


def load(pickled: Buffer, buffers: Iterable[Buffer] = ()) -> Any:
    """Unpickle. Only for bytes from an authenticated invocation, or verified ones."""
    return pickle.loads(pickled, buffers=buffers)  # noqa: S301


def load_yielding(pickled: Buffer, buffers: Iterable[Buffer] = ()) -> Any:
    """Unpickle like `load`, letting other threads run about every 64 KiB."""
    reader = _Reader(memoryview(pickled))
    return pickle.Unpickler(reader, buffers=buffers).load()  # noqa: S301


def writable(data: Buffer) -> memoryview:
    """Return ``data`` such that arrays made over it can be written to."""
    view = memoryview(data)
    return memoryview(bytearray(view)) if view.readonly else view


# --- many values --------------------------------------------------------------------

# Values of these types, and of no subclass, can share one pickle. All others get one
# each: one that does not pickle, or not unpickle, then spoils only itself, and two
# tasks never share an object because they happen to travel together.
_NUMBERS: Final = frozenset({int, float, bool, complex, type(None)})
_ATOMIC: Final = _NUMBERS | {str, bytes}


Caught: TypeAlias = tuple[type[BaseException], ...]

TASKS_OWN: Final[Caught] = (Exception, SystemExit)
"""What a value's own code may raise in the driver, where Ctrl-C is the user's."""

ANYTHING: Final[Caught] = (BaseException,)
"""What a value's own code may raise in a worker."""


class Many:
    """Several values, pickled for one envelope.

    Attributes:
        frames: The buffers of the envelope.
        each: What `load_many` needs to take them apart; JSON can hold it.
        failures: By position, why a value could not be pickled. It is left out.
    """

    __slots__ = ("each", "failures", "frames")

    def __init__(self) -> None:
        self.frames: list[Parts] = []
        self.each: list[int] | None = None
        self.failures: dict[int, BaseException] = {}


def dump_many(
    values: Sequence[object],
    dump_one: Callable[[object], Pickled],
    *,
    deadline: float = math.inf,
    caught: Caught = TASKS_OWN,
) -> Many:
    """Pickle several values, together where that is safe.

    Args:
        values: The values.
        dump_one: `dump` or `dump_result`.
        deadline: On the clock `time.perf_counter`.
        caught: What is a value's failure; anything else is raised.

    Raises:
        OverBudgetError: The deadline passed, or ``dump_one`` raised it.
    """
    many = Many()
    types = set(map(type, values))
    if types <= _NUMBERS:
        many.frames.append([pickle.dumps(values, 5)])
        return many
    if types <= _ATOMIC:
        many.frames.append(dump_one(values).parts)
        return many
    pickles: list[Buffer] = []
    lengths = array("Q")
    counts: list[int] = []
    outside: list[Parts] = []
    for position, value in enumerate(values):
        if perf_counter() > deadline:
            raise OverBudgetError
        try:
            pickled = dump_one(value)
        except OverBudgetError:
            raise
        except caught as exc:  # the value's own pickling code
            many.failures[position] = exc
            continue
        pickles.extend(pickled.parts)
        lengths.append(size(pickled.parts))
        counts.append(len(pickled.buffers))
        outside.extend([buffer] for buffer in pickled.buffers)
    many.frames = [pickles, [memoryview(lengths).cast("B")], *outside]
    many.each = counts if outside else []
    return many


def load_many(
    buffers: Sequence[Buffer],
    each: list[int] | None,
    load_one: Callable[[Buffer, Iterable[Buffer]], Any] = load,
    caught: Caught = TASKS_OWN,
) -> tuple[list[Any], dict[int, BaseException]]:
    """Unpickle what `dump_many` pickled.

    Returns:
        The values in order, and by position why one could not be rebuilt; None stands
        in its place.
    """
    if each is None:
        return load_one(buffers[0], ()), {}
    pickles = memoryview(buffers[0])
    lengths = memoryview(buffers[1]).cast("Q")
    values: list[Any] = []
    failures: dict[int, BaseException] = {}
    start = 0
    taken = 2
    for position, length in enumerate(lengths):
        count = each[position] if each else 0
        outside = buffers[taken : taken + count]
        try:
            values.append(load_one(pickles[start : start + length], outside))
        except caught as exc:  # the classes' own code
            failures[position] = exc
            values.append(None)
        start += length
        taken += count
    return values, failures


# --- functions ----------------------------------------------------------------------


def pack_function(
    pickled: Pickled, bundles: Sequence[tuple[str, bytes]], blobs: Sequence[str | None]
) -> tuple[str, list[Buffer]]:
    """Lay out a function with the modules that it needs.

    Args:
        pickled: The function.
        bundles: Identity and archive of its local modules.
        blobs: For each of the pickle's buffers the name of the blob that holds it
            elsewhere, or None when it is part of the layout.

    Returns:
        The SHA-256 of the layout in hexadecimal, and its parts.
    """
    inline = [
        buffer
        for buffer, blob in zip(pickled.buffers, blobs, strict=True)
        if blob is None
    ]
    header = {"bundles": [name for name, _ in bundles], "blobs": list(blobs)}
    parts = encode(
        FUNCTION,
        header,
        [pickled.parts, *([data] for _, data in bundles), *([b] for b in inline)],
    )
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest(), parts


def unpack_function(
    data: Buffer,
    install: Callable[[str, memoryview], None],
    blob: Callable[[str], Buffer],
) -> Any:
    """Rebuild a function from its layout.

    Args:
        data: What `pack_function` made, already verified.
        install: Makes the modules of a bundle importable.
        blob: Returns the content of a blob.
    """
    header, buffers = decode(data, FUNCTION)
    bundles: list[str] = header["bundles"]
    for name, archive in zip(bundles, buffers[1:], strict=False):
        install(name, archive)
    return load(buffers[0], arrange(header["blobs"], buffers[1 + len(bundles) :], blob))


def arrange(
    blobs: Sequence[str | None], inline: Iterable[Buffer], blob: Callable[[str], Buffer]
) -> list[Buffer]:
    """Return a pickle's buffers in order, from the envelope and from blobs."""
    rest = iter(inline)
    return [next(rest) if name is None else blob(name) for name in blobs]
