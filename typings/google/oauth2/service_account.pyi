from collections.abc import Sequence
from typing import Self

from google.auth import credentials

class Credentials(credentials.Signing):
    @classmethod
    def from_service_account_file(
        cls, filename: str, *, scopes: Sequence[str] | None = ...
    ) -> Self: ...
