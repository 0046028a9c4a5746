"""Any sequence of calls on a store gives the answers that a dictionary would give."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from wren import grants
from wren.errors import KeyExistsError, KeyNotFoundError
from wren.protocols import ObjectInfo, Storage
from wren.storage.local import FileStorage
from wren.storage.memory import MemoryStorage

T = TypeVar("T")

# With random keys alone, two operations would hardly ever meet.
POOL = ["a", "A", "a/b", "a/b/c", "ab", "é", "e\u0301", "a.b", "a-", "0", "n" * 250]
SEGMENT = st.text("aAb.é0-", min_size=1, max_size=3).filter(
    lambda text: text not in {".", ".."}
)
KEY = st.sampled_from(POOL) | st.lists(SEGMENT, min_size=1, max_size=3).map("/".join)
BODY = st.binary(max_size=12)


class Model(RuleBasedStateMachine):
    """Compares a store with a dictionary; subclasses say which store."""

    portal: BlockingPortal

    def __init__(self) -> None:
        super().__init__()
        self.store = self.open()
        self.model: dict[str, bytes] = {}

    def open(self) -> Storage:
        """Return an empty store."""
        raise NotImplementedError

    def teardown(self) -> None:
        self.call(lambda: self.store.aclose())

    def call(self, step: Callable[[], Awaitable[T]]) -> T:
        """Take a step on the event loop."""
        return self.portal.call(step)

    @rule(key=KEY, data=BODY)
    def put(self, key: str, data: bytes) -> None:
        self.call(lambda: self.store.put(key, data))

        self.model[key] = data

    @rule(key=KEY, data=BODY)
    def put_if_absent(self, key: str, data: bytes) -> None:
        try:
            self.call(lambda: self.store.put(key, data, if_absent=True))
        except KeyExistsError:
            assert key in self.model
        else:
            assert key not in self.model
            self.model[key] = data

    @rule(key=KEY, data=BODY, if_absent=st.booleans())
    def put_by_grant(self, key: str, data: bytes, if_absent: bool) -> None:
        grant = self.call(
            lambda: self.store.grant(key, "PUT", expires_in=60, if_absent=if_absent)
        )
        stored = grants.store(grants.to_json(grant), [data])

        taken = if_absent and key in self.model
        assert stored == ("exists" if taken else "written")
        if not taken:
            self.model[key] = data

    @rule(key=KEY)
    def get_by_grant(self, key: str) -> None:
        grant = self.call(lambda: self.store.grant(key, "GET", expires_in=60))
        try:
            data = grants.fetch(grants.to_json(grant))
        except KeyNotFoundError:
            assert key not in self.model
        else:
            assert data == self.model[key]

    @rule(key=KEY, start=st.integers(0, 9), length=st.none() | st.integers(0, 12))
    def get(self, key: str, start: int, length: int | None) -> None:
        stop = None if length is None else start + length
        try:
            data = self.call(lambda: self.store.get(key, start=start, stop=stop))
        except KeyNotFoundError:
            assert key not in self.model
        else:
            assert data == self.model[key][start:stop]

    @rule(key=KEY)
    def head(self, key: str) -> None:
        try:
            info = self.call(lambda: self.store.head(key))
        except KeyNotFoundError:
            assert key not in self.model
        else:
            assert (info.key, info.size) == (key, len(self.model[key]))

    @rule(keys=st.lists(KEY, max_size=3))
    def delete(self, keys: list[str]) -> None:
        self.call(lambda: self.store.delete(keys))

        for key in keys:
            self.model.pop(key, None)

    @rule(prefix=st.just("") | KEY | KEY.map("{}/".format), after=st.just("") | KEY)
    def list(self, prefix: str, after: str) -> None:
        async def listing() -> tuple[ObjectInfo, ...]:
            found = self.store.list(prefix, start_after=after)
            return tuple([info async for info in found])

        infos = self.call(listing)

        assert [(info.key, info.size) for info in infos] == [
            (key, len(self.model[key]))
            for key in sorted(self.model, key=str.encode)
            if key.startswith(prefix) and key.encode() > after.encode()
        ]


class MemoryModel(Model):
    def open(self) -> Storage:
        return MemoryStorage()


class FileModel(Model):
    def open(self) -> Storage:
        self.folder = tempfile.TemporaryDirectory()
        return FileStorage(Path(self.folder.name))

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


@pytest.mark.parametrize("model", [MemoryModel, FileModel])
def test_a_store_is_a_dictionary(
    model: type[Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hypothesis draws the calls, the same ones each time."""
    with start_blocking_portal() as portal:
        monkeypatch.setattr(model, "portal", portal, raising=False)

        run_state_machine_as_test(
            model,
            settings=settings(
                max_examples=40,
                stateful_step_count=30,
                deadline=None,
                derandomize=True,
                database=None,
            ),
        )
