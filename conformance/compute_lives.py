"""Checks of an adapter's life: deploying, closing, outlasting a connection."""

from __future__ import annotations

import math
import os
import secrets
import threading
from pathlib import Path
from typing import Final

import anyio
import pytest
from anyio import to_thread

from wren.conformance import probes
from wren.conformance.compute_calls import ComputeCalls
from wren.conformance.marks import VALID, Marks, happens
from wren.conformance.request import ask, read
from wren.conformance.spec import Level, check, not_offered
from wren.envelope import unseal
from wren.errors import ComputeError, WorkerLostError
from wren.grants import to_json
from wren.protocols import Compute, Deployer, Deployment, WorkerInfo

# Both event loops keep the threads of `anyio.to_thread` for a while.
_POOLS: Final = ("AnyIO worker thread", "Trio thread", "asyncio_")


class Traces:
    """The processes, threads and descriptors that this process has.

    Making one reads files: not for the loop.
    """

    def __init__(self) -> None:
        self._before = self._all()

    async def new(self) -> set[str]:
        """Return what has come since, and is still there."""
        return await to_thread.run_sync(self._all) - self._before

    async def gone(self) -> bool:
        """Return whether nothing is there that has come since."""
        return not await self.new()

    @staticmethod
    def processes() -> set[str]:
        """Return the children of this process. Reads files: not for the loop."""
        lists = Path("/proc/self/task").glob("*/children")
        return {f"process {pid}" for each in lists for pid in each.read_text().split()}

    @classmethod
    def _all(cls) -> set[str]:
        found = cls.processes()
        for thread in threading.enumerate():
            own = thread is threading.current_thread()
            if not own and not thread.name.startswith(_POOLS):
                found.add(f"thread {thread.name} {thread.ident}")
        for descriptor in os.listdir("/dev/fd"):  # noqa: PTH208  # pathlib opens more
            try:
                target = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
            except OSError:  # it was that of the listing itself
                continue
            found.add(f"descriptor {descriptor} {target}")
        return found


class LifeChecks(ComputeCalls):
    """Deployed once, closed without a trace."""

    @pytest.fixture
    async def before(self) -> Traces:
        """What there is before the compute is made."""
        return await to_thread.run_sync(Traces)

    @check("C26")
    async def test_closing_leaves_nothing(
        self, before: Traces, ready: Compute, marks: Marks
    ) -> None:
        """No process, thread or descriptor is left; closing again does nothing."""
        places, gate = await marks.places("task"), await marks.gate("never")
        lost: list[Exception] = []

        async def interrupted() -> None:
            item = (places, gate, self.patience)
            try:
                await self.call(ready, probes.mark_and_hold, item)
            except ComputeError as exc:
                lost.append(exc)

        await self.call(ready, probes.echo, bytes(1 << 19))
        async with anyio.create_task_group() as group:
            group.start_soon(interrupted)
            await marks.made("task", seconds=self.patience / 2)
            with self.within(self.patience / 2, "the end of closing"):
                await ready.aclose()
                await ready.aclose()

        assert len(lost) == 1
        await happens(before.gone, self.grace)
        assert await before.new() == set()

    @check("C26")
    async def test_closed_is_closed(self, ready: Compute) -> None:
        """Whoever uses a compute after it was closed is told so, and nothing starts."""
        await ready.aclose()

        with self.within(self.patience, "an error"), pytest.raises(ComputeError):
            await ready.invoke(ask(probes.echo, 1), timeout=self.patience)

    @check("C29", Level.EXTENDED)
    async def test_preparing_again_deploys_nothing(
        self, compute: Compute, deployer: Deployer | None
    ) -> None:
        """Twice, or twice at once, the same function is found, deployed once."""
        infos: list[WorkerInfo] = []

        async def prepare() -> None:
            infos.append(await compute.prepare())

        async def deployed() -> set[str]:
            if deployer is None:
                return await to_thread.run_sync(Traces.processes)
            return {f"{found.name} {found.created}" async for found in deployer.list()}

        with self.within(self.patience, "preparing"):
            async with anyio.create_task_group() as group:
                group.start_soon(prepare)
                group.start_soon(prepare)
            before = await deployed()
            await prepare()

        assert await deployed() == before
        assert infos == [infos[0]] * 3

    @check("C32", Level.EXTENDED)
    async def test_functions_are_deployed_listed_and_removed(
        self, compute: Compute, deployer: Deployer | None
    ) -> None:
        """Deploying is idempotent, removing too; the log has what a task wrote."""
        if deployer is None:
            not_offered("deployer")

        async def found(name: str) -> list[Deployment]:
            return [each async for each in deployer.list() if each.name == name]

        with self.within(self.patience, "deploying"):
            first = await deployer.deploy()
            again = await deployer.deploy()

        assert again == first
        assert await found(first.name) == [first]
        assert first.info == await compute.prepare()
        assert first.size > 0
        await self.call(compute, probes.say, "a line of the log")
        assert await happens(lambda: _logged(deployer, first.name), self.patience)

        await deployer.remove(first.name)
        await deployer.remove(first.name)

        assert await found(first.name) == []


async def _logged(deployer: Deployer, name: str) -> bool:
    return any(["a line of the log" in line async for line in deployer.logs(name)])


class DroppedConnectionChecks(ComputeCalls):
    """Work that takes longer than the platform keeps a connection."""

    @pytest.fixture
    def secret(self) -> bytes:
        """The key with which a response is sealed."""
        return secrets.token_bytes(32)

    @check("C30", Level.COMMIT)
    async def test_response_is_stored_when_the_connection_is_dropped(
        self, ready: Compute, marks: Marks, secret: bytes
    ) -> None:
        """A task longer than ``direct_seconds`` runs once; its response is stored."""
        seconds = ready.limits.direct_seconds
        if seconds == math.inf:
            not_offered("direct_seconds")
        grant = await marks.store.grant(
            "out/1", "PUT", expires_in=VALID, if_absent=True
        )
        reply = {
            "grant": to_json(grant),
            "place": "out/1",
            "key": secret.hex(),
            "limit": 1 << 30,
            "after": 0,
        }
        item = (await marks.places("task"), seconds + 1)
        request = ask(probes.mark_and_sleep, item, reply=reply)

        with (
            self.within(seconds + self.patience, "the end of the connection"),
            pytest.raises(WorkerLostError),
        ):
            await ready.invoke(request, timeout=seconds + self.patience)
        await marks.beats("out/1", self.patience)

        stored = unseal(await marks.store.get("out/1"), secret, "out/1")
        assert read(stored).value == "slept"
        assert await marks.count("task") == 1
