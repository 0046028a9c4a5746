"""Exceptions always arrive: as they were, or described."""

from __future__ import annotations

import asyncio
import base64
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NoReturn

import pytest

from wren.errors import (
    KeyNotFoundError,
    RemoteError,
    TaskTimeoutError,
    ThrottledError,
    WorkerLostError,
)
from wren.failures import dump_failure, load_failure

NOTE = "task 7"


class TwoArgumentsError(Exception):
    """Gives its base class one argument of the two that it needs."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} {code}")


class DefaultError(Exception):
    """Keeps what its base class does not know in attributes."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class KeywordOnlyError(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


class LockedError(Exception):
    """Has an attribute that cannot be pickled."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class ImpostorError(Exception):
    """Is rebuilt as something else."""

    def __reduce__(self) -> tuple[type[ValueError], tuple[str]]:
        return ValueError, ("something else",)


class SilentError(Exception):
    def __str__(self) -> NoReturn:
        raise ValueError("no text")


class DeafError(Exception):
    def __str__(self) -> NoReturn:
        raise SystemExit(1)

    def __reduce__(self) -> NoReturn:
        raise KeyboardInterrupt


class UnreadableError(Exception):
    """Ends the process that rebuilds it."""

    def __reduce__(self) -> tuple[Callable[[int], NoReturn], tuple[int]]:
        return sys.exit, (3,)


@dataclass(frozen=True)
class FrozenError(Exception):
    """Forbids that anything is set, notes included."""


class StoppedError(StopIteration):
    pass


def raised(exc: BaseException) -> BaseException:
    """Return an exception as somebody catches it, with a traceback."""
    with pytest.raises(type(exc)) as caught:
        raise exc
    return caught.value


def travel(exc: BaseException) -> Exception:
    """Take an exception to the driver."""
    description, pickled = dump_failure(raised(exc))
    return load_failure(description, pickled, NOTE)


def described(exc: BaseException) -> RemoteError:
    """Check that an exception arrives as a description only, and return it."""
    assert dump_failure(raised(exc))[1] is None
    arrived = travel(exc)
    assert type(arrived) is RemoteError
    assert arrived.type_name.endswith(type(exc).__name__)
    assert "raise exc" in arrived.traceback
    assert arrived.__notes__ == [NOTE]
    return arrived


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("text", 3),
        KeyError("key"),
        OSError(2, "No such file", "name"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        DefaultError("text", 5),
        SilentError("text"),
        KeyNotFoundError("text", store="s3", key="a/b"),
        ThrottledError("text", retry_after=2.5),
        WorkerLostError("text", exit_code=-9, output="tail"),
        TaskTimeoutError("text"),
        TimeoutError(),
        asyncio.QueueEmpty(),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_an_exception_arrives_with_its_type_and_attributes(exc: Exception) -> None:
    """The caller's ``except`` clauses are written for these."""
    arrived = travel(exc)

    assert type(arrived) is type(exc)
    assert arrived.args == exc.args
    ours = {key: value for key, value in vars(arrived).items() if key != "__notes__"}
    assert ours == vars(exc)
    assert arrived.__notes__ == [NOTE]


