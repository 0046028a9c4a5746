"""What the broken adapters of a platform are made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from wren.conformance.loopback import LoopbackCompute, LoopbackPlatform
from wren.envelope import Buffer
from wren.protocols import Limits, WorkerInfo

# ruff: noqa: ASYNC109  # the contract

MUTANTS: list[type[Sound]] = []

_SOUND_PLATFORM: Final = "wren.conformance.loopback_server"
_PLATFORM: Final = "wren.conformance.mutants.compute_platform"


class Sound:
    """Passes everything on, unchanged, to an adapter that passes the suite."""

    caught_by: ClassVar[tuple[str, ...]] = ()
    """Identities of the checks of which at least one must fail."""

    platform: ClassVar[str] = ""
    """The broken platform that it runs on; ``""`` for the sound one."""

    patience: ClassVar[float] = 20.0
    """Seconds that the checks wait for it; few for one that hangs."""

    def __init_subclass__(
        cls, caught_by: str, *, platform: str = "", patience: float = 20.0
    ) -> None:
        cls.caught_by = tuple(caught_by.split())
        cls.platform = platform
        cls.patience = patience
        MUTANTS.append(cls)

    def __init__(self, *, startable: bool = True) -> None:
        program = [_PLATFORM, self.platform] if self.platform else [_SOUND_PLATFORM]
        self.inner = LoopbackCompute(
            LoopbackPlatform(startable=startable, program=("-m", *program))
        )
        self.deployer = self.inner.deployer

    @property
    def name(self) -> str:
        """See `Compute.name`."""
        return self.inner.name

    @property
    def limits(self) -> Limits:
        """See `Compute.limits`."""
        return self.inner.limits

    async def prepare(self) -> WorkerInfo:
        """See `Compute.prepare`."""
        return await self.inner.prepare()

    async def invoke(
        self,
        request: Sequence[Buffer],
        *,
        timeout: float,
    ) -> Buffer:
        """See `Compute.invoke`."""
        return await self.inner.invoke(request, timeout=timeout)

    async def aclose(self) -> None:
        """See `Compute.aclose`."""
        await self.inner.aclose()
