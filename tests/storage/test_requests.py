"""How a remote store's requests are limited and tried again."""

from __future__ import annotations

import anyio
import pytest

from wren.config import Settings
from wren.errors import KeyNotFoundError, TransientError
from wren.storage.requests import Requests, pool_size

pytestmark = pytest.mark.anyio


class Answers:
    """Fails a number of times, then answers."""

    def __init__(self, failures: int, error: type[Exception] = TransientError) -> None:
        self.failures = failures
        self.error = error
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return "answer"


def draw_nothing(_attempt: int) -> float:
    """Draw the shortest pause."""
    return 0.0


def draw_long(_attempt: int) -> float:
    """Draw a pause that outlasts the test."""
    return 30.0


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw every pause as zero."""
    monkeypatch.setattr("wren.storage.requests.jitter", draw_nothing)


@pytest.mark.usefixtures("no_pauses")
async def test_a_transient_fault_is_tried_again() -> None:
    """Six tries in all."""
    send = Answers(5)

    assert await Requests(1).run(send) == "answer"
    assert send.calls == 6


@pytest.mark.usefixtures("no_pauses")
async def test_the_last_fault_is_raised() -> None:
    """Nothing is tried for ever."""
    send = Answers(99)

    with pytest.raises(TransientError):
        await Requests(1).run(send)

    assert send.calls == 6


async def test_nothing_is_tried_beyond_the_patience() -> None:
    """A pause that would end too late is not begun."""
    send = Answers(99)

    with pytest.raises(TransientError):
        await Requests(1, patience=0).run(send)

    assert send.calls == 1


async def test_another_fault_is_final() -> None:
    """What cannot help is not done."""
    send = Answers(1, KeyNotFoundError)

    with pytest.raises(KeyNotFoundError):
        await Requests(1).run(send)

    assert send.calls == 1


async def test_no_more_than_the_slots_are_in_flight() -> None:
    """The rest wait before they are made, so that they are signed late."""
    requests = Requests(3)
    flying = most = 0

    async def send() -> None:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await anyio.lowlevel.checkpoint()
        flying -= 1

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(requests.run, send)

    assert most == 3


async def test_a_pausing_request_holds_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that refuses one request must not stop the others."""
    monkeypatch.setattr("wren.storage.requests.jitter", draw_long)
    requests = Requests(1)
    refused = anyio.Event()

    async def refuse() -> None:
        refused.set()
        raise TransientError

    async with anyio.create_task_group() as group:
        group.start_soon(requests.run, refuse)
        await refused.wait()
        with anyio.fail_after(10):
            assert await requests.run(Answers(0)) == "answer"
        group.cancel_scope.cancel()


def test_the_pool_follows_the_concurrency_within_bounds() -> None:
    """Small pools starve a job's own reads; large ones run out of descriptors."""
    sizes = [pool_size(Settings(concurrency=n)) for n in (None, 1, 100, 5000)]

    assert sizes == [64, 64, 100, 256]
