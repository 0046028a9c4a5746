"""A store compared with a dictionary, over sequences of calls that hypothesis draws."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import settings as Settings  # noqa: N812  # a class
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from wren import grants
from wren.conformance.storage_calls import VALID, Call
from wren.errors import KeyExistsError, KeyNotFoundError
from wren.protocols import ObjectInfo, Storage

T = TypeVar("T")

# With random keys alone, two operations would hardly ever meet.
_POOL: Final = st.sampled_from(
    ("a", "A", "a/b", "a/b/c", "ab", "é", "e\u0301", "a.b", "a-", "n" * 250)
)
_SEGMENT: Final = st.text("aAb.é0-", min_size=1, max_size=3).filter(
    lambda text: text not in {".", ".."}
)
_ANY: Final = st.lists(_SEGMENT, min_size=1, max_size=3).map("/".join)
_KEY: Final = st.integers(0, 3).flatmap(lambda drawn: _POOL if drawn else _ANY)
_BODY: Final = st.binary(max_size=12)

SETTINGS: Final = Settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    report_multiple_bugs=False,
)
"""Quick enough for every run; the same sequences each time."""


def check_storage_model(
    place: Callable[[], AbstractAsyncContextManager[Callable[[], Storage]]],
    *,
    backend: str = "asyncio",
    settings: Settings = SETTINGS,
) -> None:
    """Check that a store answers any sequence of calls as a dictionary would.

    Call it from a synchronous test.

    Args:
        place: Returns what is entered once for each sequence, to get at an empty place,
            and left at its end, to remove it. What it yields opens a store there; that
            is called again after the store was closed, and shall find the same objects.
        backend: The event loop: ``asyncio`` or ``trio``.
        settings: Of hypothesis: how many sequences, of how many calls.

    Raises:
        AssertionError: An answer was wrong; hypothesis prints the shortest sequence.
    """
    with start_blocking_portal(backend) as portal:
        make: Any = lambda: _StorageModel(portal, place)  # noqa: E731  # typed as a class
        run_state_machine_as_test(
            make,
            settings=settings,
        )


class _StorageModel(RuleBasedStateMachine):
    """Makes each call on the store and on a dictionary."""

    def __init__(
        self,
        portal: BlockingPortal,
        place: Callable[[], AbstractAsyncContextManager[Callable[[], Storage]]],
    ) -> None:
        super().__init__()
        self._portal = portal
        self._place = portal.wrap_async_context_manager(place())
        self._open = self._place.__enter__()
        self._store = self._open()
        self._model: dict[str, bytes] = {}

    def teardown(self) -> None:
        """Look at everything once more, close the store and remove what it holds."""
        try:
            self.list("", "")
            for key in self._model:
                self.get(key, 0, None)
        finally:
            self._portal.call(self._store.aclose)
            self._place.__exit__(None, None, None)

    def _call(self, call: Call) -> Any:
        return self._portal.call(call)

    @rule()
    def reopen(self) -> None:
        """Nothing is lost that was only in the client."""
        self._portal.call(self._store.aclose)
        self._store = self._open()

    @rule(key=_KEY, data=_BODY)
    def put(self, key: str, data: bytes) -> None:
        """Write, whatever is there."""
        self._call(lambda: self._store.put(key, data))

        self._model[key] = data

    @rule(key=_KEY, data=_BODY)
    def put_if_absent(self, key: str, data: bytes) -> None:
        """Write where nothing is there."""
        if not self._store.capabilities.conditional_put:
            return
        try:
            self._call(lambda: self._store.put(key, data, if_absent=True))
        except KeyExistsError:
            assert key in self._model
        else:
            assert key not in self._model
            self._model[key] = data

    @rule(key=_KEY, data=_BODY, if_absent=st.booleans())
    def put_by_grant(self, key: str, data: bytes, if_absent: bool) -> None:
        """Write as a worker does."""
        offered = self._store.capabilities
        if not (offered.conditional_grants if if_absent else offered.grants):
            return
        grant = self._call(
            lambda: self._store.grant(key, "PUT", expires_in=VALID, if_absent=if_absent)
        )
        stored = grants.store(grants.to_json(grant), [data])

        taken = if_absent and key in self._model
        assert stored == ("exists" if taken else "written")
        if not taken:
            self._model[key] = data

    @rule(key=_KEY)
    def get_by_grant(self, key: str) -> None:
        """Read as a worker does."""
        if not self._store.capabilities.grants:
            return
        grant = self._call(lambda: self._store.grant(key, "GET", expires_in=VALID))
        try:
            data = grants.fetch(grants.to_json(grant))
        except KeyNotFoundError:
            assert key not in self._model
        else:
            assert data == self._model[key]

    @rule(key=_KEY, start=st.integers(0, 9), length=st.none() | st.integers(0, 12))
    def get(self, key: str, start: int, length: int | None) -> None:
        """Read a range."""
        stop = None if length is None else start + length
        try:
            data = self._call(lambda: self._store.get(key, start=start, stop=stop))
        except KeyNotFoundError:
            assert key not in self._model
        else:
            assert data == self._model[key][start:stop]

    @rule(key=_KEY)
    def head(self, key: str) -> None:
        """Describe."""
        try:
            info: ObjectInfo = self._call(lambda: self._store.head(key))
        except KeyNotFoundError:
            assert key not in self._model
        else:
            assert (info.key, info.size) == (key, len(self._model[key]))

    @rule(keys=st.lists(_KEY, max_size=3))
    def delete(self, keys: list[str]) -> None:
        """Delete several, which may be absent or the same."""
        self._call(lambda: self._store.delete(keys))

        for key in keys:
            self._model.pop(key, None)

    @rule(prefix=st.just("") | _KEY | _KEY.map("{}/".format), after=st.just("") | _KEY)
    def list(self, prefix: str, after: str) -> None:
        """List what begins with a prefix and comes after a key."""

        async def listing() -> tuple[ObjectInfo, ...]:
            found = self._store.list(prefix, start_after=after)
            return tuple([info async for info in found])

        infos: tuple[ObjectInfo, ...] = self._call(listing)

        assert [(info.key, info.size) for info in infos] == [
            (key, len(self._model[key]))
            for key in sorted(self._model, key=str.encode)
            if key.startswith(prefix) and key.encode() > after.encode()
        ]
