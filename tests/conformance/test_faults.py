"""Faults happen when they are planned, do what they say, and are accounted for."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import anyio
import pytest

from wren.conformance.fault_plan import MARK, Fault, FaultPlan, Fired, damage
from wren.conformance.faulty_compute import ACTIONS as COMPUTE_ACTIONS
from wren.conformance.faulty_compute import FaultyCompute
from wren.conformance.faulty_storage import ACTIONS as STORAGE_ACTIONS
from wren.conformance.faulty_storage import FaultyStorage
from wren.errors import (
    AccessDeniedError,
    ComputeError,
    ConfigurationError,
    CredentialsError,
    DeploymentError,
    KeyNotFoundError,
    TaskTimeoutError,
    ThrottledError,
    TransientError,
    WorkerLostError,
)
from wren.protocols import Buffer, Grant, Limits, WorkerInfo
from wren.storage.memory import MemoryStorage

pytestmark = pytest.mark.anyio

# --- plans ----------------------------------------------------------------------------


def test_a_fault_happens_at_the_calls_that_it_names() -> None:
    """Counted from 1, among the calls that match."""
    plan = FaultPlan(Fault("put", "flip", key="a/*", first=2, times=2))

    calls = [("put", "a/1"), ("get", "a/1"), ("put", "b/1")]
    calls += [("put", f"a/{n}") for n in range(2, 6)]
    taken = [key for operation, key in calls if plan.take(operation, key)]

    assert taken == ["a/2", "a/3"]
    assert plan.fired == (
        Fired("put", "a/2", 2, "flip"),
        Fired("put", "a/3", 3, "flip"),
    )


def test_the_first_fault_that_applies_is_played() -> None:
    """And the others go on counting."""
    plan = FaultPlan(
        Fault("get", "one"), Fault("get", "two", times=2), Fault("*", "any", first=3)
    )

    taken = [plan.take("get", "k") for _ in range(4)]

    actions = [fault.action if fault else None for fault in taken]
    assert actions == ["one", "two", "any", None]
    assert plan.missing == [(plan.faults[1], 1)]


def test_a_fault_that_did_not_happen_fails_the_test() -> None:
    """A test of a fault that never came has tested nothing."""
    plan = FaultPlan(Fault("get", "flip"), Fault("put", "lose", times=2))
    plan.take("put", "k")
    plan.take("get", "k")

    with pytest.raises(AssertionError, match=r"Fault\('put', 'lose', times=2\), 1"):
        plan.assert_all_fired()
    with pytest.raises(AssertionError, match="not fired"), plan:
        pass
    plan.take("put", "k")
    plan.assert_all_fired()


def test_a_failure_under_a_plan_says_how_to_replay_it() -> None:
    """Also when the plan itself was drawn."""
    plan = FaultPlan(Fault("get", "flip", key="*/x", first=2, seconds=0.5))
    with pytest.raises(ZeroDivisionError) as caught, plan:
        raise ZeroDivisionError
    assert repr(plan) in caught.value.__notes__[0]


@pytest.mark.parametrize(
    "plan",
    [
        FaultPlan(),
        FaultPlan(Fault("get", "flip")),
        FaultPlan(
            Fault("GET", "status", "/k*", 2, 3, 0.5, 429, {"Retry-After": "1"}, b"{}"),
            Fault("*", "delay", seconds=1),
        ),
        FaultPlan.random(3, rate=0.5, actions={"get": ["flip"], "put": ["lose"]}),
    ],
)
def test_a_plan_is_printed_as_what_makes_it(plan: FaultPlan) -> None:
    """So that it can be pasted into a test."""
    names = {"Fault": Fault, "FaultPlan": FaultPlan}
    again = eval(repr(plan), names)  # noqa: S307  # our own text
    assert repr(again) == repr(plan)
    assert len(again.faults) == len(plan.faults)


def test_a_random_plan_is_its_seeds() -> None:
    """The same one every time; another for another seed; about as many as asked."""
    actions = {"get": ["flip", "delay"], "invoke": ["lose"]}

    def draw(seed: int, rate: float = 0.3) -> FaultPlan:
        return FaultPlan.random(seed, rate=rate, actions=actions, calls=100)

    assert repr(draw(1)) == repr(draw(1)) != repr(draw(2))
    assert draw(1, rate=0.0).faults == ()
    assert len(draw(1, rate=1.0).faults) == 200
    assert 30 < len(draw(1).faults) < 90
    assert {(fault.operation, fault.action) for fault in draw(1).faults} == {
        ("get", "flip"),
        ("get", "delay"),
        ("invoke", "lose"),
    }


@pytest.mark.parametrize(
    "fault", [Fault("get", "flip", first=0), Fault("get", "flip", times=0)]
)
def test_a_fault_that_could_never_happen_is_refused(fault: Fault) -> None:
    """Rather than waited for."""
    with pytest.raises(ValueError, match="counted from 1"):
        FaultPlan(fault)


@pytest.mark.parametrize(
    ("action", "left"),
    [
        ("truncate", b"abc"),
        ("flip", b"abceef"),
        ("empty", b""),
        ("replace", MARK),
        ("lose", b"abcdef"),
    ],
)
def test_damage_is_what_its_name_says(action: str, left: bytes) -> None:
    """And nothing breaks where there is nothing to damage."""
    assert damage(b"abcdef", action) == left
    assert damage(b"", action) in {b"", MARK}


# --- stores ---------------------------------------------------------------------------

Faulty = Callable[..., FaultyStorage]


@pytest.fixture
async def faulty() -> AsyncGenerator[Faulty]:
    """Wrap a store that holds ``k`` and whose faults are given."""
    inner = MemoryStorage()
    await inner.put("k", b"abcdef")

    def wrap(*faults: Fault) -> FaultyStorage:
        return FaultyStorage(inner, FaultPlan(*faults))

    yield wrap
    await inner.aclose()


async def keys(storage: FaultyStorage, prefix: str = "") -> list[str]:
    return [info.key async for info in storage.list(prefix)]


CALLS: dict[str, Callable[[FaultyStorage], Any]] = {
    "get": lambda store: store.get("k"),
    "put": lambda store: store.put("new", b"x"),
    "head": lambda store: store.head("k"),
    "delete": lambda store: store.delete(["k"]),
    "list": keys,
    "grant": lambda store: store.grant("k", "GET", expires_in=60),
}


@pytest.mark.parametrize("operation", CALLS)
@pytest.mark.parametrize(
    ("action", "error"),
    [
        ("fail-before", TransientError),
        ("fail-after", TransientError),
        ("forbid", AccessDeniedError),
        ("stall", TransientError),
        ("delay", None),
    ],
)
async def test_every_call_of_a_store_may_fail_and_the_next_is_fine(
    faulty: Faulty, operation: str, action: str, error: type[Exception] | None
) -> None:
    """Nothing was done, or everything, as the action says."""
    store = faulty(Fault(operation, action, seconds=0))

    if error is None:
        await CALLS[operation](store)
    else:
        with pytest.raises(error) as caught:
            await CALLS[operation](store)
        assert type(caught.value) is error
    done = action in {"fail-after", "delay"}
    if operation == "put":
        assert ("new" in await keys(store)) is done
    if operation == "delete":
        assert ("k" not in await keys(store)) is done
    await CALLS[operation](store)


@pytest.mark.parametrize("action", ["truncate", "flip", "empty", "replace"])
async def test_damage_to_a_read_passes_and_to_a_write_stays(
    faulty: Faulty, action: str
) -> None:
    """A body is bent on its way; or the object is another one."""
    store = faulty(Fault("get", action), Fault("put", action, key="new"))
    bent = damage(b"abcdef", action)

    assert await store.get("k") == bent
    assert await store.get("k") == b"abcdef"
    await store.put("new", b"abcdef")
    assert [await store.get("new"), await store.get("new")] == [bent, bent]


async def test_an_object_may_be_late(faulty: Faulty) -> None:
    """It is there, and is not found yet."""
    store = faulty(Fault("get", "missing"), Fault("head", "missing"))

    with pytest.raises(KeyNotFoundError):
        await store.get("k")
    with pytest.raises(KeyNotFoundError):
        await store.head("k")
    assert await store.get("k") == b"abcdef"


async def test_a_stale_listing_is_the_one_before(faulty: Faulty) -> None:
    """Of the same prefix; at first it shows nothing."""
    store = faulty(Fault("list", "stale"), Fault("list", "stale", first=3))

    assert await keys(store) == []
    await store.put("later", b"")
    assert await keys(store) == ["k", "later"]
    await store.delete(["k"])
    assert await keys(store) == ["k", "later"]
    assert await keys(store) == ["later"]


async def test_a_grant_may_be_one_that_is_refused(faulty: Faulty) -> None:
    """A file's has expired."""
    store = faulty(Fault("grant", "expire", key="k"))

    first = await store.grant("k", "GET", expires_in=60)
    second = await store.grant("k", "GET", expires_in=60)

    assert first.url == second.url
    assert first.expires < time.time() < second.expires


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("X-Amz-Expires=60&X-Amz-Signature=abcd&x-id=GetObject", {}),
        ("X-Goog-Expires=60&X-Goog-Signature=abcd", {}),
        ("se=2026-11-25&sig=ab%2Fcd%3D&sp=r", {}),
        ("", {"Authorization": "Bearer abcd"}),
    ],
)
async def test_a_signature_that_is_refused_shows_nothing_else(
    query: str, headers: dict[str, str]
) -> None:
    """Only what proves the right is changed, whatever the cloud calls it."""

    class Signs(MemoryStorage):
        async def grant(self, *_: Any, **__: Any) -> Grant:
            url = f"https://store/k?{query}"
            return Grant(method="GET", url=url, headers={"Host": "store"} | headers)

    plan = FaultPlan(Fault("grant", "expire"))
    store = FaultyStorage(Signs(), plan)
    bad = await store.grant("k", "GET", expires_in=60)
    good = await store.grant("k", "GET", expires_in=60)

    assert (bad.url, bad.headers) != (good.url, good.headers)
    assert bad.headers["Host"] == "store"
    fields = [pair.partition("=") for pair in bad.url.partition("?")[2].split("&")]
    before = [pair.partition("=") for pair in good.url.partition("?")[2].split("&")]
    changed = [old[0] for old, new in zip(before, fields, strict=True) if old != new]
    assert len(changed) == (0 if headers else 1)
    assert all("sig" in name.lower() for name in changed)


