"""Calls that other writers come between."""

from __future__ import annotations

import pytest

from wren.errors import KeyNotFoundError, TransientError
from wren.storage.undisturbed import DisturbedError, undisturbed

pytestmark = pytest.mark.anyio


class Call:
    """Fails a number of times, then answers."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures = failures
        self.error = error
        self.begun = 0

    async def __call__(self) -> str:
        self.begun += 1
        if self.begun <= self.failures:
            raise self.error
        return "answer"


async def test_a_disturbed_call_begins_anew() -> None:
    """Five times; then it is left alone."""
    call = Call(5, DisturbedError())

    assert await undisturbed(call) == "answer"
    assert call.begun == 6


async def test_writers_without_end_are_told() -> None:
    """With store and key, and as something that may pass."""
    call = Call(99, DisturbedError(store="s", key="k"))

    with pytest.raises(TransientError, match="other writers came between") as caught:
        await undisturbed(call)

    assert (call.begun, caught.value.store, caught.value.key) == (6, "s", "k")


async def test_another_error_is_final() -> None:
    """Beginning anew cannot help."""
    call = Call(1, KeyNotFoundError())

    with pytest.raises(KeyNotFoundError):
        await undisturbed(call)

    assert call.begun == 1
