from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Self, TypeAlias

import requests
from google.auth.credentials import Credentials

_Timeout: TypeAlias = tuple[float, float]

class Blob:
    name: str
    etag: str | None
    metadata: Mapping[str, str] | None
    crc32c: str
    @property
    def size(self) -> int | None: ...
    @property
    def time_created(self) -> datetime | None: ...
    def delete(self, *, timeout: _Timeout, retry: None) -> None: ...
    def reload(self, *, timeout: _Timeout, retry: None) -> None: ...
    def upload_from_string(
        self,
        data: bytes,
        content_type: str,
        *,
        if_generation_match: int | None = ...,
        timeout: _Timeout,
        checksum: str = ...,
        retry: None,
    ) -> None: ...
    def download_as_bytes(self, *, timeout: _Timeout, retry: None) -> bytes: ...
    def create_resumable_upload_session(
        self,
        content_type: str,
        size: int,
        *,
        if_generation_match: int | None,
        timeout: _Timeout,
        checksum: None,
        retry: None,
    ) -> str: ...
    def generate_signed_url(
        self,
        expiration: timedelta,
        *,
        method: str,
        headers: dict[str, str],
        version: str,
        service_account_email: str | None = ...,
        access_token: str | None = ...,
    ) -> str: ...

class Bucket:
    soft_delete_policy: SoftDeletePolicy
    def blob(self, blob_name: str) -> Blob: ...
    def reload(self, *, timeout: _Timeout, retry: None) -> None: ...
    def test_iam_permissions(
        self, permissions: Sequence[str], *, timeout: _Timeout, retry: None
    ) -> list[str]: ...

class SoftDeletePolicy:
    @property
    def retention_duration_seconds(self) -> int | None: ...

class Batch:
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
    @property
    def _responses(self) -> list[requests.Response]: ...

class _Blobs:
    next_page_token: str | None
    @property
    def pages(self) -> Iterator[Iterator[Blob]]: ...

class Client:
    _bucket_metadata_cache: object
    def __init__(
        self,
        project: str | None = ...,
        credentials: Credentials = ...,
        _http: requests.Session = ...,
    ) -> None: ...
    @property
    def api_endpoint(self) -> str: ...
    def create_bucket(self, bucket_or_name: str) -> Bucket: ...
    def bucket(self, bucket_name: str) -> Bucket: ...
    def batch(self, raise_exception: bool = ...) -> Batch: ...
    def list_blobs(
        self,
        bucket_or_name: Bucket,
        *,
        prefix: str,
        start_offset: str | None,
        page_token: str | None,
        fields: str,
        timeout: _Timeout,
        retry: None,
    ) -> _Blobs: ...
    def close(self) -> None: ...
