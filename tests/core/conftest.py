"""A platform that fails on command, a clock that jumps, a store that counts."""

from __future__ import annotations

import os
import random
import time
from collections import Counter, deque
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Sequence,
)
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any, TypeAlias

import anyio
import pytest
from anyio import to_thread
from anyio.lowlevel import checkpoint

from wren.envelope import REQUEST, RESPONSE, Buffer, decode, encode
from wren.errors import ThrottledError, WorkerLostError
from wren.protocols import Compute, Limits, WorkerInfo
from wren.storage.memory import MemoryStorage
from wren.storage.pages import Pages
from wren.tasks import Outcome, TaskRunner
from wren.worker import Worker, versions

Action: TypeAlias = str | BaseException | bytes | Callable[[], Awaitable[None]]
"""What happens to one invocation.

``ok``         it runs
``lose``       it runs, and the reply is lost
``drop``       the connection is lost at once; it runs on `FakeCompute.finish`
``duplicate``  it runs twice, and the second reply arrives
``hang``       nothing happens until it is cancelled
an exception   is raised, and nothing runs
bytes          are the answer, and nothing runs
a function     is awaited, then it runs
"""


class Died(BaseException):  # a worker process ends; nothing is raised
    """A worker came upon a poisonous argument."""


class _Runner(TaskRunner):
    def __init__(self, compute: FakeCompute) -> None:
        super().__init__()
        self._compute = compute

    def run(
        self,
        function: Callable[..., Any],
        call: str,
        arguments: list[Any],
        timeout: float | None,
    ) -> Outcome:
        if self._compute.forgets:
            return super().run(function, call, arguments, None)
        for argument in arguments:
            self._compute.executed.append(argument)
            if self._compute.is_poison(argument):
                raise Died
        outcome = super().run(function, call, arguments, None)
        self._compute.returned += outcome.values
        return outcome


class _Worker(Worker):
    def __init__(self, compute: FakeCompute, name: str) -> None:
        super().__init__(name, "")
        self._runner = _Runner(compute)

    def _install(self, bundle: str, archive: memoryview) -> None:
        """The modules are in this process already."""


def _harmless(_: object) -> bool:
    return False


