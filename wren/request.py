"""Write the request for a batch of tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import perf_counter
from typing import Any, Final

import anyio
from anyio import to_thread

from wren.batch import Batch
from wren.diagnose import unpicklable
from wren.envelope import (
    ARGUMENTS,
    REQUEST,
    Buffer,
    Parts,
    encode,
    encode_text,
    size,
    to_text,
)
from wren.errors import SerializationError
from wren.functions import SHARED_FROM, FunctionPacker, PackedFunction
from wren.protocols import Limits
from wren.run import Run
from wren.serialize import (
    TIME_BUDGET,
    Many,
    OverBudgetError,
    Pickled,
    dump,
    dump_many,
)

_FUNCTION_INLINE: Final = 4 << 20
"""Largest function that requests carry, in bytes; workers fetch a larger one."""

_HEADER_ROOM: Final = 16 * 1024


class UnpicklableItemsError(Exception):
    """Some of a batch's arguments cannot travel; nothing was sent.

    Attributes:
        errors: By position in the batch.
    """

    def __init__(self, errors: dict[int, Exception]) -> None:
        super().__init__(errors)
        self.errors = errors


class RequestWriter:
    """Writes requests within a platform's limits."""

    def __init__(self, limits: Limits, versions: list[str]) -> None:
        self._limits = limits
        self._unlimited = (
            limits.lossless
            and limits.request_bytes == limits.response_bytes == math.inf
        )
        self._versions = versions
        self._packing = anyio.Lock()
        self._plain_key: tuple[str, str, float | None] | None = None
        self._plain_text = b""

    def commits(self, run: Run, seconds: float) -> bool:
        """Whether workers store a response before they send it, if it took long."""
        limits = self._limits
        if seconds > limits.direct_seconds:
            return True
        after = run.options.commit_after
        return after == 0 or (after < seconds and not limits.lossless)

    async def write(
        self, run: Run, batch: Batch, packer: FunctionPacker, seconds: float
    ) -> list[Buffer]:
        """Return the parts of a request.

        Args:
            run: The job.
            batch: The tasks.
            packer: For the job's function, if it is not ready yet.
            seconds: How long the invocation may take.

        Raises:
            UnpicklableItemsError: Some arguments cannot be pickled.
            SerializationError: The function cannot travel.
            StorageError: Something had to be stored and could not be.
        """
        function = run.function or await self._pack(run, packer)
        many = batch.many or await _pickle(batch)
        carry = batch.carry or not function.known
        plain = many.each is None and self._unlimited and not carry
        if plain and not self.commits(run, seconds):
            return encode_text(REQUEST, self._plain(run, function), many.frames)
        header: dict[str, Any] = {
            "versions": self._versions,
            "function": function.identity,
            "call": run.call,
        }
        frames: list[Parts] = []
        values = many.frames
        blobs: dict[str, Any] = {}
        if run.options.timeout is not None:
            header["timeout"] = run.options.timeout
        if many.each is not None:
            header["each"] = many.each
            values = await self._share(run, batch, values, header, blobs)
        if carry:
            await self._carry(run, batch, function, header, frames, blobs)
        if blobs:
            header["blobs"] = blobs
        await self._reply(run, batch, header, seconds)
        room = self._limits.request_bytes - _HEADER_ROOM - sum(map(size, frames))
        if room < math.inf and sum(map(size, values)) > room:
            parts = encode(ARGUMENTS, {}, values)
            header["arguments"] = await run.spill.offer_arguments(
                run.name_request(batch), parts
            )
        else:
            frames += values
        return encode(REQUEST, header, frames)

    def _plain(self, run: Run, function: PackedFunction) -> bytes:
        """Return the header that most requests to processes on this machine have."""
        key = function.identity, run.call, run.options.timeout
        if key != self._plain_key:
            header: dict[str, Any] = {
                "versions": self._versions,
                "function": function.identity,
                "call": run.call,
            }
            if run.options.timeout is not None:
                header["timeout"] = run.options.timeout
            self._plain_key, self._plain_text = key, to_text(header)
        return self._plain_text

    async def _pack(self, run: Run, packer: FunctionPacker) -> PackedFunction:
        async with self._packing:
            if run.function is None:
                run.use(await to_thread.run_sync(packer.pack, run.fn, run.pickled))
                run.pickled = None
            assert run.function is not None  # noqa: S101  # set just now
            return run.function

    async def _carry(
        self,
        run: Run,
        batch: Batch,
        function: PackedFunction,
        header: dict[str, Any],
        frames: list[Parts],
        blobs: dict[str, Any],
    ) -> None:
        for name, data in function.blobs.items():
            blobs[name] = await _offer(run, batch, name, data)
        length = function.size()
        if length <= min(_FUNCTION_INLINE, self._limits.request_bytes / 4):
            header["function_inline"] = True
            frames.append(function.parts)
        else:
            offer = await run.spill.offer_function(function.identity, function.parts)
            header["function_grant"] = offer["grant"]

    async def _share(
        self,
        run: Run,
        batch: Batch,
        frames: list[Parts],
        header: dict[str, Any],
        blobs: dict[str, Any],
    ) -> list[Parts]:
        """Store once what the items of a list have in common, such as one big array.

        Only for lists and the like: all their items exist at the same time, so that one
        array that comes twice has one content. A generator may fill it anew.

        Returns:
            The frames that are to be sent nevertheless.
        """
        outside = frames[2:]
        if not run.source.stable or not any(
            len(part) >= SHARED_FROM for (part,) in outside
        ):
            return frames
        layout: list[str | None] = []
        inline: list[Parts] = []
        for parts in outside:
            name = run.common.name_of(parts[0])
            layout.append(name)
            if name is None:
                inline.append(parts)
            elif name not in blobs:
                blobs[name] = await _offer(run, batch, name, memoryview(parts[0]))
        if blobs:
            header["layout"] = layout
        return [*frames[:2], *inline]

    async def _reply(
        self, run: Run, batch: Batch, header: dict[str, Any], seconds: float
    ) -> None:
        limit = self._limits.response_bytes
        commits = self.commits(run, seconds)
        if not commits and limit == math.inf:
            return
        after = run.options.commit_after if commits else math.inf
        if seconds > self._limits.direct_seconds:
            after = min(after, self._limits.direct_seconds / 2)
        header["reply"] = await run.spill.reply(
            run.name_request(batch), limit, after, seconds
        )


async def _offer(run: Run, batch: Batch, name: str, data: memoryview) -> dict[str, Any]:
    offer = await run.spill.offer(name, data)
    batch.blobs += (name,)  # a request that is written again refers again
    return offer


async def _pickle(batch: Batch) -> Many:
    try:
        many = dump_many(batch.items, _bounded, deadline=perf_counter() + TIME_BUDGET)
    except OverBudgetError:
        many = await to_thread.run_sync(dump_many, batch.items, dump)
    except Exception as exc:  # noqa: BLE001  # any object's pickling may raise anything
        many = Many()
        many.failures[0] = exc
    if many.failures:
        raise UnpicklableItemsError(unpicklable_items(batch.items, many.failures))
    return many


def unpicklable_items(
    items: Sequence[Any], failures: dict[int, BaseException]
) -> dict[int, Exception]:
    """Return what to say of each item that cannot be pickled."""
    errors: dict[int, Exception] = {}
    for position, exc in failures.items():
        error: SerializationError = unpicklable(
            items[position], exc, what="the argument"
        )
        errors[position] = error
    return errors


def _bounded(value: object) -> Pickled:
    return dump(value, bounded=True)
