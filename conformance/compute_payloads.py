"""Checks of requests and responses: whole, executed once, refused if too large."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import anyio
import pytest

from wren.conformance import probes
from wren.conformance.compute_calls import ComputeCalls
from wren.conformance.marks import Marks
from wren.conformance.request import ask
from wren.conformance.spec import Level, check, not_offered
from wren.envelope import Buffer, size
from wren.errors import PayloadTooLargeError, RemoteError
from wren.protocols import Compute

_LARGE: Final = 1 << 20
_MANY: Final = 8
_HEADER: Final = 4096
_ROOM: Final = 64 * 1024  # for what a response holds besides the value


def fitting(count: float, places: Sequence[dict[str, Any]] = ()) -> list[Buffer]:
    """Return a request of exactly so many bytes, whose task says how much it got.

    Args:
        count: How many.
        places: Where the task makes a mark.
    """
    function = partial(probes.mark_and_measure, places)
    length = int(count) - _HEADER
    while True:
        request = ask(function, bytes(length))
        missing = int(count) - size(request)
        if not missing:
            return request
        length += missing


def several(compute: Compute) -> int:
    """Return how many invocations may be under way, running or waiting; or enough."""
    return min(compute.limits.concurrency + compute.limits.queue, _MANY)


class PayloadChecks(ComputeCalls):
    """One request, one execution, one response: all of it, or an error that says so."""

    @check("C01")
    async def test_payload_comes_back(self, ready: Compute) -> None:
        """Bytes of every value come back as they were, few and many."""
        for data in (bytes(range(256)), bytes(range(251)) * 1200):
            value = (await self.call(ready, probes.echo, data)).value

            same = value == data  # kept apart: pytest would compare them line by line
            assert len(value) == len(data)
            assert same

    @check("C01")
    async def test_large_payload_comes_back(self, ready: Compute) -> None:
        """A mebibyte, or half of what the platform takes, in both directions."""
        most = min(ready.limits.request_bytes, ready.limits.response_bytes) / 2
        data = (bytes(range(251)) * 5000)[: int(min(_LARGE, most))]

        value = (await self.call(ready, probes.echo, data)).value

        same = value == data
        assert len(value) == len(data)
        assert same

    @check("C01")
    async def test_each_request_gets_its_own_answer(self, ready: Compute) -> None:
        """Also when many are under way at the same time."""
        answers: dict[int, Any] = {}

        async def one(number: int) -> None:
            answers[number] = (await self.call(ready, probes.echo, number)).value

        async with anyio.create_task_group() as group:
            for number in range(several(ready)):
                group.start_soon(one, number)

        assert answers == {number: number for number in answers}

    @check("C02")
    async def test_no_bytes_are_a_payload(self, ready: Compute) -> None:
        """An empty argument, an empty result, and a request without a task."""
        assert (await self.call(ready, probes.echo, b"")).value == b""
        assert (await self.send(ready, ask(probes.echo))).results == []

    @check("C02")
    async def test_the_largest_request_is_taken(self, ready: Compute) -> None:
        """A request of exactly ``limits.request_bytes``; without a limit, 32 MiB."""
        most = min(ready.limits.request_bytes, 32 << 20)

        answer = await self.send(ready, fitting(most))

        assert most - 2 * _HEADER < answer.value < most

    @check("C03")
    async def test_larger_request_is_refused(
        self, ready: Compute, marks: Marks
    ) -> None:
        """One byte more than ``limits.request_bytes`` is refused, and not executed."""
        most = ready.limits.request_bytes
        if most == math.inf:
            not_offered("a limit of requests")
        request = fitting(most + 1, await marks.places("executed"))

        with (
            self.within(self.patience, "a refusal"),
            pytest.raises(PayloadTooLargeError) as caught,
        ):
            await ready.invoke(request, timeout=self.patience)

        assert not caught.value.may_have_run
        assert await marks.count("executed") == 0

    @check("C04")
    async def test_larger_response_is_refused(self, ready: Compute) -> None:
        """One beyond ``limits.response_bytes`` is an error, one below it arrives."""
        most = ready.limits.response_bytes
        if most == math.inf:
            not_offered("a limit of responses")

        below = await self.call(ready, probes.fill, int(most) - _ROOM)
        with (
            self.within(self.patience, "a refusal"),
            pytest.raises(PayloadTooLargeError),
        ):
            await ready.invoke(ask(probes.fill, int(most)), timeout=self.patience)

        assert len(below.value) == int(most) - _ROOM

    @check("C05")
    async def test_one_invocation_is_one_execution(
        self, ready: Compute, marks: Marks
    ) -> None:
        """Every request runs exactly once, also among others."""
        names = [f"task-{number}" for number in range(several(ready))]

        async def one(name: str) -> None:
            await self.call(ready, probes.mark, await marks.places(name))

        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(one, name)

        assert [await marks.count(name) for name in names] == [1] * len(names)

    @check("C11")
    async def test_what_a_task_raises_is_answered(self, ready: Compute) -> None:
        """An exception is a result, of a compute that works; whatever kind it is."""
        request = ask(probes.fail, "lookup", "exit", "interrupt", "own")

        first, *others = (await self.send(ready, request)).results

        assert isinstance(first, LookupError)
        assert [type(other) for other in others] == [RemoteError] * 3
        names = [other.type_name.rpartition(".")[2] for other in others]
        assert names == ["SystemExit", "KeyboardInterrupt", "_TwoArgumentsError"]

    @check("C24", Level.SCALE)
    async def test_invocations_overlap(self, ready: Compute, marks: Marks) -> None:
        """As many as are declared run at the same time; of many, the first eight."""
        names = [
            f"task-{number}" for number in range(min(ready.limits.concurrency, _MANY))
        ]
        gate = await marks.gate("gate")
        answers: list[Any] = []

        async def one(name: str) -> None:
            item = (await marks.places(name), gate, self.patience)
            answers.append(await self.call(ready, probes.mark_and_hold, item))

        async with anyio.create_task_group() as group:
            for name in names:
                group.start_soon(one, name)
            await marks.made(*names, seconds=self.patience / 2)
            await marks.open("gate")

        assert len([answer.value for answer in answers]) == len(names)
