"""Listings of a container: pages read by the library, parsed and put in order here.

The library makes an object of some twenty properties from each entry, in about 150
microseconds during which nothing else runs. Its listing of names alone does not, and
lets the answer be looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from azure.core.pipeline.policies import ContentDecodePolicy
from azure.storage.blob.aio import ContainerClient

from wren.errors import StorageError
from wren.protocols import ObjectInfo
from wren.storage.azure_client import Client
from wren.storage.azure_errors import NAME
from wren.storage.azure_names import MAX_CHARACTERS, decode, encode
from wren.storage.keys import check_key

_PAGE: Final = 500  # objects; the service allows 5000, which takes long to parse

# The rest sorts alike as UTF-8 and as UTF-16, and fits into a URL.
_UNUSUAL: Final = re.compile("[^\x20-\x7e\xa0-\ud7ff]")
_BEYOND_UTF16: Final = re.compile("[\U00010000-\U0010ffff]")


class Listing:
    """The objects of a store, page by page."""

    def __init__(
        self, client: Client, root: str, prefix: str, start_after: str
    ) -> None:
        """Begin a listing; nothing is sent yet.

        Args:
            client: Makes the requests.
            root: What the names of all blobs of the store begin with, as a key.
            prefix: See `Storage.list`.
            start_after: See `Storage.list`.
        """
        self._client = client
        self._root = encode(root)
        self._prefix = encode(root + prefix)
        self._start_after = start_after
        self._start_from = _start_from(root, prefix, start_after)
        self._order = ByteOrder()
        self._marker: str | None = ""
        if not _any_key(prefix, start_after):
            self._marker = None

    async def next_page(self) -> list[ObjectInfo]:
        """Return the next objects in order; none at the end."""
        while self._marker is not None:
            answer = await self._client.send(self._ask)
            self._marker = answer.findtext("NextMarker") or None
            last = self._marker is None
            found = self._order.settle(_objects(answer, len(self._root)), last=last)
            wanted = [info for info in found if info.key > self._start_after]
            if wanted:
                return wanted
        return []

    async def _ask(self, container: ContainerClient) -> Element:
        answers: list[Any] = []
        pages = container.list_blob_names(
            name_starts_with=self._prefix,
            results_per_page=_PAGE,
            start_from=self._start_from,
            raw_response_hook=answers.append,
        ).by_page(continuation_token=self._marker)
        async for _ in pages:
            break
        answer: Element = answers[-1].context[ContentDecodePolicy.CONTEXT_NAME]
        return answer


def _any_key(prefix: str, start_after: str) -> bool:
    """Say whether there can be a key with this prefix after that one."""
    if start_after > prefix and not start_after.startswith(prefix):
        return False
    return _is_key(prefix) or _is_key(f"{prefix}x")


def _start_from(root: str, prefix: str, start_after: str) -> str | None:
    """Return a name at or before the first one wanted; None for the beginning."""
    if not start_after.startswith(prefix):
        return None
    plain = _UNUSUAL.split(root + start_after, maxsplit=1)[0]
    return encode(plain)[:MAX_CHARACTERS] if plain.startswith(root + prefix) else None


def _objects(answer: Element, skipped: int) -> Iterator[ObjectInfo]:
    """Yield the objects of an answer, keys without what is skipped.

    A blob whose name is no key was written by somebody else, and is out of reach.
    """
    for blob in answer.iterfind("Blobs/Blob"):
        name = blob.find("Name")
        if name is None or name.text is None:
            continue
        encoded = name.get("Encoded") == "true"  # what XML cannot hold
        key = decode((unquote(name.text) if encoded else name.text)[skipped:])
        if key is not None and _is_key(key):
            modified = blob.findtext("Properties/Last-Modified", "")
            yield ObjectInfo(
                key=key,
                size=int(blob.findtext("Properties/Content-Length", "0")),
                modified=parsedate_to_datetime(modified),
                etag=blob.findtext("Properties/Etag", "").strip('"'),
            )


def _is_key(name: str) -> bool:
    try:
        check_key(name)
    except ValueError:
        return False
    return True


class ByteOrder:
    """Puts objects that come in the order of UTF-16 into that of UTF-8.

    The service says that it sorts "alphabetically"; Azurite, and perhaps the service,
    compares as JavaScript does. That differs from the order of the bytes only where
    characters beyond U+FFFF meet some of those just below: so only objects with the
    former in their keys are held back, until none can come that belongs before them.
    """

    def __init__(self) -> None:
        self._held: list[ObjectInfo] = []
        self._stem = ""  # what the keys of all that are held begin with
        self._last = ""

    def settle(self, found: Iterable[ObjectInfo], *, last: bool) -> list[ObjectInfo]:
        """Take the next objects; return those whose place is certain.

        Args:
            found: In the order in which they came.
            last: No more will come.

        Raises:
            StorageError: The order is neither.
        """
        settled: list[ObjectInfo] = []
        for info in found:
            if self._held and not info.key.startswith(self._stem):
                settled += self._release()
            if self._held:
                self._held.append(info)
            elif beyond := _BEYOND_UTF16.search(info.key):
                self._stem = info.key[: beyond.start()]
                self._held.append(info)
            else:
                settled.append(info)
        if last:
            settled += self._release()
        return list(self._checked(settled))

    def _release(self) -> list[ObjectInfo]:
        held, self._held = sorted(self._held, key=lambda info: info.key), []
        return held

    def _checked(self, settled: Iterable[ObjectInfo]) -> Iterator[ObjectInfo]:
        for info in settled:
            if info.key < self._last:
                raise StorageError(
                    f"the container lists {info.key!r} after {self._last!r}; an account"
                    " with a hierarchical namespace does that: take one without",
                    store=NAME,
                )
            if info.key > self._last:  # else the same again, as it was overwritten
                yield info
            self._last = info.key
