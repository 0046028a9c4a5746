from collections.abc import Sequence

from google.auth.credentials import Credentials
from google.auth.transport import Request

def default(
    scopes: Sequence[str] | None = ..., request: Request | None = ...
) -> tuple[Credentials, str | None]: ...
