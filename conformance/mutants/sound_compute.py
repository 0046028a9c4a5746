"""What the broken adapters of a platform are made from."""

from __future__ import annotations

from typing import ClassVar, Final

from wren.conformance.loopback import LoopbackCompute, LoopbackPlatform
from wren.conformance.wrappers import WrappedCompute

# the contract

MUTANTS: list[type[Sound]] = []

_SOUND_PLATFORM: Final = "wren.conformance.loopback_server"
_PLATFORM: Final = "wren.conformance.mutants.compute_platform"


class Sound(WrappedCompute[LoopbackCompute]):
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
        platform = LoopbackPlatform(startable=startable, program=("-m", *program))
        super().__init__(LoopbackCompute(platform))
        self.deployer = self.inner.deployer
