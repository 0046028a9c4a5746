from collections.abc import Sequence

import requests
from google.auth.credentials import Credentials
from google.auth.transport import Request as _Request
from google.auth.transport import Response

class Request:
    def __init__(self, session: requests.Session | None = ...) -> None: ...
    def __call__(
        self, url: str, method: str = ..., *, timeout: tuple[float, float] = ...
    ) -> Response: ...

class AuthorizedSession(requests.Session):
    credentials: Credentials
    def __init__(
        self,
        credentials: Credentials,
        refresh_status_codes: Sequence[int] = ...,
        *,
        auth_request: _Request | None = ...,
    ) -> None: ...
