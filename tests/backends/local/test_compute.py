"""The pool of worker processes keeps the promises of `Compute`."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import errno
import math
import os
import resource
import signal
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import pytest

from wren.backends.local import launcher, open_compute
from wren.backends.local.channel import pair
from wren.backends.local.compute import LocalCompute, usable_cpus
from wren.backends.local.process import WorkerProcess
from wren.config import Settings
from wren.envelope import Buffer
from wren.errors import ComputeError, TaskTimeoutError, WorkerLostError
from wren.protocols import Compute
from wren.worker import versions

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.blocking,  # starting an interpreter blocks the loop for a moment
]

Ask: TypeAlias = Callable[[Callable[[Any], Any], object], list[Buffer]]
Until: TypeAlias = Callable[[Callable[[], bool]], Awaitable[None]]
Answer: TypeAlias = Callable[[Buffer], list[Any]]


Pools: TypeAlias = Callable[[int], LocalCompute]


@pytest.fixture
async def pool(anyio_backend: str) -> AsyncGenerator[Pools]:
    """Make a pool of so many workers, closed at the test's end."""
    pools: list[LocalCompute] = []

    def pool(workers: int) -> LocalCompute:
        pools.append(LocalCompute(workers))
        return pools[-1]

    yield pool
    for each in pools:
        await each.aclose()


@pytest.fixture
async def compute(pool: Pools) -> LocalCompute:
    """A pool of two workers that is ready."""
    compute = pool(2)
    await compute.prepare()
    return compute


@pytest.fixture
async def single(pool: Pools) -> LocalCompute:
    """A pool of one worker that is ready."""
    single = pool(1)
    await single.prepare()
    return single


class Gate:
    """Holds tasks back until the test lets them go on, and says that they run."""

    def __init__(self, folder: Path, until: Until) -> None:
        self.folder = folder
        self._until = until

    @property
    def hold(self) -> Callable[[str], int]:
        """What waits in a worker for `open`; by value, as that has not this module."""
        folder = self.folder

        def hold(name: str) -> int:
            (folder / f"{name}.runs").touch()
            while not (folder / f"{name}.open").exists():
                time.sleep(0.005)
            return os.getpid()

        return hold

    def open(self, name: str) -> None:
        """Let the task of this name return."""
        (self.folder / f"{name}.open").touch()

    async def running(self, name: str) -> None:
        """Wait until the task of this name runs."""
        await self._until(lambda: self.ran(name))

    def ran(self, name: str) -> bool:
        """Return whether the task of this name has begun."""
        return (self.folder / f"{name}.runs").exists()


@pytest.fixture
def gate(tmp_path: Path, until: Until) -> Gate:
    """A closed gate."""
    return Gate(tmp_path, until)


async def test_it_is_a_compute(compute: LocalCompute) -> None:
    """The reference implementation has to be one."""
    assert isinstance(compute, Compute)
    assert compute.name == "local"
    assert compute.limits.concurrency == 2


async def test_preparing_says_what_workers_run_and_may_be_repeated(
    compute: LocalCompute, own_children: Callable[[], set[int]]
) -> None:
    """The versions are this interpreter's, and one process is enough."""
    before = own_children()
    info = await compute.prepare()

    assert [info.python, info.wren, info.cloudpickle] == versions()
    assert own_children() == before


async def test_there_are_never_more_workers_than_asked_for(
    compute: LocalCompute, ask: Ask, answer: Answer
) -> None:
    """Requests beyond that wait their turn."""
    pids: list[int] = []

    async def one() -> None:
        pids.extend(answer(await compute.invoke(request, timeout=math.inf)))

    request = ask(lambda _: os.getpid(), 0)
    async with anyio.create_task_group() as group:
        for _ in range(12):
            group.start_soon(one)

    assert len(pids) == 12
    assert len(set(pids)) <= 2


async def test_requests_are_served_in_the_order_in_which_they_came(
    single: LocalCompute, ask: Ask, answer: Answer
) -> None:
    """Small ones, and large ones that cannot be handed over at once."""
    served: list[int] = []

    async def one(n: int, size: int) -> None:
        request = ask(lambda pair: pair[0], (n, bytes(size)))
        served.extend(answer(await single.invoke(request, timeout=math.inf)))

    async with anyio.create_task_group() as group:
        for n, size in enumerate([10, 300_000, 10, 10, 300_000, 10]):
            group.start_soon(one, n, size)
            await anyio.wait_all_tasks_blocked()

    assert served == list(range(6))


