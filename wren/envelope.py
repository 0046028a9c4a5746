"""Bytes on the wire: one envelope holds a JSON header and any number of raw buffers.

    offset  size  field
    0       4     magic, b"wren"
    4       1     version of this layout
    5       1     kind: what the envelope is
    6       2     reserved, zero
    8       4     length of the header in bytes
    12      4     number of buffers
    16      8     length of the whole envelope in bytes
    24      8·n   length of each buffer
    …             header: JSON, UTF-8
    …             each buffer, starting at a multiple of 64 bytes

All numbers are little-endian. An envelope is written as a list of parts, so that arrays
are sent from where they lie, and read from one contiguous piece of memory, in which the
buffers are views. `decode` checks every length before it looks at any content, and
unpickles nothing: what it cannot trust is an `IntegrityError`.

An envelope that passes through storage is sealed: an HMAC in front, under a key that
travels only inside the invocation, over the place where the envelope belongs and all of
its bytes. Who can merely write to the store can neither forge nor swap one.
"""

from __future__ import annotations

import hmac
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from wren.errors import IntegrityError

Buffer: TypeAlias = bytes | bytearray | memoryview
Parts: TypeAlias = Sequence[Buffer]

REQUEST: Final = 1
RESPONSE: Final = 2
FUNCTION: Final = 3
ARGUMENTS: Final = 4

_MAGIC: Final = b"wren"
_VERSION: Final = 1
_FIXED: Final = struct.Struct("<4sBBHIIQ")
_ALIGN: Final = 64  # a cache line; also enough for every SIMD type of numpy
_PADDING: Final = bytes(_ALIGN)
_MAC_BYTES: Final = 32

# Most requests to a worker have the same header as the one before.
_SHORT: Final = 1024
_HEADERS_KEPT: Final = 64
_headers: dict[bytes, dict[str, Any]] = {}

# Compact, and without the set-up that json.dumps repeats on every call.
_to_json: Final = json.JSONEncoder(separators=(",", ":")).encode
_from_json: Final = json.JSONDecoder().decode


def size(parts: Parts) -> int:
    """Return the length of all parts together, in bytes."""
    return sum(map(len, parts))


def encode(
    kind: int, header: Mapping[str, object], buffers: Sequence[Parts]
) -> list[Buffer]:
    """Lay out one envelope.

    Args:
        kind: One of this module's constants.
        header: What JSON can hold.
        buffers: Each may itself be in parts; they are referred to, not copied.

    Returns:
        The envelope's parts, in order. Memoryviews among them must be of bytes.
    """
    return encode_text(kind, to_text(header), buffers)


def to_text(header: Mapping[str, object]) -> bytes:
    """Return a header as `encode` writes it."""
    return _to_json(header).encode()


def encode_text(kind: int, text: bytes, buffers: Sequence[Parts]) -> list[Buffer]:
    """Lay out one envelope like `encode`, with a header that is text already."""
    lengths = [size(parts) for parts in buffers]
    position = _FIXED.size + 8 * len(lengths) + len(text)
    body: list[Buffer] = []
    for length, parts in zip(lengths, buffers, strict=True):
        gap = -position % _ALIGN
        if gap:
            body.append(_PADDING[:gap])
        body.extend(parts)
        position += gap + length
    fixed = _FIXED.pack(_MAGIC, _VERSION, kind, 0, len(text), len(lengths), position)
    table = struct.pack(f"<{len(lengths)}Q", *lengths)
    return [b"".join((fixed, table, text)), *body]


def decode(data: Buffer, kind: int) -> tuple[dict[str, Any], list[memoryview]]:
    """Read one envelope, checking it before believing it.

    Args:
        data: The whole envelope and nothing else.
        kind: The kind that is expected here.

    Returns:
        The header, which is not to be changed, and views into ``data``, as writable as
        ``data`` is.

    Raises:
        IntegrityError: ``data`` is not exactly one envelope of this version and kind.
    """
    view = memoryview(data)
    if len(view) < _FIXED.size:
        raise IntegrityError(f"{len(view)} bytes are too few for an envelope")
    magic, version, found, zero, text_bytes, count, total = _FIXED.unpack_from(view)
    if magic != _MAGIC or zero:
        raise IntegrityError("this is not an envelope")
    if version != _VERSION:
        raise IntegrityError(f"envelope version {version}; this is version {_VERSION}")
    if found != kind:
        raise IntegrityError(f"an envelope of kind {found}, where {kind} belongs")
    if total != len(view):
        raise IntegrityError(f"an envelope of {total} bytes in {len(view)}")
    start = _FIXED.size + 8 * count
    position = start + text_bytes
    if position > total:
        raise IntegrityError("the envelope's header runs over its end")
    buffers: list[memoryview] = []
    for length in struct.unpack_from(f"<{count}Q", view, _FIXED.size):
        position += -position % _ALIGN
        buffers.append(view[position : position + length])
        position += length
    if position != total:
        raise IntegrityError("the envelope's buffers do not add up to its length")
    text = bytes(view[start : start + text_bytes])
    return _header(text, repeats=kind == REQUEST), buffers


def _header(text: bytes, *, repeats: bool) -> dict[str, Any]:
    known = _headers.get(text) if repeats else None
    if known is not None:
        return known
    try:
        header = _from_json(text.decode())
    except (ValueError, RecursionError) as exc:
        raise IntegrityError("the envelope's header is not JSON") from exc
    if not isinstance(header, dict):
        raise IntegrityError("the envelope's header is not an object")
    found: dict[str, Any] = header  # pyright: ignore[reportUnknownVariableType]
    if repeats and len(text) < _SHORT:
        if len(_headers) == _HEADERS_KEPT:
            _headers.clear()
        _headers[text] = found
    return found


def seal(parts: Parts, key: bytes, place: str) -> list[Buffer]:
    """Sign an envelope for storage.

    Args:
        parts: The envelope.
        key: The job's secret.
        place: Where the envelope belongs, such as its storage key: one that is moved
            elsewhere no longer verifies.
    """
    return [_mac(parts, key, place), *parts]


def unseal(data: Buffer, key: bytes, place: str) -> memoryview:
    """Verify what `seal` signed and return the envelope.

    Raises:
        IntegrityError: Altered, truncated, moved, or signed with another key.
    """
    view = memoryview(data)
    if len(view) < _MAC_BYTES or not hmac.compare_digest(
        view[:_MAC_BYTES], _mac([view[_MAC_BYTES:]], key, place)
    ):
        raise IntegrityError(f"the object at {place!r} was not written by this job")
    return view[_MAC_BYTES:]


def _mac(parts: Parts, key: bytes, place: str) -> bytes:
    where = place.encode()
    mac = hmac.new(key, struct.pack("<QQ", len(where), size(parts)) + where, "sha256")
    for part in parts:
        mac.update(part)
    return mac.digest()
