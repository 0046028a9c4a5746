"""The exceptions of tasks as bytes, and back.

An exception that pickles may still not unpickle, and what a driver must not raise is no
exception of a task. Such a one travels as a description: it always arrives.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Final

from wren.envelope import Buffer
from wren.errors import RemoteError
from wren.serialize import TASKS_OWN, load

_SIGNS: Final = (StopIteration, StopAsyncIteration)


def dump_failure(
    exc: BaseException, inside: str = ""
) -> tuple[list[str], bytes | None]:
    """Describe an exception, and pickle it if it can be rebuilt.

    What is no `Exception` could end the driver's event loop, and `StopIteration` and
    `StopAsyncIteration` a loop of its program: they travel as a description only.

    Args:
        exc: What was raised.
        inside: The file whose calls led to the user's code. The traceback that is
            described begins below the last of its frames.

    Returns:
        Type name, message and traceback; and a pickle, or None.
    """
    import traceback

    tb = begin = exc.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code.co_filename == inside:
            begin = tb.tb_next
        tb = tb.tb_next
    cls = type(exc)
    name = cls.__qualname__
    if cls.__module__ not in ("builtins", "__main__"):
        name = f"{cls.__module__}.{name}"
    text = "".join(traceback.format_exception(cls, exc, begin))
    description = [name, _text(exc), text]
    if not isinstance(exc, Exception) or isinstance(exc, _SIGNS):
        return description, None
    try:
        pickled = _in_band(exc.with_traceback(None))
        rebuilt = load(pickled)
    except BaseException:  # noqa: BLE001  # its own pickling may raise anything
        return description, None
    return description, pickled if type(rebuilt) is cls else None


def load_failure(
    description: Sequence[str], pickled: Buffer | None, note: str
) -> Exception:
    """Rebuild a task's exception, or a `RemoteError` where that is impossible.

    Args:
        description: Type name, message and traceback.
        pickled: What `dump_failure` made of it.
        note: Added to the exception, for people.
    """
    error: Exception | None = None
    if pickled is not None:
        try:
            error = load(pickled)
        except TASKS_OWN:  # its class may be missing or refuse
            error = None
    if not isinstance(error, Exception):
        error = RemoteError(*description)
    # As add_note does, but also where its class forbids that: it may be immutable.
    notes = [*getattr(error, "__notes__", ()), note]
    object.__setattr__(error, "__notes__", notes)
    return error


def _in_band(exc: Exception) -> bytes:
    try:
        return pickle.dumps(exc, 5)
    except Exception:  # noqa: BLE001  # cloudpickle decides
        import cloudpickle

        return cloudpickle.dumps(exc, 5)


def _text(exc: BaseException) -> str:
    try:
        return str(exc)
    except BaseException:  # noqa: BLE001  # a broken __str__ must not hide the failure
        return "<its __str__ failed>"
