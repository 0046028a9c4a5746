from collections.abc import Sequence

from google.auth import credentials

class AvailabilityCondition:
    def __init__(self, expression: str) -> None: ...

class AccessBoundaryRule:
    def __init__(
        self,
        available_resource: str,
        available_permissions: Sequence[str],
        availability_condition: AvailabilityCondition | None = ...,
    ) -> None: ...

class CredentialAccessBoundary:
    def __init__(self, rules: Sequence[AccessBoundaryRule] = ...) -> None: ...

class Credentials(credentials.Credentials):
    def __init__(
        self,
        source_credentials: credentials.Credentials,
        credential_access_boundary: CredentialAccessBoundary,
        universe_domain: str = ...,
    ) -> None: ...
