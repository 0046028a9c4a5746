"""What a platform offers beyond the contract of `Compute`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeTraits:
    """What an adapter declares in `ComputeSuite.traits`.

    The defaults ask for everything. What a platform cannot do is declared, and the
    checks that need it are then reported as not offered; an error that has to be raised
    anyhow is still asked for.
    """

    cancel: bool = True
    """Cancelling an invocation stops its worker."""

    kill_on_timeout: bool = True
    """The end of an invocation's time stops its worker."""

    exit_codes: bool = True
    """A lost worker's exit code or signal is known."""

    last_words: bool = True
    """What a lost worker had printed is known."""

    isolation: bool = True
    """A worker that dies takes no other request with it."""

    clean_place: bool = True
    """Each request finds the current directory and the environment as the first did."""

    clean_temp: bool = True
    """No request finds another one's temporary files."""

    memory: int | None = None
    """Bytes beyond which a worker gets no more memory; None for no limit."""