@pytest.mark.parametrize(
    "exc",
    [
        TwoArgumentsError("name", 3),
        KeywordOnlyError(code=3),
        LockedError("text"),
        ImpostorError("text"),
        DeafError("text"),
        UnreadableError("text"),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_an_exception_that_cannot_be_rebuilt_is_described(exc: Exception) -> None:
    """Whatever its own code does when it is pickled, rebuilt, or asked for a text."""
    arrived = described(exc)
    if not isinstance(exc, DeafError):
        assert arrived.message == str(exc)


@pytest.mark.parametrize(
    "exc",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError("why"),
        StopIteration(3),
        StopAsyncIteration(),
        StoppedError("why"),
        BaseExceptionGroup("both", [SystemExit(), ValueError()]),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_what_would_stop_the_driver_is_described(exc: BaseException) -> None:
    """A task must not end the program that asked for it, nor one of its loops."""
    assert described(exc).message == str(exc)


def test_a_description_has_no_text_where_there_is_none() -> None:
    """A broken ``__str__`` does not hide what happened."""
    name, message, text = dump_failure(raised(SilentError()))[0]
    assert name == f"{__name__}.SilentError"
    assert message == "<its __str__ failed>"
    assert "raise exc" in text


def test_notes_arrive() -> None:
    """They are what people added to explain an error."""
    exc = ValueError("text")
    exc.add_note("first")
    assert travel(exc).__notes__ == ["first", NOTE]


def test_an_exception_that_forbids_notes_arrives() -> None:
    """Frozen dataclasses do; and still people need to know which task it was."""
    arrived = travel(FrozenError())
    assert type(arrived) is FrozenError
    assert arrived.__notes__ == [NOTE]


def test_a_group_arrives_with_its_members() -> None:
    """``except*`` selects among them."""
    group = ExceptionGroup("both", [ValueError("one"), DefaultError("two", 2)])
    arrived: Any = travel(group)
    assert type(arrived) is ExceptionGroup
    one, two = arrived.exceptions
    assert isinstance(one, ValueError)
    assert isinstance(two, DefaultError)
    assert two.code == 2


def test_a_group_with_a_member_that_cannot_be_rebuilt_is_described() -> None:
    """And shows all its members."""
    arrived = described(ExceptionGroup("both", [ValueError("one"), LockedError("two")]))
    assert "ValueError: one" in arrived.traceback
    assert "LockedError: two" in arrived.traceback


def test_a_local_class_arrives_as_itself() -> None:
    """A class of a notebook, or one inside a function, travels by value."""

    class LocalError(Exception):
        code = 5

    arrived = travel(LocalError("text"))
    assert type(arrived) is LocalError


def test_a_class_of_main_arrives_where_main_is_another() -> None:
    """What a script or a notebook defines exists in no module of the other side."""
    main_error = type("MainError", (Exception,), {"__module__": "__main__", "code": 5})
    (name, _, _), pickled = dump_failure(main_error("text"))
    assert name == "MainError"
    assert pickled is not None
    source = """if True:
        import base64, sys
        from wren.failures import load_failure

        exc = load_failure(["", "", ""], base64.b64decode(sys.argv[1]), "note")
        print(repr(exc), exc.code)
    """

    done = subprocess.run(
        [sys.executable, "-c", source, base64.b64encode(pickled)],
        capture_output=True,
        check=True,
        timeout=60,
    )

    assert done.stdout == b"MainError('text') 5\n"


def test_a_class_that_does_not_exist_here_is_described(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker has packages that the driver has not."""
    module = ModuleType("only_there")
    exec("class ThereError(Exception): pass", vars(module))  # noqa: S102
    monkeypatch.setitem(sys.modules, "only_there", module)
    description, pickled = dump_failure(raised(module.ThereError("text")))
    monkeypatch.delitem(sys.modules, "only_there")
    assert pickled is not None

    arrived = load_failure(description, pickled, NOTE)

    assert type(arrived) is RemoteError
    assert arrived.type_name == "only_there.ThereError"
    assert arrived.message == "text"
    assert "raise exc" in arrived.traceback
    assert arrived.__notes__ == [NOTE]


@pytest.mark.parametrize("pickled", [b"", b"noise", pickle.dumps(5)])
def test_what_is_no_exception_is_described(pickled: bytes) -> None:
    """Nothing but an exception is ever raised for a task."""
    arrived = load_failure(("name", "message", "traceback"), pickled, NOTE)
    assert type(arrived) is RemoteError
    assert str(arrived) == "name: message"


def test_the_traceback_shows_causes() -> None:
    """They do not survive pickling, and are often the reason."""
    effect = KeyError("the effect")
    effect.__cause__ = raised(ValueError("the reason"))
    text = dump_failure(raised(effect))[0][2]
    assert "ValueError: the reason" in text
    assert "direct cause" in text


def test_what_was_dumped_is_left_without_its_frames() -> None:
    """They hold on to the task's arguments, which may be large."""
    exc = raised(ValueError("text"))
    dump_failure(exc)
    assert exc.__traceback__ is None
