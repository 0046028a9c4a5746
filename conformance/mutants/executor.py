"""Broken executors: each breaks one thing of the core, while it is applied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from pytest import MonkeyPatch  # noqa: PT013  # the one name that is needed

from wren.batch import Batch
from wren.dispatch import Dispatcher
from wren.errors import ThrottledError, WrenError
from wren.functions import PackedFunction
from wren.job import Job
from wren.ledger import Failed, Ledger
from wren.run import Run
from wren.spill import Spill

Break = Callable[[MonkeyPatch], None]


class Mutant(NamedTuple):
    """One way to break an executor."""

    name: str
    caught_by: tuple[str, ...]
    """Identities of the checks of which at least one must fail."""

    apply: Break


MUTANTS: Final[list[Mutant]] = []

_GATHER: Final = "_gather"


def mutant(caught_by: str) -> Callable[[Break], Break]:
    """Add a way to break an executor, and say which checks must notice."""

    def add(apply: Break) -> Break:
        MUTANTS.append(Mutant(apply.__name__, tuple(caught_by.split()), apply))
        return apply

    return add


@mutant("E01")
def drops_none(patch: MonkeyPatch) -> None:
    """Take a result of None for no result."""
    results = Ledger.results

    def drop(ledger: Ledger) -> list[Any]:
        return [each for each in results(ledger) if each is not None]

    patch.setattr(Ledger, "results", drop)


@mutant("E02")
def completion_order(patch: MonkeyPatch) -> None:
    """Return results in another order than that of the input."""
    results = Ledger.results

    def turn(ledger: Ledger) -> list[Any]:
        return results(ledger)[::-1]

    patch.setattr(Ledger, "results", turn)


@mutant("E01")
def returned_exceptions_are_failures(patch: MonkeyPatch) -> None:
    """Take an exception that was returned for one that was raised."""
    settle = Run.settle

    def confuse(
        run: Run, batch: Batch, outcomes: list[Any], failure: Exception | None = None
    ) -> None:
        for position, each in enumerate(outcomes):
            if isinstance(each, Exception):
                outcomes[position] = Failed(each)
                failure = failure or each
        settle(run, batch, outcomes, failure)

    patch.setattr(Run, "settle", confuse)


@mutant("E01")
def off_by_one_index_on_retry(patch: MonkeyPatch) -> None:
    """Give each task of a lost chunk the arguments of the next one."""
    split = Batch.split

    def shift(batch: Batch, attempt: int) -> list[Batch]:
        parts = split(batch, attempt)
        items = [part.items for part in parts]
        for part, other in zip(parts, items[1:] + items[:1], strict=True):
            part.items = other
        return parts

    patch.setattr(Batch, "split", shift)


@mutant("E01")
def never_retries_crash(patch: MonkeyPatch) -> None:
    """Let a lost worker be the end of its tasks."""

    async def give_up(_: Dispatcher, run: Run, batch: Batch, exc: WrenError) -> None:
        run.settle_error(batch, exc)

    patch.setattr(Dispatcher, "_again", give_up)


@mutant("E01")
def counts_throttle_as_failure(patch: MonkeyPatch) -> None:
    """Let being turned away be the end of a task."""

    async def give_up(
        _: Dispatcher, run: Run, exc: ThrottledError, sent: float
    ) -> None:
        raise exc

    patch.setattr(Dispatcher, "_throttled", give_up)


@mutant("E26")
def swallows_cancellation(patch: MonkeyPatch) -> None:
    """Return what there is when the awaiting code is cancelled."""
    gather: Any = getattr(Job, _GATHER)

    async def swallow(job: Job[Any]) -> list[Any]:
        try:
            results: list[Any] = await gather(job)
        except BaseException as exc:
            if isinstance(exc, Exception):
                raise
            return []
        return results

    patch.setattr(Job, _GATHER, swallow)


@mutant("E08")
def wraps_the_first_failure(patch: MonkeyPatch) -> None:
    """Raise an error of its own in place of the task's."""
    gather: Any = getattr(Job, _GATHER)

    async def wrap(job: Job[Any]) -> list[Any]:
        try:
            results: list[Any] = await gather(job)
        except Exception as exc:
            raise RuntimeError("a task failed") from exc
        return results

    patch.setattr(Job, _GATHER, wrap)


@mutant("E31")
def leaves_objects(patch: MonkeyPatch) -> None:
    """Remove nothing at the end of a job."""

    async def clean(_: Spill) -> None:
        """Keep everything."""

    patch.setattr(Spill, "clean", clean)


@mutant("E42")
def sends_the_function_with_every_task(patch: MonkeyPatch) -> None:
    """Forget which functions workers have."""

    def forget(_function: PackedFunction, _value: bool) -> None:
        """Remember nothing."""

    def know(_function: PackedFunction) -> bool:
        return False

    patch.setattr(PackedFunction, "known", property(know, forget))


@mutant("E05")
def reads_ahead(patch: MonkeyPatch) -> None:
    """Take the whole input at once."""

    def room(_: Run) -> int:
        return 500

    patch.setattr(Run, "_room", room)


@mutant("E09")
def forgets_later_failures(patch: MonkeyPatch) -> None:
    """Return the first failure, and nothing in the place of the others."""
    results = Ledger.results

    def forget(ledger: Ledger) -> list[Any]:
        first = ledger.first_failure
        return [
            None if isinstance(each, Exception) and each is not first else each
            for each in results(ledger)
        ]

    patch.setattr(Ledger, "results", forget)
