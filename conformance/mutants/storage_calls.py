"""Stores that do not stand many calls, cancelled ones or closing."""

from __future__ import annotations

import os
import time

import anyio
from anyio.lowlevel import checkpoint

from wren.conformance.mutants.sound_storage import Sound
from wren.errors import TransientError
from wren.protocols import Buffer


class ShieldsCancel(Sound, caught_by="S31"):
    """Is deaf to cancellation."""

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        data = b""
        with anyio.CancelScope(shield=True):
            data = await self.inner.get(key, start=start, stop=stop)
        return data  # noqa: RET504  # type checkers believe that the scope swallows

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        with anyio.CancelScope(shield=True):
            await self.inner.put(key, data, if_absent=if_absent)


class LeaksOnGetCancel(Sound, caught_by="S31"):
    """Has 32 connections and loses one with each get that is cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.free = 32

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        if not self.free:
            raise TransientError("no connection is free", key=key)
        self.free -= 1
        for _ in range(20):  # as many turns as a network may take
            await checkpoint()
        data = await self.inner.get(key, start=start, stop=stop)
        self.free += 1
        return data


class CancelledPutIsTorn(Sound, caught_by="S32 S45"):
    """Writes in place, piece by piece."""

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        view = memoryview(data)
        if len(view) < 2 or if_absent:
            await self.inner.put(key, data, if_absent=if_absent)
            return
        await self.inner.put(key, view[: len(view) // 2])
        await checkpoint()
        await self.inner.put(key, data)


class BlocksEventLoop(Sound, caught_by="S33"):
    """Is a synchronous client behind an async name."""

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        time.sleep(len(data) * 1e-9)  # noqa: ASYNC251  # the fault
        put = self.inner.put(key, data, if_absent=if_absent)
        try:
            while True:  # to its end, without giving way
                put.send(None)
        except StopIteration:
            return


class NotConcurrent(Sound, caught_by="S33"):
    """Breaks when two tasks read at once."""

    def __init__(self) -> None:
        super().__init__()
        self.busy = False

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        if self.busy:
            raise RuntimeError("read() called while another coroutine is waiting")
        self.busy = True
        try:
            await checkpoint()
            return await self.inner.get(key, start=start, stop=stop)
        finally:
            self.busy = False


class WorksAfterClose(Sound, caught_by="S34"):
    """Opens a new connection for whoever asks."""

    async def aclose(self) -> None:
        """Keep everything."""


class LeaksDescriptors(Sound, caught_by="S34"):
    """Leaves something open behind each put."""

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        await self.inner.put(key, data, if_absent=if_absent)
        os.open(os.devnull, os.O_RDONLY)
