"""What the emulator does wrong with objects, done right: see `gcs_server`."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from gcp_storage_emulator.exceptions import Conflict
from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.handlers.objects import (
    _checksums as add_checksums,  # pyright: ignore[reportPrivateUsage]
)
from gcp_storage_emulator.handlers.objects import (
    _make_object_resource as make_resource,  # pyright: ignore[reportPrivateUsage]
)
from gcp_storage_emulator.storage import Storage

from .gcs_messages import RefusalError, Request, Response  # noqa: TID251, TID252

MAX_PAGE: Final = 1000
MAX_COMPOSED: Final = 32

_CANCELLED: Final = 499
_INCOMPLETE: Final = 308

_CONDITIONS: Final = {  # parameter, as lower-case letters: field, and whether to equal
    "ifgenerationmatch": ("generation", True),
    "ifgenerationnotmatch": ("generation", False),
    "ifmetagenerationmatch": ("metageneration", True),
    "ifmetagenerationnotmatch": ("metageneration", False),
}


class MemoryStorage(Storage):
    """Upstream's store in memory, without what makes it slow or mixes keys up."""

    def __init__(self) -> None:
        super().__init__(use_memory_fs=True)
        self.finished: dict[str, bytes] = {}
        self._store._norm = _unchanged  # noqa: SLF001

    def _write_config_to_file(self) -> None:
        """Do nothing. Upstream writes the metadata of all objects, at each change."""

    def _object_path(self, bucket_name: str, file_name: str) -> str:
        return f"{bucket_name}/{file_name}"  # upstream takes backslashes for slashes

    def found(self, bucket: str, name: str) -> dict[str, Any] | None:
        """Return an object's resource; None if there is no such object.

        Raises:
            RefusalError: There is no such bucket.
        """
        self.check_bucket(bucket)
        return self.objects.get(bucket, {}).get(name)

    def check_bucket(self, bucket: str) -> None:
        """Refuse a bucket that does not exist."""
        if bucket not in self.buckets:
            raise RefusalError(
                404, "The specified bucket does not exist.", "NoSuchBucket"
            )


def _unchanged(path: str) -> str:
    return path


class Conditions(NamedTuple):
    """What must hold of an object for a request to be carried out."""

    wanted: tuple[tuple[str, bool, int], ...]

    @classmethod
    def of(cls, request: Request) -> Conditions:
        """Return those that a request names, in its query or in its headers."""
        given = {name: values[0] for name, values in request.query.items()}
        given |= {
            name.lower().removeprefix("x-goog-").replace("-", ""): value
            for name, value in request.headers.items()
            if name.lower().startswith("x-goog-if-")
        }
        return cls(
            tuple(
                (*_CONDITIONS[name.lower()], int(value))
                for name, value in given.items()
                if name.lower() in _CONDITIONS
            )
        )

    def check(self, found: Mapping[str, Any] | None, *, reads: bool) -> None:
        """Refuse unless all hold. An object that is absent has generation 0.

        Raises:
            RefusalError: Status 412, or 304 for a reader who has it already.
        """
        for field, equal, value in self.wanted:
            actual = int(found[field]) if found else 0
            if (actual == value) is not equal:
                status = 304 if reads and not equal else 412
                raise RefusalError(
                    status,
                    "At least one of the pre-conditions you specified did not hold.",
                )


def list_objects(request: Request, response: Response, storage: MemoryStorage) -> None:
    """Answer with one page."""
    bucket = request.params["bucket_name"]
    storage.check_bucket(bucket)
    found, prefixes = storage.get_file_list(
        bucket,
        request.argument("prefix"),
        request.argument("delimiter"),
        request.argument("matchGlob"),
    )
    entries: list[tuple[str, dict[str, Any] | None]] = [
        *((each["name"], each) for each in found),
        *((prefix, None) for prefix in prefixes),
    ]
    entries.sort(key=_name)
    first = bisect_left(entries, request.argument("startOffset") or "", key=_name)
    # The token is the last name of the page before.
    token = request.argument("pageToken")
    if token is not None:
        first = max(first, bisect_right(entries, token, key=_name))
    end = request.argument("endOffset")
    last = len(entries) if end is None else bisect_left(entries, end, key=_name)
    size = min(int(request.argument("maxResults") or MAX_PAGE), MAX_PAGE)
    page = entries[first : min(first + size, last)]
    answer: dict[str, Any] = {
        "kind": "storage#objects",
        "items": [each for _, each in page if each is not None],
        "prefixes": [name for name, each in page if each is None],
    }
    if first + size < last:
        answer["nextPageToken"] = page[-1][0]
    response.json(answer)


def _name(entry: tuple[str, object]) -> str:
    return entry[0]


def describe(request: Request, response: Response, storage: MemoryStorage) -> None:
    """Answer with an object's resource, or with its content if that is asked for."""
    if request.argument("alt") == "media":
        download(request, response, storage)
    else:
        response.json(_existing(request, storage))


