"""Objects in a bucket of Amazon S3, or of a server that speaks its protocol."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterable
from datetime import UTC
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, Literal

from wren.config import environment
from wren.doctor import Result
from wren.errors import ConfigurationError, KeyNotFoundError, StorageError, WrenError
from wren.protocols import Buffer, Grant, ObjectInfo, Storage, StorageCapabilities
from wren.storage.keys import check_key, check_keys, check_range, sendable
from wren.storage.location import Location
from wren.storage.pages import Pages
from wren.storage.s3_connection import Connection, code_of
from wren.storage.s3_deletes import delete
from wren.storage.s3_downloads import download
from wren.storage.s3_grants import grant
from wren.storage.s3_uploads import upload

if TYPE_CHECKING:
    from wren.config import Settings

_NAME: Final = "s3"
_LIBRARY: Final = "aiobotocore"
_EXAMPLE: Final = "s3://bucket/prefix"

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
# Other servers, and buckets from before 2018, have capitals and underscores as well.
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_DIRECTORY_BUCKET: Final = "--x-s3"


class S3Storage(Storage):
    """A `Storage` in a bucket. For asyncio, and for one event loop.

    Nothing is opened before the first call. Credentials, region and endpoint are those
    that AWS's own tools would use. Keys under the prefix that wren does not allow, such
    as the ``folder/`` of S3's console, are not listed.
    """

    def __init__(
        self, location: Location, region: str | None, settings: Settings
    ) -> None:
        """Describe the store; see `open_storage`.

        Args:
            location: The bucket, and what the names in it begin with.
            region: Where the bucket is; None for what AWS's own tools would use.
            settings: Say how many requests are in flight at most.
        """
        self._location = location
        self._connection = Connection(location, region, settings)
        self._bucket_is_there = False

    @property
    def name(self) -> str:
        """See `Storage.name`."""
        return _NAME

    @property
    def capabilities(self) -> StorageCapabilities:
        """See `Storage.capabilities`."""
        return StorageCapabilities()

    async def get(self, key: str, *, start: int = 0, stop: int | None = None) -> bytes:
        """See `Storage.get`.

        What is longer than `wren.storage.parts.PART` comes in concurrent ranges of one
        version of the object.
        """
        check_range(start, stop)
        check_key(key)
        if start == stop:
            await self.head(key)  # nothing to read, but the object must be there
            return b""
        return await download(self._connection, key, start, stop)

    async def put(self, key: str, data: Buffer, *, if_absent: bool = False) -> None:
        """See `Storage.put`. Long objects go in concurrent parts."""
        check_key(key)
        await upload(self._connection, key, data, if_absent=if_absent)

    async def head(self, key: str) -> ObjectInfo:
        """See `Storage.head`."""
        check_key(key)
        try:
            found = await self._connection.ask("head_object", key)
        except KeyNotFoundError:
            # The answer to a HEAD does not say whether it is the bucket that is absent.
            if not self._bucket_is_there:
                await self._connection.ask("head_bucket")
                self._bucket_is_there = True
            raise
        self._bucket_is_there = True
        return _info(key, found, found["ContentLength"])

    async def delete(self, keys: Iterable[str]) -> None:
        """See `Storage.delete`. A thousand objects go in one request."""
        checked = check_keys(keys)
        self._connection.check()
        await delete(self._connection, checked)

    def list(self, prefix: str = "", *, start_after: str = "") -> Pages:
        """See `Storage.list`. A thousand objects come in one request."""
        name = self._location.prefix + prefix
        query: dict[str, str] = {"Prefix": name}
        if begin := sendable(self._location.prefix + start_after):
            query["StartAfter"] = begin
        ended = sendable(name) != name  # no key can begin so

        async def read() -> list[ObjectInfo]:
            nonlocal ended
            self._connection.check()
            while not ended:
                answer = await self._connection.ask("list_objects_v2", **query)
                ended = not answer["IsTruncated"]
                if not ended:
                    query["ContinuationToken"] = answer["NextContinuationToken"]
                page = [
                    _info(key, entry, entry["Size"])
                    for entry in answer.get("Contents", ())
                    if (key := self._location.relative(entry["Key"])) > start_after
                    and _is_key(key)
                ]
                if page:
                    return page
            return []

        return Pages(read)

    async def grant(
        self,
        key: str,
        method: Literal["GET", "PUT"],
        *,
        expires_in: float,
        if_absent: bool = False,
    ) -> Grant:
        """See `Storage.grant`. A presigned URL, valid for seven days at most."""
        check_key(key)
        return await grant(
            self._connection,
            key,
            method,
            expires_in=expires_in,
            if_absent=if_absent and method == "PUT",
        )

    async def diagnose(self) -> AsyncGenerator[Result, None]:
        """Yield what only S3 can tell; see `wren.doctor.Diagnosable`."""
        name = "s3: bucket"
        try:
            answer = await self._connection.ask("head_bucket")
            opened = await self._connection.open()
        except WrenError as exc:
            fix = "create the bucket, or correct what the message names"
            yield Result(name, False, str(exc), fix)
            return
        region = answer.get("BucketRegion") or opened.region
        place = f"{self._location.bucket} in {region}, by {opened.endpoint}"
        yield Result(name, True, place)
        yield await self._check_unfinished()

    async def _check_unfinished(self) -> Result:
        """Say whether S3 removes the parts of uploads that a crash has interrupted."""
        name = "s3: unfinished uploads"
        try:
            answer = await self._connection.ask("get_bucket_lifecycle_configuration")
            rules: list[dict[str, Any]] = answer.get("Rules", [])
        except StorageError as exc:
            if code_of(exc) != "NoSuchLifecycleConfiguration":
                return Result(name, True, f"not known: {exc}")
            rules = []
        for rule in rules:
            if rule.get("Status") == "Enabled" and (
                days := rule.get("AbortIncompleteMultipartUpload", {}).get(
                    "DaysAfterInitiation"
                )
            ):
                return Result(name, True, f"a lifecycle rule, after {days} days")
        return Result(
            name,
            True,
            "nothing removes what a crash leaves of an upload in parts: consider a"
            " lifecycle rule with AbortIncompleteMultipartUpload",
        )

    async def aclose(self) -> None:
        """See `Storage.aclose`."""
        await self._connection.aclose()


def _info(key: str, found: dict[str, Any], size: int) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        size=size,
        modified=found["LastModified"].astimezone(UTC),
        etag=found["ETag"].strip('"'),
    )


def _is_key(name: str) -> bool:
    try:
        check_key(name)
    except ValueError:
        return False
    return True


def open_storage(url: str, settings: Settings) -> S3Storage:
    """Open ``s3://bucket/prefix``.

    Raises:
        ConfigurationError: The URL names no bucket that can be, or one without order.
        ModuleNotFoundError: aiobotocore is not installed.
    """
    if find_spec(_LIBRARY) is None:  # it is imported when it is needed: that is slow
        raise ModuleNotFoundError(f"No module named {_LIBRARY!r}", name=_LIBRARY)
    location = Location.parse(url, example=_EXAMPLE)
    if not _BUCKET.fullmatch(location.bucket):
        raise ConfigurationError(
            f"storage = {url!r}: no bucket can have the name {location.bucket!r}"
        )
    if location.bucket.endswith(_DIRECTORY_BUCKET):
        raise ConfigurationError(
            f"storage = {url!r}: a directory bucket does not list in order; take a"
            " general purpose bucket"
        )
    # AWS's command line reads both variables, this library only AWS_DEFAULT_REGION.
    region = settings.region or environment("AWS_REGION")
    return S3Storage(location, region, settings)
