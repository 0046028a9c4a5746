"""Adapters that take a refusal for something else, or deploy in the wrong way."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace

import anyio

from wren.conformance.loopback import LoopbackDeployer
from wren.conformance.mutants.sound_compute import Sound
from wren.envelope import REQUEST, Buffer, decode
from wren.errors import (
    ComputeError,
    CredentialsError,
    DeploymentError,
    IntegrityError,
    ThrottledError,
    WorkerLostError,
)
from wren.protocols import Deployment, WorkerInfo

# What a method promises is in `wren.protocols`; how it is broken, in the class.
# ruff: noqa: ASYNC109


class UnpicklesBeforeVersionCheck(Sound, caught_by="C16"):
    """Somebody looks into a request before its versions and digests are checked."""

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        with suppress(IntegrityError):
            _, buffers = decode(b"".join(request), REQUEST)
            for buffer in buffers:
                with suppress(pickle.UnpicklingError, ValueError, EOFError, KeyError):
                    pickle.loads(buffer)  # noqa: S301  # that is what is wrong with it
        return await super().invoke(request, timeout=timeout)


class BootstrapFailureHangs(Sound, caught_by="C17", patience=4.0):
    """A worker that never says hello is waited for."""

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        with suppress(DeploymentError):
            return await super().invoke(request, timeout=timeout)
        await anyio.sleep_forever()
        raise AssertionError


class LostReportedAsNotRun(Sound, caught_by="C07"):
    """Every fault of a connection counts as if nothing had been sent."""

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        try:
            return await super().invoke(request, timeout=timeout)
        except WorkerLostError as exc:
            raise ComputeError("the connection failed") from exc


class ThrottleReportedAsLost(Sound, caught_by="C08"):
    """Everything but success counts as a lost worker, and uses up an attempt."""

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        try:
            return await super().invoke(request, timeout=timeout)
        except ThrottledError as exc:
            raise WorkerLostError("HTTP 429") from exc


class MissingReportedAsLost(Sound, caught_by="C09"):
    """A function that is not there is asked for again."""

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        try:
            return await super().invoke(request, timeout=timeout)
        except DeploymentError as exc:
            raise WorkerLostError("HTTP 404") from exc


class DeniedReportedAsMissing(Sound, caught_by="C10"):
    """A permission that is lacking looks like a function that is."""

    async def invoke(self, request: Sequence[Buffer], *, timeout: float) -> Buffer:
        try:
            return await super().invoke(request, timeout=timeout)
        except CredentialsError as exc:
            raise DeploymentError("the function is not deployed") from exc


# --- what is deployed -----------------------------------------------------------------


class RedeploysEveryTime(Sound, caught_by="C29"):
    """What is there already is not looked for."""

    async def prepare(self) -> WorkerInfo:
        async for found in self.deployer.list():
            await self.deployer.remove(found.name)
        return await super().prepare()


class _Deployer(LoopbackDeployer):
    async def remove(self, name: str) -> None:
        if name not in [found.name async for found in self.list()]:
            raise DeploymentError(f"there is no function {name!r}")
        await super().remove(name)


class RemovesOnce(Sound, caught_by="C32"):
    """Removing what is gone is an error."""

    def __init__(self, *, startable: bool = True) -> None:
        super().__init__(startable=startable)
        self.deployer = _Deployer(self.inner.platform)


class _Forgetful(LoopbackDeployer):
    async def list(self) -> AsyncIterator[Deployment]:
        for found in [each async for each in super().list()]:
            yield replace(found, info=replace(found.info, wren=""))


class ForgetsVersions(Sound, caught_by="C29 C32"):
    """What a function runs is known only to who has deployed it."""

    def __init__(self, *, startable: bool = True) -> None:
        super().__init__(startable=startable)
        self.deployer = self.inner.deployer = _Forgetful(self.inner.platform)
