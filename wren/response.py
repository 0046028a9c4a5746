"""Read the outcomes of a batch of tasks from its response."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from anyio import to_thread

from wren.batch import Batch
from wren.errors import SerializationError, WorkerLostError
from wren.failures import load_failure
from wren.ledger import Failed
from wren.run import Run
from wren.serialize import load_many, load_yielding, writable

_log = logging.getLogger("wren.output")

_IN_LOOP: Final = 256 * 1024
"""Bytes that are unpickled on the event loop; about a millisecond. More in a thread."""


async def read_outcomes(
    run: Run,
    batch: Batch,
    header: dict[str, Any],
    buffers: list[memoryview],
    sizes: tuple[int, int],
    backend: str,
) -> None:
    """Unpickle a response and settle its tasks.

    Args:
        run: The job.
        batch: The tasks.
        header: The response's header.
        buffers: The response's buffers.
        sizes: Bytes of request and response.
        backend: Name of the backend, for people.

    Raises:
        WorkerLostError: The response does not fit the batch; nothing was settled.
    """
    if header["output"]:
        _log.info("%s: %s", header["worker"], header["output"].rstrip())
    described: list[list[Any]] = header.get("failures", [])
    pickles = sum(1 for failure in described if failure[-1])
    data = buffers[: len(buffers) - pickles]
    if len(data) > 1 and data[-1].readonly:  # arrays that are to be written to
        data = [data[0], data[1], *map(writable, data[2:])]
    if len(data[0]) > _IN_LOOP:
        values, broken = await to_thread.run_sync(
            load_many, data, header.get("each"), load_yielding
        )
    else:
        values, broken = load_many(data, header.get("each"))
    if len(values) + len(described) != len(batch.items):
        raise WorkerLostError("the answer is one to other tasks")
    run.tally.answered(batch, len(batch.items), header, sizes)
    if not described and not broken:
        run.settle(batch, values)
        return
    outcomes = _merge(values, broken, [failure[0] for failure in described])
    rest = iter(buffers[len(buffers) - pickles :])
    again: list[Batch] = []
    for position, name, message, text, pickled in described:
        index = batch.start + position
        error = load_failure(
            (name, message, text),
            next(rest) if pickled else None,
            _note(index, batch.attempt, backend, header, text),
        )
        outcomes[position] = Failed(error)
        if isinstance(error, run.options.retry_on) and (
            batch.attempt <= run.options.retries
        ):
            again.append(batch.part(position, position + 1, batch.attempt + 1))
    if again:
        _settle_others(run, batch, outcomes, again)
    else:
        run.settle(batch, outcomes, first_failure(outcomes))


def first_failure(outcomes: Sequence[Any]) -> Exception | None:
    """Return the first failure among outcomes, if there is one."""
    for outcome in outcomes:
        if type(outcome) is Failed:
            return outcome.error
    return None


def _merge(
    values: Sequence[Any], broken: dict[int, BaseException], failed: Sequence[int]
) -> list[Any]:
    """Put values and those that could not be unpickled between the failed tasks."""
    outcomes: list[Any] = []
    holes = set(failed)
    for position, value in enumerate(values):
        while len(outcomes) in holes:
            outcomes.append(None)
        exc = broken.get(position)
        if exc is not None:
            error = SerializationError(
                f"the result cannot be unpickled here: {type(exc).__name__}: {exc}"
            )
            error.__cause__ = exc
            value = Failed(error)
        outcomes.append(value)
    outcomes.extend([None] * (len(values) + len(holes) - len(outcomes)))
    return outcomes


def _settle_others(
    run: Run, batch: Batch, outcomes: list[Any], again: list[Batch]
) -> None:
    """Settle all tasks but those that are tried again."""
    positions = [piece.start - batch.start for piece in again]
    for piece in batch.without(positions):
        begin = piece.start - batch.start
        part = outcomes[begin : begin + len(piece.items)]
        run.settle(piece, part, first_failure(part))
    run.retry(batch, again)


def _note(
    index: int, attempt: int, backend: str, header: dict[str, Any], text: str
) -> str:
    lines = [f"task {index}, attempt {attempt}, on {backend} ({header['worker']})"]
    lines.append(text.rstrip())
    if header["output"]:
        lines.append(
            "it had printed (last part, with the tasks that shared its request):"
        )
        lines.append(header["output"].rstrip())
    return "\n".join(lines)