async def test_a_request_that_takes_too_long_is_stopped(
    single: LocalCompute,
    ask: Ask,
    answer: Answer,
    gate: Gate,
    ends: Callable[[int], bool],
) -> None:
    """Its process is killed, and the next request gets another one."""
    (pid,) = answer(await single.invoke(ask(lambda _: os.getpid(), 0), timeout=30))

    with pytest.raises(TaskTimeoutError, match="killed"):
        await single.invoke(ask(gate.hold, "a"), timeout=0.1)

    assert ends(pid)
    (other,) = answer(await single.invoke(ask(lambda _: os.getpid(), 0), timeout=30))
    assert other != pid


async def test_waiting_for_a_worker_does_not_count_as_time(
    single: LocalCompute, ask: Ask, answer: Answer, gate: Gate
) -> None:
    """A short limit in a busy pool is no reason to fail."""
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: single.invoke(ask(gate.hold, "a"), timeout=30))
        await gate.running("a")

        async def impatient() -> None:
            response = await single.invoke(ask(abs, -1), timeout=0.5)
            assert answer(response) == [1]

        group.start_soon(impatient)
        await anyio.sleep(0.7)
        gate.open("a")


async def test_a_request_cancelled_in_the_queue_is_not_executed(
    single: LocalCompute, ask: Ask, answer: Answer, gate: Gate
) -> None:
    """And the one behind it takes its place."""
    scope = anyio.move_on_after(0.05)
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: single.invoke(ask(gate.hold, "a"), timeout=30))
        await gate.running("a")
        with scope:
            await single.invoke(ask(gate.hold, "b"), timeout=30)
        gate.open("a")

    assert scope.cancelled_caught
    assert answer(await single.invoke(ask(abs, -1), timeout=30)) == [1]
    assert not gate.ran("b")


