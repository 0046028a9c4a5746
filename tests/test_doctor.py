from __future__ import annotations

import sys
import types
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal, TypeAlias

import anyio
import pytest

from wren import doctor
from wren.config import Settings
from wren.doctor import Result, examine
from wren.errors import (
    CredentialsError,
    StorageError,
    TransientError,
    UnsupportedError,
)
from wren.protocols import Buffer, Grant, Limits, WorkerInfo
from wren.registry import BACKENDS, STORAGE, Adapter
from wren.storage.memory import MemoryStorage
from wren.storage.pages import Pages
from wren.worker import versions

Use: TypeAlias = Callable[[MemoryStorage], str]

# It has the event loop to itself, and reads files and starts processes in between.
pytestmark = [pytest.mark.anyio, pytest.mark.blocking]

CHECKS = [
    "versions",
    "configuration",
    "storage: put and get",
    "storage: put if absent",
    "storage: list",
    "storage: grant",
    "storage: delete",
    "backend: start",
    "backend: call",
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration file of this repository or of its user."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


async def results(**arguments: Any) -> dict[str, Result]:
    return {result.name: result async for result in examine(**arguments)}


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Makes a store the one at the URL that is returned."""

    def use(store: MemoryStorage) -> str:
        def open_storage(url: str, settings: Settings) -> MemoryStorage:
            return store

        module = types.ModuleType("wren_store_under_test")
        module.__dict__["open_storage"] = open_storage
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(STORAGE, "odd", Adapter(module.__name__))
        return "odd:"

    return use


async def test_a_sound_set_up_passes_every_check() -> None:
    """Without any configuration, on the backend's own storage."""
    found = await results(concurrency=1)

    assert list(found) == CHECKS
    assert [each for each in found.values() if not each.ok or each.fix] == []
    assert all(each.detail for each in found.values())


async def test_a_file_store_passes_and_is_left_clean(tmp_path: Path) -> None:
    """The probe is removed."""
    store = tmp_path / "store"

    found = await results(concurrency=1, storage=store.as_uri())

    assert [each for each in found.values() if not each.ok] == []
    assert [path for path in store.rglob("*") if path.is_file()] == []


async def test_a_wrong_configuration_ends_the_examination() -> None:
    """Everything after it would only repeat it."""
    found = await results(retries=-1)

    assert list(found) == CHECKS[:2]
    assert not found["configuration"].ok
    assert "retries = -1: expected" in found["configuration"].detail
    assert "wren config" in found["configuration"].fix


async def test_a_fault_of_one_part_does_not_hide_another() -> None:
    """Storage and backend are examined whether or not the other works."""
    found = await results(backend="nope", storage="nope:")

    assert [name for name, each in found.items() if not each.ok] == [
        "storage: put and get",
        "backend: start",
    ]
    assert "unknown backend 'nope'" in found["backend: start"].detail


class Careless(MemoryStorage):
    """Ignores the condition of a put."""

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        await super().put(key, data)


class Failing(MemoryStorage):
    """Answers every put with an error."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        (CredentialsError("needs s3:PutObject"), "log in again"),
        (TransientError("busy"), "try again"),
        (StorageError("odd"), "the store's own tools"),
    ],
)
async def test_each_fault_has_its_own_remedy(
    error: Exception, fix: str, use: Use
) -> None:
    """What helps against expired credentials does not help against an outage."""
    found = await results(backend="nope", storage=use(Failing(error)))

    check = found["storage: put and get"]
    assert not check.ok
    assert check.detail == str(error)
    assert fix in check.fix


class Modest(MemoryStorage):
    """Cannot make grants, and says so."""

    async def grant(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        *,
        expires_in: float,
        if_absent: bool = False,
    ) -> Grant:
        raise UnsupportedError("no grants here")


async def test_a_capability_that_is_refused_is_no_fault(use: Use) -> None:
    """The contract lets a store lack it."""
    found = await results(backend="nope", storage=use(Modest()))

    assert found["storage: grant"].ok
    assert found["storage: grant"].detail == "not supported: no grants here"
    assert found["storage: delete"].ok


class Silent(MemoryStorage):
    """Never answers."""

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        await anyio.sleep_forever()


async def test_silence_is_a_fault(use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    """Firewalls drop packets; the doctor must not wait for ever."""
    monkeypatch.setattr(doctor, "_SECONDS", 0.05)

    found = await results(backend="nope", storage=use(Silent()))

    check = found["storage: put and get"]
    assert (check.ok, check.detail) == (False, "no answer within 0.05 s")


class Corrupt(MemoryStorage):
    """Returns other bytes than were put."""

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        return b"x" + (await super().get(key, start=start, stop=stop))[1:]


class Forgetful(MemoryStorage):
    """Lists something else."""

    def list(self, prefix: str = "", *, start_after: str = "") -> Pages:
        return super().list("elsewhere/")


class Confused(MemoryStorage):
    """Makes grants for another object."""

    async def grant(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        *,
        expires_in: float,
        if_absent: bool = False,
    ) -> Grant:
        await self.put("other", b"other")
        return await super().grant("other", method, expires_in=expires_in)


class Clinging(MemoryStorage):
    """Deletes nothing."""

    async def delete(self, keys: Iterable[str]) -> None:
        return


@pytest.mark.parametrize(
    ("store", "fault"),
    [
        (Corrupt, "storage: put and get"),
        (Careless, "storage: put if absent"),
        (Forgetful, "storage: list"),
        (Confused, "storage: grant"),
        (Clinging, "storage: delete"),
    ],
)
async def test_a_store_that_breaks_a_promise_is_found_out(
    store: type[MemoryStorage], fault: str, use: Use
) -> None:
    """Silently, so that jobs would go wrong much later."""
    found = await results(backend="nope", storage=use(store()))

    (check, _) = [each for each in found.values() if not each.ok]
    assert check.name == fault
    assert check.fix


class Stranger:
    """A backend with another Python, and without a store of its own."""

    name: str = "stranger"
    limits: Limits = Limits(concurrency=1)

    async def prepare(self) -> WorkerInfo:
        _, ours, cloudpickle = versions()
        return WorkerInfo(
            python="2.7", wren=ours, cloudpickle=cloudpickle, name="far away"
        )

    async def invoke(
        self,
        request: Sequence[Buffer],
        *,
        timeout: float,  # noqa: ASYNC109  # the protocol's
    ) -> Buffer:
        raise AssertionError

    async def aclose(self) -> None:
        return


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of that backend."""

    def open_compute(settings: Settings) -> Stranger:
        return Stranger()

    module = types.ModuleType("wren_backend_under_test")
    module.__dict__["open_compute"] = open_compute
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(BACKENDS, "odd", Adapter(module.__name__))
    return "odd"


async def test_a_worker_with_other_versions_is_found_out(stranger: str) -> None:
    """Pickles do not survive the difference."""
    found = await results(backend=stranger, storage="memory:")

    check = found["backend: start"]
    assert not check.ok
    assert check.detail.startswith("far away has Python, wren, cloudpickle 2.7, ")
    assert "deploy again" in check.fix
    assert "backend: call" not in found


async def test_a_backend_without_storage_needs_one(stranger: str) -> None:
    """No cloud's functions come with a store."""
    found = await results(backend=stranger)

    assert "WREN_STORAGE" in found["storage: put and get"].detail


class Learned(MemoryStorage):
    """Has checks of its own."""

    async def diagnose(self) -> AsyncIterator[Result]:
        yield Result("bucket policy", False, "public", "block public access")


async def test_an_adapter_adds_its_own_checks(use: Use) -> None:
    """Only it knows the cloud's permissions."""
    found = await results(backend="nope", storage=use(Learned()))

    assert list(found)[-1] == "bucket policy"
    assert found["bucket policy"].fix == "block public access"


async def test_what_was_opened_is_closed(use: Use) -> None:
    """Also when the examination is not read to its end."""
    store = MemoryStorage()

    async with aclosing(examine(backend="nope", storage=use(store))) as checks:
        async for result in checks:
            if result.name == "storage: put and get":
                break

    with pytest.raises(StorageError):
        await store.get("key")