async def test_a_faulty_store_is_otherwise_the_store_itself(faulty: Faulty) -> None:
    """Name and capabilities, ranges and conditions."""
    store = faulty()

    assert store.name == "memory"
    assert store.capabilities == MemoryStorage().capabilities
    assert await store.get("k", start=1, stop=3) == b"bc"
    assert await keys(store, "z") == []
    with pytest.raises(TypeError):
        await store.delete("k")
    await store.aclose()
    with pytest.raises(Exception, match="closed"):
        await store.get("k")


@pytest.mark.parametrize("operation", STORAGE_ACTIONS)
def test_an_action_that_a_store_does_not_know_is_refused(operation: str) -> None:
    """A misspelt fault would test nothing."""
    with pytest.raises(ValueError, match="fail-before"):
        FaultyStorage(MemoryStorage(), FaultPlan(Fault(operation, "drop-reply")))


# --- computes -------------------------------------------------------------------------


class Echo:
    """Answers with the request, and counts."""

    name = "echo"
    limits = Limits(concurrency=3)

    def __init__(self) -> None:
        self.answers = 0
        self.closed = False

    async def prepare(self) -> WorkerInfo:
        return WorkerInfo(python="3", wren="1", cloudpickle="2")

    async def invoke(
        self,
        request: Sequence[Buffer],
        *,
        timeout: float,  # noqa: ASYNC109  # the contract
    ) -> Buffer:
        assert timeout > 0
        self.answers += 1
        return memoryview(b"".join(request) + str(self.answers).encode())

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("action", "error", "executed"),
    [
        ("throttle", ThrottledError, 0),
        ("refuse", ComputeError, 0),
        ("missing", DeploymentError, 0),
        ("forbid", CredentialsError, 0),
        ("die", WorkerLostError, 0),
        ("drop", TaskTimeoutError, 0),
        ("lose", WorkerLostError, 1),
    ],
)
async def test_an_invocation_may_fail_and_the_next_is_fine(
    action: str, error: type[Exception], executed: int
) -> None:
    """With the class of error that says whether it may have run."""
    inner = Echo()
    plan = FaultPlan(Fault("invoke", action))
    compute = FaultyCompute(inner, plan)

    with plan:
        with pytest.raises(error) as caught:
            await compute.invoke([b"re", b"quest"], timeout=0.01)
        await compute.invoke([b"re", b"quest"], timeout=60)

    assert type(caught.value) is error
    assert inner.answers == compute.executed == executed + 1
    assert compute.sent == 2


