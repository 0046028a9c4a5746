from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from aiobotocore.config import AioConfig

class AioSession:
    def create_client(
        self,
        service_name: str,
        region_name: str | None = None,
        *,
        config: AioConfig | None = None,
    ) -> AbstractAsyncContextManager[Any]: ...
    async def get_credentials(self) -> Any: ...
    def get_scoped_config(self) -> Mapping[str, Any]: ...
    def warm_up_loader_caches(self, service_name: str | None = None) -> None: ...

def get_session() -> AioSession: ...
