"""Executors that are broken where a platform or a store fails."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final

import anyio
from pytest import MonkeyPatch  # noqa: PT013  # the one name that is needed

from wren.batch import Batch
from wren.conformance.mutants.executor import MUTANTS as MUTANTS
from wren.conformance.mutants.executor import mutant
from wren.dispatch import Dispatcher
from wren.envelope import Buffer, unseal
from wren.errors import ThrottledError, WorkerLostError
from wren.grants import to_json
from wren.ledger import Ledger
from wren.options import Options, Overrides
from wren.request import RequestWriter
from wren.run import Run
from wren.spill import JOBS, Spill
from wren.transfer import delete_prefix

# What is broken is inside.
# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false

_MAC_BYTES: Final = 32
_PAUSE: Final = 0.05


# --- attempts -------------------------------------------------------------------------


@mutant("E17")
def counts_throttling_as_an_attempt(patch: MonkeyPatch) -> None:
    """Take being turned away for a lost worker."""

    async def count(
        _: Dispatcher, _run: Run, exc: ThrottledError, _sent: float
    ) -> None:
        raise WorkerLostError("throttled") from exc

    patch.setattr(Dispatcher, "_throttled", count)


@mutant("E16")
def retries_a_tasks_own_exception(patch: MonkeyPatch) -> None:
    """Try again what the task itself has decided."""
    override = Options.override

    def retry(options: Options, overrides: Overrides) -> Options:
        return replace(override(options, overrides), retry_on=(Exception,))

    patch.setattr(Options, "override", retry)


@mutant("E16 E19")
def tries_once_more(patch: MonkeyPatch) -> None:
    """Allow an attempt more than was asked for."""
    again = Dispatcher._again

    async def try_more(
        dispatcher: Dispatcher, run: Run, batch: Batch, exc: WorkerLostError
    ) -> None:
        run.options = replace(run.options, retries=run.options.retries + 1)
        try:
            await again(dispatcher, run, batch, exc)
        finally:
            run.options = replace(run.options, retries=run.options.retries - 1)

    patch.setattr(Dispatcher, "_again", try_more)


@mutant("E23")
def waits_for_a_start_without_end(patch: MonkeyPatch) -> None:
    """Begin to count the time when a worker has begun, if one ever does."""

    def for_ever(_: Dispatcher, _run: Run, _batch: Batch) -> float:
        return math.inf

    patch.setattr(Dispatcher, "_seconds", for_ever)


@mutant("E40")
def blames_the_whole_chunk(patch: MonkeyPatch) -> None:
    """Try a lost chunk again as it was, poison and all."""

    def keep_together(batch: Batch) -> list[Batch]:
        return [batch.part(0, len(batch.items), batch.attempt + 1)]

    patch.setattr(Batch, "again", keep_together)


@mutant("E20")
def late_outcomes_overwrite(patch: MonkeyPatch) -> None:
    """Let the last outcome of a task count, not the first."""
    settle = Ledger.settle

    def overwrite(
        ledger: Ledger, start: int, outcomes: list[Any], failure: Any = None
    ) -> Any:
        late = ledger._early.intersection(range(start, start + len(outcomes)))
        ledger._early -= late
        ledger._pending += len(late)
        return settle(ledger, start, outcomes, failure)

    patch.setattr(Ledger, "settle", overwrite)


# --- stored responses -----------------------------------------------------------------


@mutant("E38")
def commits_nothing(patch: MonkeyPatch) -> None:
    """Send every response, and store none."""

    def never(_: RequestWriter, _run: Run, _seconds: float) -> bool:
        return False

    patch.setattr(RequestWriter, "commits", never)


@mutant("E37")
def commits_quick_responses(patch: MonkeyPatch) -> None:
    """Store what took no time to make."""
    reply = Spill.reply

    async def always(
        spill: Spill, request: str, limit: float, _after: float, seconds: float
    ) -> dict[str, Any]:
        return await reply(spill, request, limit, 0, seconds)

    patch.setattr(Spill, "reply", always)


@mutant("E38")
def does_committed_work_again(patch: MonkeyPatch) -> None:
    """Do not look into the store when a reply is lost."""

    async def ignore(*_: object) -> None:
        """Find nothing."""

    patch.setattr(Dispatcher, "_stored", ignore)


@mutant("E41")
def last_writer_wins(patch: MonkeyPatch) -> None:
    """Let a second execution replace the response of the first."""
    reply = Spill.reply

    async def unconditional(
        spill: Spill, request: str, limit: float, after: float, seconds: float
    ) -> dict[str, Any]:
        offer = await reply(spill, request, limit, after, seconds)
        grant = await spill._open().grant(offer["place"], "PUT", expires_in=600)
        return offer | {"grant": to_json(grant)}

    patch.setattr(Spill, "reply", unconditional)


@mutant("E41")
def exists_means_lost(patch: MonkeyPatch) -> None:
    """Take a response that was stored before for none."""
    stored_response = Spill.stored_response

    async def refuse(
        spill: Spill, request: str, *, known: bool = False
    ) -> memoryview | None:
        if known:
            raise WorkerLostError("somebody else was there first")
        return await stored_response(spill, request)

    patch.setattr(Spill, "stored_response", refuse)


@mutant("E24")
def polls_after_the_end(patch: MonkeyPatch) -> None:
    """Go on looking for the responses of a job that has ended."""
    finished = Dispatcher.finished

    async def poll(run: Run) -> None:
        while True:
            async for _ in run.spill._storage.list(f"{run.spill.prefix}out/"):
                pass
            await anyio.sleep(_PAUSE)

    def go_on(dispatcher: Dispatcher, run: Run) -> None:
        if run.spilled:
            dispatcher._spawn(poll, run)
        finished(dispatcher, run)

    patch.setattr(Dispatcher, "finished", go_on)


@mutant("E39")
def polls_for_each_task(patch: MonkeyPatch) -> None:
    """Let every request that waits make listings of its own."""

    async def poll(spill: Spill) -> None:
        await anyio.sleep(_PAUSE)
        async for found in spill._storage.list(f"{spill.prefix}out/"):
            spill._stored[found.key] = found.size

    patch.setattr(Spill, "_poll", poll)


@mutant("E44")
def unpickles_before_it_verifies(patch: MonkeyPatch) -> None:
    """Believe what lies in the store."""

    def believe(data: Buffer, _key: bytes, _place: str) -> memoryview:
        return memoryview(data)[_MAC_BYTES:]

    patch.setattr("wren.spill.unseal", believe)


@mutant("E44")
def seals_without_the_place(patch: MonkeyPatch) -> None:
    """Verify who wrote a response, and not to which request."""
    reply = Spill.reply

    async def anywhere(spill: Spill, *arguments: Any) -> dict[str, Any]:
        return await reply(spill, *arguments) | {"place": ""}

    def unseal_anywhere(data: Buffer, key: bytes, _place: str) -> memoryview:
        return unseal(data, key, "")

    patch.setattr(Spill, "reply", anywhere)
    patch.setattr("wren.spill.unseal", unseal_anywhere)


# --- cleaning -------------------------------------------------------------------------


@mutant("E31")
def cleans_other_jobs(patch: MonkeyPatch) -> None:
    """Remove the objects of all jobs at the end of one."""

    async def clean(spill: Spill) -> None:
        await delete_prefix(spill._open(), JOBS)

    patch.setattr(Spill, "clean", clean)


@mutant("E32")
def fails_with_its_cleaning(patch: MonkeyPatch) -> None:
    """Let a store that fails at the end of a job end the executor."""

    async def clean(spill: Spill) -> None:
        await delete_prefix(spill._open(), spill.prefix)

    patch.setattr(Spill, "clean", clean)