@pytest.mark.parametrize(
    ("action", "answer", "executed"),
    [
        ("delay", b"request1", 1),
        ("duplicate", b"request2", 2),
        ("duplicate-first", b"request1", 2),
        ("truncate", b"requ", 1),
        ("flip", b"sequest1", 1),
        ("empty", b"", 1),
        ("garbage", b"<html><title>502 Bad Gateway</title></html>", 1),
    ],
)
async def test_a_reply_may_be_another(
    action: str, answer: bytes, executed: int
) -> None:
    """It was executed, once or twice."""
    compute = FaultyCompute(Echo(), FaultPlan(Fault("invoke", action, seconds=0)))

    assert await compute.invoke([b"re", b"quest"], timeout=60) == answer
    assert compute.executed == executed


async def test_a_platform_may_say_when_to_come_back() -> None:
    """Or not say it."""
    plan = FaultPlan(
        Fault("invoke", "throttle", seconds=7), Fault("invoke", "throttle", first=2)
    )
    compute = FaultyCompute(Echo(), plan)

    for expected in (7, None):
        with pytest.raises(ThrottledError) as caught:
            await compute.invoke([b""], timeout=60)
        assert caught.value.retry_after == expected


async def test_a_start_that_takes_too_long_is_out_of_time() -> None:
    """Time runs from being sent."""
    compute = FaultyCompute(Echo(), FaultPlan(Fault("invoke", "delay", seconds=60)))

    with anyio.fail_after(5), pytest.raises(TaskTimeoutError):
        await compute.invoke([b""], timeout=0.01)
    assert compute.executed == 0


async def test_a_faulty_compute_is_otherwise_the_compute_itself() -> None:
    """Name, limits, what it runs; storage where it has some; and its end."""
    inner = Echo()
    compute = FaultyCompute(inner, FaultPlan())

    assert (compute.name, compute.limits) == (inner.name, inner.limits)
    assert await compute.prepare() == await inner.prepare()
    with pytest.raises(ConfigurationError, match="no storage"):
        compute.open_storage()
    await compute.aclose()
    assert inner.closed


def test_an_action_that_a_compute_does_not_know_is_refused() -> None:
    """A misspelt fault would test nothing."""
    assert "drop-reply" not in COMPUTE_ACTIONS
    with pytest.raises(ValueError, match="duplicate-first"):
        FaultyCompute(Echo(), FaultPlan(Fault("invoke", "drop-reply")))
