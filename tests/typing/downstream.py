"""A project that uses wren, for type checkers: nothing here is ever run.

`nox -s downstream` checks it against the installed wheel, so that it fails when a
result type is lost, when a wrong call is accepted, or when no types are published.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import assert_type

import wren


def square(x: int) -> float:
    return float(x * x)


def repeat(text: str, times: int = 1, *, end: str = "") -> str:
    return text * times + end


async def fetch(url: str) -> bytes:
    return url.encode()


class Page:
    def __init__(self, url: str) -> None:
        self.url = url

    def render(self, width: int) -> str:
        return self.url.ljust(width)


class Scale:
    def __call__(self, x: float) -> complex:
        return complex(x)


def lazy() -> Iterator[int]:
    yield from range(3)


async def endless() -> AsyncIterator[str]:
    while True:
        yield ""


async def map_gives_what_the_function_gives(executor: wren.Executor) -> None:
    job = executor.map(square, [1, 2, 3])

    assert_type(job, wren.Job[float])
    assert_type(await job, list[float])
    async for result in job:
        assert_type(result, float)
    async for future in job.as_completed():
        assert_type(future, wren.Future[float])
        assert_type(future.result(), float)
        assert_type(future.exception(), Exception | None)
    assert_type(job[0], wren.Future[float])
    assert_type(await job[0], float)
    assert_type(len(job), int)
    assert_type(job.stats, wren.JobStats)
    assert_type(job.id, str)
    assert_type(job.done(), bool)


async def map_takes_every_kind_of_iterable(executor: wren.Executor) -> None:
    assert_type(await executor.map(square, range(3)), list[float])
    assert_type(await executor.map(square, lazy()), list[float])
    assert_type(await executor.map(repeat, endless()), list[str])
    assert_type(await executor.map(repeat, ["a"], [1]), list[str])
    assert_type(await executor.map(repeat, endless(), lazy()), list[str])


async def map_takes_every_kind_of_function(executor: wren.Executor) -> None:
    assert_type(await executor.map(fetch, ["u"]), list[bytes])
    assert_type(await executor.map(Page, ["u"]), list[Page])
    assert_type(await executor.map(Page("u").render, [80]), list[str])
    assert_type(await executor.map(Scale(), [1.0]), list[complex])
    assert_type(await executor.map(partial(repeat, times=2), ["a"]), list[str])
    assert_type(await executor.map(len, ["a"]), list[int])
    # mypy infers the result of a lambda from where it goes, pyright from the lambda.
    added: list[int] = await executor.map(lambda x: x + 1, [1, 2])
    assert_type(added, list[int])


async def options_do_not_change_the_type(executor: wren.Executor) -> None:
    job = executor.map(square, [1], timeout=1.5, retries=0, chunksize=10, concurrency=4)
    patient = executor.options(timeout=60.0, retries=5)

    assert_type(job, wren.Job[float])
    assert_type(patient, wren.Executor)


async def starmap_gives_what_the_function_gives(executor: wren.Executor) -> None:
    pairs = [("a", 1), ("b", 2)]

    assert_type(executor.starmap(repeat, pairs), wren.Job[str])
    assert_type(await executor.starmap(repeat, pairs), list[str])
    assert_type(await executor.starmap(fetch, [("u",)]), list[bytes])


async def submit_gives_what_the_function_gives(executor: wren.Executor) -> None:
    future = executor.submit(repeat, "a", 2, end="!")

    assert_type(future, wren.Future[str])
    assert_type(await future, str)
    assert_type(await executor.submit(fetch, "u"), bytes)
    assert_type(await executor.submit(Page, url="u"), Page)


async def submit_checks_the_arguments(executor: wren.Executor) -> None:
    executor.submit(repeat, 1)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
    executor.submit(repeat, "a", sep="")  # type: ignore[arg-type, call-arg]  # pyright: ignore[reportCallIssue]


async def an_executor_is_a_context() -> None:
    async with wren.Executor(backend="local", storage="memory:", retries=1) as executor:
        assert_type(executor, wren.Executor)


def errors_are_what_they_say(error: wren.WrenError) -> None:
    match error:
        case wren.TaskTimeoutError():
            timeout: TimeoutError = error
            raise timeout
        case wren.ThrottledError():
            assert_type(error.retry_after, float | None)
        case wren.WorkerLostError():
            assert_type(error.exit_code, int | None)
        case wren.StorageError():
            assert_type(error.key, str)
        case _:
            raise error


def protocols_can_be_implemented(store: MyStore) -> wren.Storage:
    return store


class MyStore:
    """The least that a store has; a type checker compares it with the protocol."""

    name = "mine"
    capabilities = wren.StorageCapabilities(grants=False, conditional_grants=False)

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        return key.encode()[start:stop]

    async def put(
        self, key: str, data: wren.Buffer, *, if_absent: bool = False
    ) -> None:
        raise wren.KeyExistsError("taken", store="mine", key=key)

    async def head(self, key: str) -> wren.ObjectInfo:
        raise wren.KeyNotFoundError("none", store="mine", key=key)

    async def delete(self, keys: object) -> None:
        return None

    async def list(
        self, prefix: str = "", *, start_after: str = ""
    ) -> AsyncIterator[wren.ObjectInfo]:
        if prefix > start_after:
            yield await self.head(prefix)

    async def grant(
        self, key: str, method: str, *, expires_in: float, if_absent: bool = False
    ) -> wren.Grant:
        raise wren.UnsupportedError("no grants", store="mine", key=key)

    async def aclose(self) -> None:
        return None
