from collections.abc import Callable
from typing import Any

class _FileStore:
    _norm: Callable[[str], str]

class Storage:
    buckets: dict[str, dict[str, Any]]
    objects: dict[str, dict[str, dict[str, Any]]]
    resumable: dict[str, dict[str, Any]]
    _store: _FileStore
    def __init__(self, use_memory_fs: bool = ...) -> None: ...
    def _write_config_to_file(self) -> None: ...
    def _object_path(self, bucket_name: str, file_name: str) -> str: ...
    def _delete_file(self, bucket_name: str, file_name: str) -> None: ...
    def create_file(
        self,
        bucket_name: str,
        file_name: str,
        content: bytes,
        file_obj: dict[str, Any],
        file_id: str | None = ...,
    ) -> None: ...
    def delete_resumable_file_obj(self, file_id: str) -> None: ...
    def get_file(self, bucket_name: str, file_name: str) -> bytes: ...
    def get_file_list(
        self,
        bucket_name: str,
        prefix: str | None = ...,
        delimiter: str | None = ...,
        match_glob: str | None = ...,
    ) -> tuple[list[dict[str, Any]], list[str]]: ...
    def get_resumable_byte_count(self, file_id: str) -> int: ...
    @staticmethod
    def safe_id(file_id: str) -> str: ...
