from collections.abc import Sequence

from google.auth import credentials

class Credentials(credentials.Credentials):
    def __init__(
        self,
        service_account_email: str = ...,
        quota_project_id: str | None = ...,
        scopes: Sequence[str] | None = ...,
    ) -> None: ...
    @property
    def service_account_email(self) -> str: ...
