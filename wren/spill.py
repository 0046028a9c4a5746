"""What one job keeps in storage, because it does not fit or must not be lost.

Everything lies under ``wren/jobs/<id>/`` and is removed when the job has ended:

    fn/<sha256>          a function
    blob/<name>          a large buffer that several requests refer to
    in/<request>         the arguments of one request
    out/<xx>/<request>   the response to one request, create-once and sealed

Workers reach their objects by grants. Nothing is opened before it is needed.
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import anyio
from anyio import to_thread

from wren.backoff import jitter, patiently
from wren.discards import Discards
from wren.envelope import Parts, unseal
from wren.errors import (
    IntegrityError,
    KeyNotFoundError,
    StorageError,
    TransientError,
)
from wren.grants import to_json
from wren.protocols import Storage

JOBS: Final = "wren/jobs/"
"""Every job's objects are below this prefix and its identity."""

BLOBS_KEPT: Final = 512 << 20
"""Bytes of shared buffers that may stay stored while no request refers to them."""

_LONGEST_GRANT: Final = 12 * 3600.0
_MARGIN: Final = 600.0
_CLEAN_SECONDS: Final = 5.0
_READS: Final = 3
_POLL_SECONDS: Final = 0.5

_log = logging.getLogger("wren")


class Spill:
    """One job's part of the storage."""

    def __init__(self, job: str, open_storage: Callable[[], Storage]) -> None:
        self.prefix = f"{JOBS}{job}/"
        self.requests = 0
        """Requests that the driver has sent to storage for this job."""
        self._dirty = False
        self._replies: dict[str, float] = {}  # request -> from when it stores its reply
        self._open = open_storage
        self._key = b""
        self._offers: dict[str, tuple[float, dict[str, Any]]] = {}
        self._lock = anyio.Lock()
        self._listed: anyio.Event | None = None
        self._stored: dict[str, int] = {}  # key -> bytes
        self._blobs: dict[
            str, tuple[int, int]
        ] = {}  # name -> bytes, users; oldest first
        self._polled = 0.0
        self._discards = Discards(self._discard)

    @property
    def used(self) -> bool:
        """There may be something to remove."""
        return self._dirty or bool(self._replies)

    @property
    def _storage(self) -> Storage:
        self.requests += 1
        self._dirty = True
        return self._open()

    @property
    def key(self) -> bytes:
        """The secret with which workers seal what they store."""
        if not self._key:
            self._key = secrets.token_bytes(32)
        return self._key

    async def offer(self, name: str, data: memoryview) -> dict[str, Any]:
        """Store a large buffer once and return how a worker gets it.

        It stays until `release` has been called as often, and longer if there is room.
        """
        key = f"{self.prefix}blob/{name}"
        async with self._lock:
            offer = await self._offer(key, [data], verify=None)
            length, users = self._blobs.pop(name, (len(data), 0))
            self._blobs[name] = length, users + 1
            return offer

    async def release(self, names: Iterable[str]) -> None:
        """Say that a request that referred to these buffers has been answered.

        The least recently used ones are removed beyond `BLOBS_KEPT` bytes, so that a
        job over any number of large arrays takes no more than that.
        """
        for name in names:
            length, users = self._blobs[name]
            self._blobs[name] = length, users - 1
        excess = sum(length for length, _ in self._blobs.values()) - BLOBS_KEPT
        unwanted: list[str] = []
        for name, (length, users) in list(self._blobs.items()):
            if excess <= 0:
                break
            if users == 0:
                excess -= length
                del self._blobs[name]
                unwanted.append(f"{self.prefix}blob/{name}")
        if unwanted:
            for key in unwanted:
                self._stored.pop(key, None)
                del self._offers[key]
            await self._discard(unwanted)

    async def offer_function(self, identity: str, parts: Parts) -> dict[str, Any]:
        """Store a function once and return how a worker gets it."""
        async with self._lock:
            return await self._offer(f"{self.prefix}fn/{identity}", parts, identity)

    async def offer_arguments(self, request: str, parts: Parts) -> dict[str, Any]:
        """Store a request's arguments and return how its worker gets them."""
        key = self._arguments(request)
        sha256 = await to_thread.run_sync(_sha256, parts)
        _, offer = self._offers.get(key, (0.0, {}))
        if offer and offer["sha256"] != sha256:  # sent again, and laid out otherwise
            self._stored.pop(key, None)
            del self._offers[key]
        return await self._offer(key, parts, sha256)

    async def _offer(
        self, key: str, parts: Parts, verify: str | None
    ) -> dict[str, Any]:
        now = time.time()
        until, offer = self._offers.get(key, (0.0, {}))
        if until > now:
            return offer
        if key not in self._stored:
            if verify is None and not self._open().capabilities.private:
                verify = await to_thread.run_sync(_sha256, parts)
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            await patiently(lambda: self._storage.put(key, data))
            self._stored[key] = len(data)
            self._offers[key] = 0.0, {"sha256": verify}  # a grant is still missing
        else:
            verify = offer["sha256"]
        grant = await patiently(
            lambda: self._open().grant(key, "GET", expires_in=_LONGEST_GRANT)
        )
        offer = {"grant": to_json(grant), "sha256": verify}
        # It may end earlier than was asked for, with the login that made it.
        lasts = min(grant.expires - now, _LONGEST_GRANT)
        self._offers[key] = now + lasts / 2, offer
        return offer

    def renew(self) -> None:
        """Give out no grant again that was made before: one has expired early.

        A grant ends with the credentials that made it, whatever it says itself.
        """
        self._offers = {key: (0.0, offer) for key, (_, offer) in self._offers.items()}

    async def reply(
        self, request: str, limit: float, after: float, seconds: float
    ) -> dict[str, Any]:
        """Return how a worker stores the response to a request.

        Args:
            request: The request's name.
            limit: Bytes from which the response cannot be sent directly.
            after: Seconds of work from which it is stored before it is sent.
            seconds: How long the request may run.
        """
        place = self._place(request)
        self._replies[request] = after
        expires_in = min(seconds + _MARGIN, _LONGEST_GRANT)
        grant = await patiently(
            lambda: self._open().grant(
                place, "PUT", expires_in=expires_in, if_absent=True
            )
        )
        return {
            "grant": to_json(grant),
            "place": place,
            "key": self.key.hex(),
            "limit": min(limit, 1 << 62),
            "after": min(after, 1e18),
        }

    def answered(self, request: str, seconds: float) -> None:
        """Note that the response to a request has come, and how long it took to make.

        One that was made quickly has not been stored.
        """
        if seconds >= self._replies.pop(request, math.inf):
            self._dirty = True

    def _arguments(self, request: str) -> str:
        return f"{self.prefix}in/{request}"

    def _place(self, request: str) -> str:
        shard = hashlib.sha256(request.encode()).hexdigest()[:2]
        return f"{self.prefix}out/{shard}/{request}"

    async def stored_response(
        self, request: str, *, known: bool = False
    ) -> memoryview | None:
        """Return the response that a worker stored, or None if there is none.

        Args:
            request: Its name.
            known: The worker has said that it is there, so look again if it is not.

        Raises:
            TransientError: The store failed, also when asked again.
            IntegrityError: Something else lies there, also when read again.
        """
        place = self._place(request)
        for attempt in range(1, _READS + 1):
            try:
                data = await patiently(lambda: self._storage.get(place))
            except KeyNotFoundError:
                if not known or attempt == _READS:
                    return None
                await anyio.sleep(jitter(attempt))
                continue
            self._stored[place] = len(data)
            try:
                return await to_thread.run_sync(unseal, data, self.key, place)
            except IntegrityError:
                if attempt == _READS:
                    raise
        return None

    async def wait_response(self, request: str, seconds: float) -> memoryview | None:
        """Wait until a worker has stored the response; None if it has not in time.

        All of a job's waiting requests share one listing at a time; the object itself
        decides, a listing is a hint.
        """
        place = self._place(request)
        with anyio.move_on_after(seconds):
            while True:
                await self._poll()
                if place in self._stored:
                    found = await self.stored_response(request)
                    if found is not None:
                        return found
                    self._stored.pop(place, None)
        return await self.stored_response(request)

    async def _poll(self) -> None:
        """Wait for the next listing, and make it unless somebody else does."""
        if self._listed is not None:
            await self._listed.wait()
            return
        listed = self._listed = anyio.Event()
        try:
            pause = self._polled + _POLL_SECONDS - time.monotonic()
            await anyio.sleep(max(0.0, pause))
            async for found in self._storage.list(f"{self.prefix}out/"):
                self._stored[found.key] = found.size
        except TransientError as exc:
            _log.info("looking for stored responses: %s", exc)
        finally:
            self._polled = time.monotonic()
            self._listed = None
            listed.set()

    async def forget(self, request: str) -> None:
        """Remove what was stored for a request, and what it was answered from there.

        So a job of any length takes little room, and its listings stay short. Several
        are removed at a time.
        """
        keys = [self._arguments(request), self._place(request)]
        unwanted = {key: self._stored.pop(key) for key in keys if key in self._stored}
        if unwanted:
            self._offers.pop(keys[0], None)
            await self._discards.add([*unwanted], sum(unwanted.values()))

    async def _discard(self, keys: Sequence[str]) -> None:
        try:
            await self._storage.delete(keys)
        except StorageError as exc:  # `clean` comes to them
            _log.info("removing what a job has stored: %s", exc)

    async def clean(self) -> None:
        """Remove everything, within a few seconds; what stays is for ``wren clean``.

        In the order of the keys, so that responses go last.
        """
        if not self.used:
            return
        from wren.transfer import delete_prefix

        with anyio.move_on_after(_CLEAN_SECONDS, shield=True) as scope:
            try:
                await delete_prefix(self._open(), self.prefix)
                self._dirty = False
                self._replies.clear()
            except Exception as exc:  # noqa: BLE001  # must not end the executor
                _log.warning("%s stays in storage: %r", self.prefix, exc)
        if scope.cancelled_caught:
            _log.warning("%s stays in storage: removing it took too long", self.prefix)


def _sha256(parts: Parts) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
