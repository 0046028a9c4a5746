"""Which calls go wrong, and how: a script that is replayed and accounted for.

A plan is played by `wren.conformance.faulty_storage.FaultyStorage`,
`wren.conformance.faulty_compute.FaultyCompute` and
`wren.conformance.proxy.FaultProxy`; one plan may be shared by all of them.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from fnmatch import fnmatchcase
from itertools import count
from types import TracebackType
from typing import Final, NamedTuple, Self

MARK: Final = b"not what was stored"
"""What ``replace`` puts in the place of an object."""


@dataclass(frozen=True, slots=True, repr=False)
class Fault:
    """One fault, for one or more calls in a row."""

    operation: str
    """A method of the contract, such as ``"put"``; for the proxy a method of HTTP, or
    ``"*"`` for any."""

    action: str
    """What happens. Each player says which actions it knows for which operation."""

    key: str = "*"
    """A shell pattern: of the key or prefix; for the proxy of the path with its query,
    as it was sent. Invocations have no key."""

    first: int = 1
    """The first call to fail, counted from 1 among those that match."""

    times: int = 1
    """How many calls fail, one after the other."""

    seconds: float = math.nan
    """For actions that take time, or that ask for it; NaN is the action's default."""

    status: int = 503
    """For the proxy's ``status``."""

    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    """For the proxy's ``status``."""

    body: bytes = b""
    """For the proxy's ``status``."""

    def __repr__(self) -> str:
        """Return the call that makes this fault, without what is the default."""
        said: list[str] = []
        for each in fields(self)[2:]:
            value = getattr(self, each.name)
            default: object = {} if each.default is MISSING else each.default
            if value is not default and value != default:
                said.append(f"{each.name}={value!r}")
        return f"Fault({', '.join([repr(self.operation), repr(self.action), *said])})"

    def matches(self, operation: str, key: str) -> bool:
        """Say whether a call is one of those that are counted."""
        return self.operation in {operation, "*"} and fnmatchcase(key, self.key)

    def lasts(self, default: float) -> float:
        """Return ``seconds``, or the action's default where none were given."""
        return default if math.isnan(self.seconds) else self.seconds


class Fired(NamedTuple):
    """A fault that happened."""

    operation: str
    key: str
    number: int
    """Which of the matching calls it was, from 1."""

    action: str


class FaultPlan:
    """Faults in order; the first that applies to a call is played.

    Every fault counts all calls that match it, those too that another one is played on.

    ``repr(plan)`` is the Python expression that makes the same plan again. As a context
    manager a plan demands on leaving that all of it has happened, and notes itself on
    an exception that passes, so that a failure can be replayed:

        with FaultPlan.random(7, rate=0.2, actions={"invoke": ["lose"]}) as plan:
            ...

    Calls may come from several threads.
    """

    def __init__(self, *faults: Fault) -> None:
        """Write down what is to happen.

        Raises:
            ValueError: A fault that could never happen.
        """
        for fault in faults:
            if fault.first < 1 or fault.times < 1:
                raise ValueError(f"first and times are counted from 1: {fault}")
        self.faults = faults
        # next() of a counter and append() are atomic, so that no lock is needed.
        self._seen = [count(1) for _ in faults]
        self._fired: list[tuple[int, Fired]] = []

    @classmethod
    def random(
        cls,
        seed: int,
        *,
        rate: float,
        actions: Mapping[str, Sequence[str]],
        calls: int = 20,
        seconds: float = 0.01,
    ) -> Self:
        """Draw a plan.

        Args:
            seed: The same seed and arguments give the same plan.
            rate: Probability of each call to go wrong.
            actions: For each operation what may happen to it, with equal probability.
            calls: How many calls of each operation are decided upon; later ones go
                well. A run that makes as many is one in which all faults happen.
            seconds: For actions that take time.
        """
        draw = random.Random(seed)  # noqa: S311  # not a secret
        return cls(
            *(
                Fault(operation, draw.choice(chosen), first=number, seconds=seconds)
                for operation, chosen in sorted(actions.items())
                for number in range(1, calls + 1)
                if draw.random() < rate
            )
        )

    def __repr__(self) -> str:
        return f"FaultPlan({', '.join(map(repr, self.faults))})"

    def take(self, operation: str, key: str = "") -> Fault | None:
        """Count a call and return what is to happen to it; None for nothing."""
        chosen: Fault | None = None
        for position, fault in enumerate(self.faults):
            if not fault.matches(operation, key):
                continue
            number = next(self._seen[position])
            if chosen is None and fault.first <= number < fault.first + fault.times:
                chosen = fault
                fired = Fired(operation, key, number, fault.action)
                self._fired.append((position, fired))
        return chosen

    @property
    def fired(self) -> tuple[Fired, ...]:
        """What has happened, in order."""
        return tuple(fired for _, fired in self._fired)

    @property
    def missing(self) -> list[tuple[Fault, int]]:
        """Faults that did not happen as often as planned, and how often more."""
        happened = Counter(position for position, _ in self._fired)
        return [
            (fault, fault.times - happened[position])
            for position, fault in enumerate(self.faults)
            if happened[position] < fault.times
        ]

    def assert_all_fired(self) -> None:
        """Fail if a planned fault did not happen: the test has tested nothing."""
        missing = self.missing
        assert not missing, f"planned and not fired: {missing} of {self!r}"

    def check(self, known: Mapping[str, Collection[str]]) -> None:
        """Refuse what a player does not know.

        Args:
            known: The player's actions, by operation. Other operations are somebody
                else's.

        Raises:
            ValueError: An action that is none of these.
        """
        for fault in self.faults:
            actions = known.get(fault.operation)
            if actions is not None and fault.action not in actions:
                raise ValueError(
                    f"{fault}: {fault.operation} knows {', '.join(sorted(actions))}"
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None:
            self.assert_all_fired()
        else:
            exc.add_note(f"under {self!r}; of which happened {list(self.fired)}")


def damage(data: bytes, action: str) -> bytes:
    """Return what is left after ``truncate``, ``flip``, ``empty`` or ``replace``.

    ``flip`` changes one bit in the middle.
    """
    match action:
        case "truncate":
            return data[: len(data) // 2]
        case "flip":
            bent = bytearray(data)
            if bent:
                bent[len(bent) // 2] ^= 1
            return bytes(bent)
        case "empty":
            return b""
        case "replace":
            return MARK
        case _:
            return data
