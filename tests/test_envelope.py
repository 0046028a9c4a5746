"""Envelopes come back as they were, and bytes that were tampered with do not."""

from __future__ import annotations

import pickle
import struct
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wren import envelope
from wren.envelope import (
    ARGUMENTS,
    FUNCTION,
    REQUEST,
    RESPONSE,
    Buffer,
    decode,
    encode,
    seal,
    size,
    unseal,
)
from wren.errors import IntegrityError

KINDS = (REQUEST, RESPONSE, FUNCTION, ARGUMENTS)
FIXED = struct.Struct("<4sBBHIIQ")
KEY = bytes(range(32))
PLACE = "wren/jobs/1/out/7"

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
headers = st.dictionaries(st.text(), json_values, max_size=5)
buffers = st.lists(st.lists(st.binary(max_size=200), max_size=3), max_size=6)

detonated: list[str] = []


class Canary:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return detonated.append, ("unpickled",)


def join(parts: list[Buffer]) -> bytes:
    return b"".join(parts)


def sample(kind: int = RESPONSE) -> bytes:
    """Return an envelope with buffers of several lengths; the second is a pickle."""
    pickled = pickle.dumps(Canary())
    contents = [[b"one"], [pickled], [b""], [b"x" * 100, b"y" * 29]]
    return join(encode(kind, {"each": [1, 2], "name": "é"}, contents))


def refused(data: Buffer, kind: int = RESPONSE) -> str:
    """Check that `decode` refuses, with the one error it has; return what it says."""
    with pytest.raises(IntegrityError) as caught:
        decode(data, kind)
    assert type(caught.value) is IntegrityError
    assert not detonated
    return str(caught.value)


# --- what is well formed --------------------------------------------------------------


@settings(deadline=None)
@given(kind=st.sampled_from(KINDS), header=headers, contents=buffers)
@example(kind=REQUEST, header={}, contents=[])
@example(kind=REQUEST, header={"": "\ud800"}, contents=[[], [b""], [b"", b""]])
def test_an_envelope_comes_back_as_it_was(
    kind: int, header: dict[str, Any], contents: list[list[bytes]]
) -> None:
    """Whatever JSON can hold, and buffers in any number of parts."""
    parts = encode(kind, header, contents)
    data = join(parts)

    found, views = decode(data, kind)

    assert size(parts) == len(data)
    assert found == header
    assert [bytes(view) for view in views] == [b"".join(each) for each in contents]