class FakeCompute(Compute):
    """Runs requests in this process, and breaks down as its script says.

    Attributes:
        script: What happens to the next invocations; those after it are ``ok``.
        executed: Each argument as often as a worker began to work on it, in order.
        returned: What tasks returned, whether it arrived or not.
        invocations: Requests received.
        requests: Their headers.
        in_flight: Invocations under way.
        most_in_flight: Largest number of them so far.
        timeouts: What `invoke` was given.
        answer: The last one.
        on_answer: Called at the end of each invocation.
    """

    def __init__(
        self,
        script: Iterable[Action] = (),
        *,
        limits: Limits | None = None,
        threads: bool = False,
        workers: int = 1,
        poison: Callable[[Any], bool] | None = None,
        forgets: bool = False,
        seed: int | None = None,
        capacity: int | None = None,
    ) -> None:
        """Describe a platform.

        Args:
            script: See above.
            limits: By default 4 at a time, and nothing is ever committed.
            threads: Work outside of the event loop, as is needed where workers read
                and write storage.
            workers: Processes that serve the requests in turn.
            poison: Arguments that kill the worker.
            forgets: Remember nothing of single tasks and requests.
            capacity: More in flight are throttled, whatever the limits say.
            seed: Draw how many turns of the event loop each invocation takes, and
                which worker it gets.
        """
        self.script = deque(script)
        self.executed: list[Any] = []
        self.returned: list[Any] = []
        self.invocations = 0
        self.requests: list[dict[str, Any]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.timeouts: list[float] = []
        self.closed = False
        self.forgets = forgets
        self.is_poison: Callable[[Any], bool] = poison or _harmless
        self._limits = limits or Limits(concurrency=4, lossless=True)
        self._threads = threads
        self._workers = deque(_Worker(self, f"w{n}") for n in range(workers))
        self._random = None if seed is None else random.Random(seed)  # noqa: S311
        self._capacity = capacity
        self._taken = 0
        self._gate: anyio.Event | None = None
        self._blocked = 0
        self._dropped: list[bytes] = []
        self.answer = b""
        self.on_answer: Callable[[], object] | None = None

    @property
    def name(self) -> str:
        return "fake"

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def counts(self) -> Counter[Any]:
        """How often each argument was executed."""
        return Counter(self.executed)

    async def prepare(self) -> WorkerInfo:
        python, wren, cloudpickle = versions()
        return WorkerInfo(python=python, wren=wren, cloudpickle=cloudpickle)

    async def blocked(self, count: int) -> None:
        """Wait until so many invocations have been held or hang, in all."""
        while self._blocked < count:
            await checkpoint()

    @contextmanager
    def held(self) -> Generator[None]:
        """Keep invocations waiting until the context is left."""
        gate = self._gate = anyio.Event()
        try:
            yield
        finally:
            gate.set()
            self._gate = None

    async def invoke(
        self,
        request: Sequence[Buffer],
        *,
        timeout: float,  # noqa: ASYNC109  # part of the contract
    ) -> Buffer:
        self.invocations += 1
        data = b"".join(request)
        if not self.forgets:
            self.timeouts.append(timeout)
            self.requests.append(decode(data, REQUEST)[0])
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await checkpoint()
            action = self.script.popleft() if self.script else "ok"
            if self._capacity is not None and self._taken >= self._capacity:
                action = ThrottledError("full")
            self._taken += 1
            try:
                return await self._act(action, data)
            finally:
                self._taken -= 1
        finally:
            self.in_flight -= 1
            if self.on_answer is not None:
                self.on_answer()

    async def _act(self, action: Action, data: bytes) -> Buffer:
        if self._gate is not None:
            self._blocked += 1
            await self._gate.wait()
        if isinstance(action, BaseException):
            raise action
        if isinstance(action, bytes):
            return action
        if action == "hang":
            self._blocked += 1
            await anyio.sleep_forever()
        if callable(action):
            await action()
        if self._random is not None:
            for _ in range(self._random.randrange(8)):
                await checkpoint()
        if action == "drop":
            self._dropped.append(data)
            raise WorkerLostError("the connection was dropped")
        if action == "duplicate":
            await self._handle(data)
        answer = await self._handle(data)
        if action == "lose":
            raise WorkerLostError("the reply was lost")
        return answer

    async def finish(self) -> None:
        """Let the work go on whose connections were dropped."""
        while self._dropped:
            await self._handle(self._dropped.pop(0))

    async def _handle(self, data: bytes) -> bytes:
        if self._threads:
            return await to_thread.run_sync(self._work, data)
        return self._work(data)

    def _work(self, data: bytes) -> bytes:
        worker = self._workers[0]
        self._workers.rotate(-1 if self._random is None else self._random.randrange(9))
        try:
            self.answer = b"".join(worker.handle(data))
        except Died:
            raise WorkerLostError("the worker died", exit_code=-9) from None
        return self.answer

    async def aclose(self) -> None:
        self.closed = True


class CountingStorage(MemoryStorage):
    """A store that counts its requests.

    Attributes:
        calls: Each operation with its key or prefix, in order.
        fail: Raised by the next operations of these names, each once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []
        self.fail: dict[str, list[Exception]] = {}

    def count(self, operation: str) -> int:
        """Return how often an operation was asked for."""
        return sum(1 for name, _ in self.calls if name == operation)

    def _note(self, operation: str, key: str) -> None:
        self.calls.append((operation, key))
        if self.fail.get(operation):
            raise self.fail[operation].pop(0)

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        self._note("get", key)
        return await super().get(key, start=start, stop=stop)

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        self._note("put", key)
        await super().put(key, data, if_absent=if_absent)

    async def delete(self, keys: Iterable[str]) -> None:
        keys = list(keys)
        self._note("delete", ",".join(keys))
        await super().delete(keys)

    def list(self, prefix: str = "", *, start_after: str = "") -> Pages:
        self._note("list", prefix)
        return super().list(prefix, start_after=start_after)

    async def keys(self) -> Sequence[str]:
        """Return the keys of all objects, without counting that."""
        return [info.key async for info in super().list()]


class Clock:
    """A clock on which sleeping takes no time.

    Attributes:
        now: Seconds; both clocks show it.
        slept: How long each sleep was.
        most_asleep: Largest number of sleeps at the same time.
    """

    def __init__(self) -> None:
        self.now = time.monotonic()
        self.slept: list[float] = []
        self.most_asleep = 0
        self._asleep = 0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._asleep += 1
        self.most_asleep = max(self.most_asleep, self._asleep)
        await checkpoint()
        self.now += seconds
        self._asleep -= 1


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """Read no setting of whoever runs the tests, and no file on the event loop."""
    import_module("wren.engine")  # otherwise imported when an executor is opened
    monkeypatch.setattr("wren.configfile.tables", list)
    for name in [name for name in os.environ if name.startswith("WREN_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Let the driver's waiting take no time."""
    clock = Clock()
    stand_in = SimpleNamespace(monotonic=clock.monotonic, time=time.time)
    for module in ("dispatch", "window", "spill"):
        monkeypatch.setattr(f"wren.{module}.time", stand_in)
    monkeypatch.setattr(anyio, "sleep", clock.sleep)
    return clock


@pytest.fixture
def make_compute() -> type[FakeCompute]:
    """Make a `FakeCompute`."""
    return FakeCompute


@pytest.fixture
async def store() -> AsyncGenerator[CountingStorage]:
    """A store that counts its requests."""
    store = CountingStorage()
    yield store
    await store.aclose()


@pytest.fixture
def refusal() -> Callable[..., bytes]:
    """Make the answer of a worker that refuses a request."""

    def make(reason: str, detail: str = "", position: int = 0) -> bytes:
        header = {
            "worker": "w",
            "cold": False,
            "started": 0.0,
            "refused": reason,
            "detail": detail,
            "position": position,
        }
        return b"".join(encode(RESPONSE, header, []))

    return make