def download(request: Request, response: Response, storage: MemoryStorage) -> None:
    """Answer with an object's content, or with a range of it."""
    found = _existing(request, storage)
    content = storage.get_file(found["bucket"], found["name"])
    size = len(content)
    response["ETag"] = f'"{found["etag"]}"'
    response["X-Goog-Generation"] = found["generation"]
    response["X-Goog-Metageneration"] = found["metageneration"]
    response["X-Goog-Hash"] = f"crc32c={found['crc32c']},md5={found['md5Hash']}"
    response["X-Goog-Stored-Content-Length"] = str(size)
    metadata: dict[str, str] = found.get("metadata") or {}
    for name, value in metadata.items():
        response[f"x-goog-meta-{name}"] = value
    if found.get("contentEncoding"):
        response["Content-Encoding"] = found["contentEncoding"]
    response["Accept-Ranges"] = "bytes"
    span = re.fullmatch(r"\s*bytes=(\d*)-(\d*)\s*", request.get_header("range") or "")
    if span is None or not (span[1] or span[2]):
        response.write_file(content, found["contentType"])
        return
    if span[1]:
        start = int(span[1])
        stop = min(int(span[2]) + 1, size) if span[2] else size
    else:
        start, stop = max(0, size - int(span[2])), size
    if start >= size:
        response["Content-Range"] = f"bytes */{size}"
        raise RefusalError(416, "The requested range cannot be satisfied.")
    response.status = 206
    response["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    response.write_file(content[start:stop], found["contentType"])


def upload(request: Request, response: Response, storage: MemoryStorage) -> None:
    """Create an object by a PUT of the XML API."""
    bucket, name = request.params["bucket_name"], request.params["object_id"]
    storage.check_bucket(bucket)
    metadata = {
        header.lower().removeprefix("x-goog-meta-"): value
        for header, value in request.headers.items()
        if header.lower().startswith("x-goog-meta-")
    }
    resource = make_resource(
        request.base_url,
        bucket,
        name,
        request.get_header("content-type", "application/octet-stream"),
        str(len(request.body)),
        {"metadata": metadata} if metadata else None,
    )
    resource["md5Hash"] = request.get_header("content-md5")
    for given in (request.get_header("x-goog-hash") or "").split(","):
        kind, _, value = given.strip().partition("=")
        if kind in {"crc32c", "md5"}:
            resource["crc32c" if kind == "crc32c" else "md5Hash"] = value
    try:
        resource = add_checksums(request.body, resource)
    except Conflict as exc:
        raise RefusalError(400, str(exc), "BadDigest") from exc
    storage.create_file(bucket, name, request.body, resource)
    response["ETag"] = f'"{resource["etag"]}"'
    response["X-Goog-Generation"] = resource["generation"]
    response["X-Goog-Hash"] = f"crc32c={resource['crc32c']},md5={resource['md5Hash']}"


def resume(request: Request, response: Response, storage: MemoryStorage) -> None:
    """Take the next piece of a resumable upload, or end it without an object."""
    session = request.argument("upload_id") or ""
    if session in storage.finished:  # whoever missed the answer asks again
        response.write_file(storage.finished[session], "application/json")
        return
    if session not in storage.resumable:
        raise RefusalError(404, "No such upload session.", "NoSuchUpload")
    if request.method == "DELETE":
        storage.delete_resumable_file_obj(session)
        storage._delete_file("_resumable", storage.safe_id(session))  # noqa: SLF001
        response.status = _CANCELLED
        return
    objects.upload_partial(request, response, storage)
    if response.status == _INCOMPLETE and not storage.get_resumable_byte_count(session):
        response.headers.pop("Range", None)  # upstream claims that it has one byte
    if response.status == 200:
        storage.finished[session] = response.content


def compose(request: Request, response: Response, storage: MemoryStorage) -> None:
    """Join objects to a new one."""
    sources = request.data["sourceObjects"]
    if not 1 <= len(sources) <= MAX_COMPOSED:
        raise RefusalError(400, "The number of source components must be 1 to 32.")
    bucket = request.params["bucket_name"]
    for each in sources:
        source = storage.found(bucket, each["name"])
        if source is None:
            raise RefusalError(404, f"No such object: {bucket}/{each['name']}")
    objects.compose(request, response, storage)
    composed = storage.found(bucket, request.params["object_id"])
    if response.status == 200 and composed is not None:
        composed["componentCount"] = len(sources)
        response.json(composed)


def _existing(request: Request, storage: MemoryStorage) -> dict[str, Any]:
    bucket, name = request.params["bucket_name"], request.params["object_id"]
    found = storage.found(bucket, name)
    if found is None:
        raise RefusalError(404, f"No such object: {bucket}/{name}")
    return found