@settings(deadline=None)
@given(one=headers, other=headers)
def test_headers_are_not_mixed_up(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Headers that were read before are remembered, and must not stand in."""
    for header in (one, other, one):
        assert decode(join(encode(REQUEST, header, [])), REQUEST)[0] == header


def test_many_different_headers_are_each_read() -> None:
    """What is remembered has a limit, and its end is not a special case."""
    for number in [*range(200), *range(200)]:
        data = join(encode(REQUEST, {"number": number}, []))
        assert decode(data, REQUEST)[0] == {"number": number}
    assert len(envelope._headers) < 100  # pyright: ignore[reportPrivateUsage]


@settings(deadline=None)
@given(header=headers, contents=buffers)
def test_buffers_are_aligned(
    header: dict[str, Any], contents: list[list[bytes]]
) -> None:
    """Arrays are built over them, and vector instructions want multiples of 64."""
    data = bytearray(join(encode(REQUEST, header, contents)))
    begin = np.frombuffer(data, np.uint8).ctypes.data

    for view in decode(data, REQUEST)[1]:
        if len(view):
            assert (np.frombuffer(view, np.uint8).ctypes.data - begin) % 64 == 0


def test_large_parts_are_referred_to() -> None:
    """An array of gigabytes is sent from where it lies."""
    large, view = b"x" * 100_000, memoryview(bytearray(100_000))

    parts = encode(REQUEST, {}, [[b"pickle", large], [view]])

    assert any(part is large for part in parts)
    assert any(part is view for part in parts)


def test_buffers_are_views_as_writable_as_the_memory_that_was_received() -> None:
    """Arrays made over them must be as good as new, without a copy."""
    data = join(encode(REQUEST, {}, [[b"content"]]))
    memory = bytearray(data)

    (fixed,), (changeable,) = decode(data, REQUEST)[1], decode(memory, REQUEST)[1]
    memory[-1:] = b"S"

    assert fixed.readonly
    assert not changeable.readonly
    assert bytes(changeable) == b"contenS"


# --- what is not ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", [*KINDS, 0, 255])
def test_another_kind_is_refused(kind: int, other: int) -> None:
    """A function stored where a result belongs is not taken for one."""
    if other != kind:
        assert f"kind {other}" in refused(sample(other), kind)


def test_every_truncation_is_refused() -> None:
    """Objects arrive cut short, and empty, without any error."""
    whole = sample()
    for length in range(len(whole)):
        refused(whole[:length])


@settings(deadline=None)
@given(more=st.binary(min_size=1, max_size=200))
@example(more=bytes(1))
@example(more=bytes(64))
@example(more=sample())
def test_every_extension_is_refused(more: bytes) -> None:
    """Nothing can be appended to what was checked, not even another envelope."""
    refused(sample() + more)
    refused(more + sample())


def test_every_flipped_bit_of_the_first_fields_is_refused() -> None:
    """These say what an envelope is and how long; none of their values is arbitrary."""
    whole = sample()
    for bit in range(8 * FIXED.size):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        refused(flipped)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_any_damage_gives_one_error_or_an_envelope(data: st.DataObject) -> None:
    """No damage ends in another exception, and none makes `decode` unpickle."""
    damaged = bytearray(sample())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(
            st.integers(0, 255)
        )
    try:
        header, views = decode(damaged, RESPONSE)
    except IntegrityError:
        return
    finally:
        assert not detonated
    assert type(header) is dict
    assert size(views) <= len(damaged)


@settings(deadline=None)
@given(data=st.binary(max_size=300), start=st.integers(0, FIXED.size))
def test_noise_is_refused(data: bytes, start: int) -> None:
    """Also where it begins like an envelope."""
    noise = sample()[:start] + data
    if noise != sample():
        refused(noise)


@pytest.mark.parametrize(
    ("fields", "table"),
    [
        ((4, 0, 1 << 63), b""),
        ((4, 0, (1 << 64) - 1), b""),
        ((0xFFFFFFFF, 0, None), b""),
        ((2, 1 << 31, None), b""),
        ((2, 0xFFFFFFFF, None), b""),
        ((0xFFFFFFFF, 0xFFFFFFFF, None), b""),
        ((2, 1, None), struct.pack("<Q", 1 << 63)),
        ((2, 1, None), struct.pack("<Q", (1 << 64) - 1)),
        # Added up modulo 2**64, these lengths are right.
        ((2, 2, None), struct.pack("<2Q", (1 << 64) - 64, 64)),
        ((2, 3, None), struct.pack("<3Q", 1 << 63, 1 << 63, 0)),
        # These leave a rest that belongs to nothing.
        ((2, 1, None), struct.pack("<Q", 10)),
        ((2, 0, None), b""),
    ],
)
def test_numbers_that_do_not_fit_the_data_are_refused_without_allocating(
    fields: tuple[int, int, int | None], table: bytes
) -> None:
    """Twenty-four bytes must not make a process ask for exabytes."""
    text_bytes, count, total = fields
    rest = table + b"{}" + bytes(64)
    length = FIXED.size + len(rest) if total is None else total
    data = FIXED.pack(b"wren", 1, RESPONSE, 0, text_bytes, count, length) + rest

    tracemalloc.start()
    try:
        refused(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1 << 20


@pytest.mark.parametrize("kind", [REQUEST, RESPONSE])
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"{} {}",
        b"null",
        b"[]",
        b'"wren"',
        b"{'versions': 1}",
        b"9" * 5000,
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
    ids=range(11),
)
def test_a_header_that_is_no_json_object_is_refused(kind: int, text: bytes) -> None:
    """Also one that is nested deeper than the parser goes, and a number too long."""
    fixed = FIXED.pack(b"wren", 1, kind, 0, len(text), 0, FIXED.size + len(text))
    refused(fixed + text, kind)


def test_another_version_is_named() -> None:
    """Who mixes versions of wren is told so, not that the data is broken."""
    data = bytearray(sample())
    data[4] = 2
    assert "version 2" in refused(data)


# --- what passes through storage ------------------------------------------------------


def sealed(place: str = PLACE, key: bytes = KEY) -> bytes:
    return join(seal([sample()], key, place))


def refused_seal(data: Buffer, key: bytes = KEY, place: str = PLACE) -> None:
    with pytest.raises(IntegrityError):
        unseal(data, key, place)
    assert not detonated


def test_a_sealed_envelope_comes_back_without_a_copy() -> None:
    """However it was divided into parts when it was signed."""
    whole = sample()
    parts: list[Buffer] = [whole[:10], memoryview(whole)[10:99], bytearray(whole[99:])]
    memory = bytearray(join(seal(parts, KEY, PLACE)))

    view = unseal(memory, KEY, PLACE)

    assert bytes(view) == whole
    assert view.obj is memory


def test_an_unsigned_object_is_refused() -> None:
    """Whoever can write to a bucket writes what he likes, but signs nothing."""
    refused_seal(sample())
    refused_seal(bytes(32) + sample())


def test_another_jobs_signature_is_refused() -> None:
    """The result of an older job, under the same name, was signed with another key."""
    refused_seal(sealed(key=bytes(32)))


def test_an_object_that_was_moved_is_refused() -> None:
    """The result of one task, copied to where that of another belongs, is genuine."""
    for one, other in pairwise(["out/3", "out/7", "out/", ""]):
        refused_seal(sealed(one), place=other)
        refused_seal(sealed(other), place=one)


def test_place_and_content_cannot_trade_bytes() -> None:
    """The signature covers where the place ends."""
    signed = join(seal([b"tail"], KEY, "place"))
    refused_seal(signed[:32] + b"e" + b"tail", place="plac")
    refused_seal(signed[:32] + b"ail", place="placet")


def test_every_flipped_bit_of_a_sealed_object_is_refused() -> None:
    """Of the signature, of the header, of the content, of the padding."""
    whole = sealed()
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        refused_seal(flipped)


def test_every_truncation_and_extension_of_a_sealed_object_is_refused() -> None:
    """Down to nothing, which is what some stores return for a moment."""
    whole = sealed()
    for length in range(len(whole)):
        refused_seal(whole[:length])
    refused_seal(whole + b"\0")
    refused_seal(b"\0" + whole)