async def test_a_request_cancelled_as_its_turn_comes_takes_its_worker_along(
    single: LocalCompute,
    ask: Ask,
    answer: Answer,
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker has got it already, before its owner could notice either."""
    scope = anyio.CancelScope()
    hand_over = single._hand_over

    def hand_over_too_late(worker: WorkerProcess) -> None:
        hand_over(worker)
        scope.cancel()

    monkeypatch.setattr(single, "_hand_over", hand_over_too_late)
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: single.invoke(ask(gate.hold, "a"), timeout=30))
        await gate.running("a")
        gate.open("a")
        with scope:
            await single.invoke(ask(gate.hold, "b"), timeout=30)
    monkeypatch.undo()

    with anyio.fail_after(20):
        assert answer(await single.invoke(ask(abs, -1), timeout=30)) == [1]


async def test_those_that_wait_get_the_place_of_a_worker_that_is_gone(
    single: LocalCompute, ask: Ask, answer: Answer, gate: Gate
) -> None:
    """A new one is forked for them at once."""
    served: list[int] = []

    async def waits() -> None:
        served.extend(answer(await single.invoke(ask(abs, -1), timeout=30)))

    async with anyio.create_task_group() as group, anyio.create_task_group() as inner:
        inner.start_soon(lambda: single.invoke(ask(gate.hold, "a"), timeout=30))
        await gate.running("a")
        group.start_soon(waits)
        group.start_soon(waits)
        await anyio.wait_all_tasks_blocked()
        inner.cancel_scope.cancel()

    assert served == [1, 1]


async def test_cancelling_starts_nothing(
    single: LocalCompute, ask: Ask, answer: Answer, gate: Gate
) -> None:
    """What waits is cancelled with what runs, and does not take its place."""

    async def hold(name: str) -> None:
        await single.invoke(ask(gate.hold, name), timeout=30)

    async with anyio.create_task_group() as group:
        group.start_soon(hold, "a")
        await gate.running("a")
        for name in "bcd":
            group.start_soon(hold, name)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()

    assert single._numbers == 1
    assert answer(await single.invoke(ask(abs, -1), timeout=30)) == [1]


async def test_who_is_cancelled_when_there_is_room_leaves_it_to_the_next(
    single: LocalCompute,
    ask: Ask,
    answer: Answer,
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has been woken and does not know it yet; it starts nothing all the same."""
    first, second = anyio.CancelScope(), anyio.CancelScope()
    tell = single._tell_of_room
    served: list[int] = []

    def tell_and_cancel() -> None:
        tell()
        second.cancel()

    async def invoke(scope: anyio.CancelScope, name: str) -> None:
        with scope:
            await single.invoke(ask(gate.hold, name), timeout=30)

    async def wait() -> None:
        served.extend(answer(await single.invoke(ask(abs, -1), timeout=30)))

    monkeypatch.setattr(single, "_tell_of_room", tell_and_cancel)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(invoke, first, "a")
            await gate.running("a")
            group.start_soon(invoke, second, "b")
            await anyio.wait_all_tasks_blocked()
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            first.cancel()

    assert served == [1]
    assert single._numbers == 2


async def test_who_finds_the_room_taken_goes_on_waiting(
    single: LocalCompute,
    ask: Ask,
    answer: Answer,
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A request that came at that moment was faster; its worker serves both."""
    scope = anyio.CancelScope()
    tell = single._tell_of_room
    taken: list[WorkerProcess] = []
    served: list[int] = []

    def tell_and_take() -> None:
        tell()
        worker = single._grow()
        assert worker is not None
        taken.append(worker)

    async def wait() -> None:
        served.extend(answer(await single.invoke(ask(abs, -1), timeout=30)))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            with scope:
                async with anyio.create_task_group() as inner:
                    inner.start_soon(
                        lambda: single.invoke(ask(gate.hold, "a"), timeout=30)
                    )
                    await gate.running("a")
                    group.start_soon(wait)
                    await anyio.wait_all_tasks_blocked()
                    monkeypatch.setattr(single, "_tell_of_room", tell_and_take)
                    scope.cancel()
            monkeypatch.undo()
            await anyio.wait_all_tasks_blocked()
            assert not served
            single._release(taken[0])

    assert served == [1]


async def test_cancelling_kills_the_worker_and_no_other(
    compute: LocalCompute,
    ask: Ask,
    answer: Answer,
    gate: Gate,
    ends: Callable[[int], bool],
) -> None:
    """A task that nobody waits for must not go on using the machine."""
    kept: list[int] = []

    async def keep() -> None:
        kept.extend(answer(await compute.invoke(ask(gate.hold, "a"), timeout=30)))

    async with anyio.create_task_group() as group:
        group.start_soon(keep)
        await gate.running("a")
        (pid,) = answer(await compute.invoke(ask(lambda _: os.getpid(), 0), timeout=30))
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as inner:
                inner.start_soon(
                    lambda: compute.invoke(ask(gate.hold, "b"), timeout=30)
                )
                await gate.running("b")
                scope.cancel()
        assert ends(pid)
        gate.open("a")

    assert len(kept) == 1


async def test_after_closing_nothing_is_left(
    pool: Pools,
    ask: Ask,
    answer: Answer,
    own_children: Callable[[], set[int]],
    own_descriptors: Callable[[], int],
    session_of: Callable[[int], Path],
) -> None:
    """No process, descriptor or directory; a second time is nothing."""
    children, descriptors = own_children(), own_descriptors()
    compute = pool(2)
    await compute.prepare()
    compute.open_storage()
    request = ask(lambda data: (os.getppid(), data), bytes(1 << 20))
    ((zygote, _),) = answer(await compute.invoke(request, timeout=30))
    session = session_of(zygote)
    assert session.is_dir()

    await compute.aclose()
    await compute.aclose()

    assert own_children() == children
    assert own_descriptors() == descriptors
    assert not session.exists()


async def test_a_closed_pool_refuses(pool: Pools, ask: Ask) -> None:
    """Also one that was never prepared; nothing starts."""
    compute = pool(1)
    await compute.aclose()

    with pytest.raises(ComputeError, match="closed"):
        await compute.invoke(ask(abs, -1), timeout=30)
    with pytest.raises(ComputeError, match="closed"):
        await compute.prepare()


async def test_closing_ends_the_requests_under_way_and_those_that_wait(
    single: LocalCompute, ask: Ask, gate: Gate
) -> None:
    """Nobody is left waiting for an answer that cannot come."""
    errors: list[ComputeError] = []

    async def one(name: str) -> None:
        with pytest.raises(ComputeError, match="closed") as caught:
            await single.invoke(ask(gate.hold, name), timeout=math.inf)
        errors.append(caught.value)

    async with anyio.create_task_group() as group:
        group.start_soon(one, "a")
        await gate.running("a")
        group.start_soon(one, "b")
        group.start_soon(one, "c")
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(20):
            await single.aclose()

    assert len(errors) == 3
    assert sum(error.may_have_run for error in errors) == 1


# --- what dies ------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_zygote_that_died_is_replaced(
    pool: Pools,
    ask: Ask,
    answer: Answer,
    gate: Gate,
    workers: int,
    number: signal.Signals,
) -> None:
    """What was in flight is lost, with an error that says so; the pool goes on."""
    compute = pool(workers)
    await compute.prepare()
    for _ in range(2):
        (zygote,) = answer(
            await compute.invoke(ask(lambda _: os.getppid(), 0), timeout=30)
        )
        name = f"{zygote}"
        async with anyio.create_task_group() as group:

            async def lost(name: str = name) -> None:
                with pytest.raises(WorkerLostError, match="are gone"):
                    await compute.invoke(ask(gate.hold, name), timeout=30)

            group.start_soon(lost)
            await gate.running(name)
            os.kill(zygote, number)

    assert answer(await compute.invoke(ask(abs, -1), timeout=30)) == [1]


async def test_an_idle_worker_that_died_costs_nothing(
    compute: LocalCompute, ask: Ask, answer: Answer, ends: Callable[[int], bool]
) -> None:
    """Something killed it between two requests; the second one gets another."""
    (pid,) = answer(await compute.invoke(ask(lambda _: os.getpid(), 0), timeout=30))
    os.kill(pid, signal.SIGKILL)
    assert ends(pid)

    assert answer(await compute.invoke(ask(abs, -1), timeout=30)) == [1]


async def test_a_worker_that_asks_for_it_is_replaced(
    single: LocalCompute, ask: Ask, answer: Answer
) -> None:
    """Its process may be in any state after a task was interrupted."""
    from wren.envelope import REQUEST, decode, encode

    (pid,) = answer(await single.invoke(ask(lambda _: os.getpid(), 0), timeout=30))
    header, buffers = decode(b"".join(ask(lambda n: time.sleep(n), 1000)), REQUEST)
    header["timeout"] = 0.05
    request = encode(REQUEST, header, [[buffer] for buffer in buffers])

    await single.invoke(request, timeout=30)

    (other,) = answer(await single.invoke(ask(lambda _: os.getpid(), 0), timeout=30))
    assert other != pid


@pytest.fixture
def one_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let descriptors run out with the second worker."""
    left = [1]

    def scarce() -> Any:
        if not left:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        left.pop()
        return pair()

    monkeypatch.setattr(launcher, "pair", scarce)


@pytest.mark.usefixtures("one_socket")
async def test_a_pool_grows_no_further_than_descriptors_allow(
    pool: Pools, ask: Ask, answer: Answer, ends: Callable[[int], bool]
) -> None:
    """Fewer workers than asked for do all the work; without any it is an error."""
    compute = pool(4)
    pids: list[int] = []

    async def one() -> None:
        request = ask(lambda _: os.getpid(), 0)
        pids.extend(answer(await compute.invoke(request, timeout=30)))

    async with anyio.create_task_group() as group:
        for _ in range(10):
            group.start_soon(one)
    assert len(pids) == 10
    assert len(set(pids)) == 1

    os.kill(pids[0], signal.SIGKILL)
    assert ends(pids[0])
    with pytest.raises(ComputeError, match="Too many open files"):
        await compute.invoke(ask(abs, -1), timeout=30)


@pytest.mark.usefixtures("one_socket")
async def test_those_that_wait_learn_that_no_worker_can_be_made(
    compute: LocalCompute, ask: Ask, gate: Gate
) -> None:
    """When the last one is gone there is nobody left who would serve them."""
    failures: list[ComputeError] = []

    async def waits(name: str) -> None:
        with pytest.raises(ComputeError, match="Too many open files") as caught:
            await compute.invoke(ask(gate.hold, name), timeout=math.inf)
        failures.append(caught.value)

    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as inner:
                inner.start_soon(
                    lambda: compute.invoke(ask(gate.hold, "a"), timeout=math.inf)
                )
                await gate.running("a")
                group.start_soon(waits, "b")
                group.start_soon(waits, "c")
                await anyio.wait_all_tasks_blocked()
                scope.cancel()

    assert len(failures) == 2


# --- settings -------------------------------------------------------------------------


def test_the_pool_is_as_large_as_the_machine() -> None:
    """Unless the settings say otherwise."""
    usable = len(os.sched_getaffinity(0))

    assert usable_cpus() == usable
    assert open_compute(Settings()).limits.concurrency == usable
    assert open_compute(Settings(concurrency=3)).limits.concurrency == 3


async def test_memory_is_a_limit_of_each_worker(
    anyio_backend: str, ask: Ask, answer: Answer
) -> None:
    """In MB, and not of the driver."""
    compute = open_compute(Settings(memory=300))
    await compute.prepare()
    usual = resource.getrlimit(resource.RLIMIT_DATA)

    request = ask(lambda _: resource.getrlimit(resource.RLIMIT_DATA), 0)
    (limits,) = answer(await compute.invoke(request, timeout=30))

    assert limits == (300 << 20, 300 << 20)
    assert resource.getrlimit(resource.RLIMIT_DATA) == usual
    await compute.aclose()


async def test_a_request_may_be_in_parts(
    single: LocalCompute, ask: Ask, answer: Answer
) -> None:
    """They are sent one after the other, and joined by nobody."""
    parts: Sequence[Buffer] = [bytes([each]) for each in b"".join(ask(abs, -5))]

    assert answer(await single.invoke(parts, timeout=30)) == [5]
