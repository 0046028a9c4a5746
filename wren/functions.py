"""Functions made ready to travel, once for each map."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from secrets import token_hex
from types import FunctionType
from typing import Any, Final

from wren import modules
from wren.chunks import Pace
from wren.diagnose import unpicklable
from wren.envelope import size
from wren.serialize import OverBudgetError, Pickled, dump, pack_function

SHARED_FROM: Final = 1 << 20
"""Bytes from which a buffer is stored once for all workers and requests."""

_FRESH_SECONDS: Final = 1.0
_KEPT: Final = 256
_SMALL: Final = 64 * 1024


class PackedFunction:
    """A function as the envelope carries it.

    Attributes:
        identity: SHA-256 of ``parts``.
        parts: What `wren.serialize.pack_function` made.
        blobs: Large buffers of the function, by the names that ``parts`` uses.
        pace: How fast its tasks are, as far as that is known.
        known: A worker has it. Requests need not carry it, until one says otherwise.
    """

    __slots__ = ("_bundles", "_pickled", "blobs", "identity", "known", "pace", "parts")

    def __init__(
        self, pickled: Pickled, bundles: Sequence[modules.Bundle], pace: Pace
    ) -> None:
        self._pickled = pickled
        self._bundles = bundles
        # The names are not hashes: of 256 MB, a hash takes longer than the copy.
        names = [
            token_hex(16) if len(buffer) >= SHARED_FROM else None
            for buffer in pickled.buffers
        ]
        self.blobs = {
            name: buffer
            for name, buffer in zip(names, pickled.buffers, strict=True)
            if name is not None
        }
        self.identity, self.parts = pack_function(
            pickled, [(bundle.id, bundle.data) for bundle in bundles], names
        )
        self.pace = pace
        self.known = False

    def size(self) -> int:
        """Return the length of ``parts`` in bytes."""
        return size(self.parts)

    @property
    def pickle(self) -> bytes:
        """The function alone, without what stayed outside its pickle."""
        return b"".join(self._pickled.parts)

    def with_bundle(self, bundle: modules.Bundle) -> PackedFunction | None:
        """Return this function with one more local module; None if it has it."""
        if any(bundle.id == had.id for had in self._bundles):
            return None
        return PackedFunction(self._pickled, [*self._bundles, bundle], self.pace)


class FunctionPacker:
    """Pickles functions and remembers what it learned about them.

    What was packed is good for a second without looking again: only the file of a
    module that it needs could have changed.
    """

    def __init__(self) -> None:
        self._by_name: dict[Callable[..., Any], tuple[float, PackedFunction]] = {}
        self._by_value: dict[bytes, tuple[float, PackedFunction]] = {}
        self._by_identity: dict[str, PackedFunction] = {}
        self._missed: dict[bytes, list[str]] = {}

    def dump(self, fn: Callable[..., Any]) -> PackedFunction | Pickled | None:
        """Pickle a function at the call; None if that takes longer than the loop may.

        Returns:
            The function ready to travel if it is known, or its pickle for `pack`.

        Raises:
            SerializationError: It cannot be pickled; names the attribute.
        """
        fresh = time.monotonic() - _FRESH_SECONDS
        # Not any callable: its __hash__ and __eq__ would be the user's.
        if type(fn) is FunctionType and (found := self._by_name.get(fn)):
            since, packed = found
            if since > fresh:
                return packed
        pickled = _dump(fn, bounded=True)
        if pickled is not None and not pickled.buffers:
            known = self._by_value.get(b"".join(pickled.parts))
            if known is not None and known[0] > fresh:
                return known[1]
        return pickled

    def pack(self, fn: Callable[..., Any], pickled: Pickled | None) -> PackedFunction:
        """Add the local modules that a function needs. Reads files: not for the loop.

        Args:
            fn: The function.
            pickled: What `dump` returned.

        Raises:
            SerializationError: A module cannot travel, such as a C extension.
        """
        if pickled is None:
            pickled = _dump(fn, bounded=False)
        assert pickled is not None  # noqa: S101  # not bounded
        value = b"".join(pickled.parts)
        found = [modules.collect(fn, value)]
        found += [modules.find(name) for name in self._missed.get(value, ())]
        bundles = {bundle.id: bundle for bundle in found if bundle is not None}
        packed = PackedFunction(pickled, [*bundles.values()], Pace())
        if pickled.buffers or len(value) >= _SMALL:
            return packed  # what it holds is not to be kept alive
        packed = self._by_identity.setdefault(packed.identity, packed)
        now = time.monotonic()
        self._by_value[value] = now, packed
        if _travels_by_name(fn):
            self._by_name[fn] = now, packed
        _forget_oldest(self._by_name)
        _forget_oldest(self._by_value)
        _forget_oldest(self._by_identity)
        _forget_oldest(self._missed)
        return packed

    def with_module(self, function: PackedFunction, name: str) -> PackedFunction | None:
        """Add a module that a worker missed when it unpickled arguments.

        The function will have it from then on, in its current version each time. Reads
        files: not for the loop.

        Returns:
            None if that is no help: there is no such local module, or it was sent.

        Raises:
            SerializationError: The module cannot travel.
        """
        bundle = modules.find(name)
        extended = None if bundle is None else function.with_bundle(bundle)
        if extended is None:
            return None
        value = function.pickle
        self._missed.setdefault(value, []).append(name)
        self._by_value.pop(value, None)
        for fn in [fn for fn, (_, had) in self._by_name.items() if had is function]:
            del self._by_name[fn]
        return extended


def _forget_oldest(kept: dict[Any, Any]) -> None:
    while len(kept) > _KEPT:
        del kept[next(iter(kept))]


def _dump(fn: Callable[..., Any], *, bounded: bool) -> Pickled | None:
    """Pickle a function; None if ``bounded`` and it takes too long.

    Raises:
        SerializationError: It cannot be pickled; names the attribute.
    """
    try:
        return dump(fn, bounded=bounded)
    except OverBudgetError:
        return None
    except Exception as exc:  # any object's pickling may raise anything
        raise unpicklable(fn, exc, what="the function") from exc


def _travels_by_name(fn: Callable[..., Any]) -> bool:
    if type(fn) is not FunctionType or fn.__module__ == "__main__":
        return False
    module = sys.modules.get(fn.__module__)
    return getattr(module, fn.__qualname__, None) is fn
