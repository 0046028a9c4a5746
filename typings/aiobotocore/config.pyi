from collections.abc import Mapping
from typing import Any

class AioConfig:
    request_checksum_calculation: str
    def __init__(
        self,
        *,
        connect_timeout: float = ...,
        connector_args: Mapping[str, Any] = ...,
        max_pool_connections: int = ...,
        read_timeout: float = ...,
        request_checksum_calculation: str = ...,
        response_checksum_validation: str = ...,
        retries: Mapping[str, Any] = ...,
        s3: Mapping[str, Any] = ...,
        signature_version: str = ...,
    ) -> None: ...
    def merge(self, other_config: AioConfig) -> AioConfig: ...
