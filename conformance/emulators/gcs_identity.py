"""Who asks the GCS server, and what for: accounts, tokens and signed URLs, verified.

Belongs to `gcs_server`; see there for what may be imported.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, unquote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from .gcs_messages import RefusalError, Request  # noqa: TID251, TID252
from .gcs_signatures import Signature  # noqa: TID251, TID252

_OBJECTS: Final = "storage.objects."
READ: Final = frozenset({f"{_OBJECTS}get", f"{_OBJECTS}list"})
WRITE: Final = frozenset(
    {f"{_OBJECTS}create", f"{_OBJECTS}delete", f"{_OBJECTS}update"}
)
ADMINISTER: Final = "storage.buckets.update"
EVERYTHING: Final = READ | WRITE | {ADMINISTER, "storage.buckets.get"}

_ROLES: Final = {
    "inRole:roles/storage.objectViewer": READ,
    "inRole:roles/storage.objectCreator": frozenset({f"{_OBJECTS}create"}),
    "inRole:roles/storage.objectUser": READ | WRITE,
    "inRole:roles/storage.objectAdmin": READ | WRITE,
}
_CONDITION: Final = re.compile(
    r"resource\.name\.startsWith\('projects/_/buckets/((?:[^'\\]|\\.)*)'\)"
)
_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_AUDIENCE: Final = "https://oauth2.googleapis.com/token"
"""What google-auth writes, wherever it asks."""

_SKEW: Final = 300  # seconds by which clocks may differ


class Holder(NamedTuple):
    """On whose behalf a request is made, and what that allows."""

    email: str
    """Empty for nobody in particular."""
    permissions: frozenset[str]
    within: str = ""
    """What the resource's name must begin with: bucket, ``/objects/``, object."""
    expires: float = float("inf")


class Account(NamedTuple):
    """A service account and its key."""

    email: str
    key_id: str
    key: rsa.RSAPrivateKey
    permissions: frozenset[str]

    def credentials(self, url: str) -> dict[str, str]:
        """Return the content of the account's key file.

        Args:
            url: Of the server, which issues the tokens too.
        """
        pem = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return {
            "type": "service_account",
            "project_id": "emulated",
            "private_key_id": self.key_id,
            "private_key": pem.decode(),
            "client_email": self.email,
            "client_id": "1",
            "token_uri": f"{url}/token",
        }

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Say whether the account's key has signed."""
        try:
            self.key.public_key().verify(
                signature, message, padding.PKCS1v15(), hashes.SHA256()
            )
        except InvalidSignature:
            return False
        return True


class Identity:
    """All accounts, and the tokens that were issued. Safe for use by many threads."""

    def __init__(self, token_seconds: float) -> None:
        """Start without accounts.

        Args:
            token_seconds: How long a token is valid.
        """
        self._token_seconds = token_seconds
        self._accounts: dict[str, Account] = {}
        self._tokens: dict[str, Holder] = {}

    def add(self, name: str, permissions: frozenset[str]) -> Account:
        """Create an account with a key of its own."""
        account = Account(
            f"{name}@emulated.iam.gserviceaccount.com",
            secrets.token_hex(20),
            rsa.generate_private_key(public_exponent=65537, key_size=2048),
            permissions,
        )
        self._accounts[account.email] = account
        return account

    def issue(self, body: bytes, token_uri: str) -> dict[str, Any]:
        """Answer a token request: an account's signed statement for a token.

        See https://developers.google.com/identity/protocols/oauth2/service-account.
        """
        form = _form(body)
        if form.get("grant_type") != _GRANT:
            raise GrantError("unsupported_grant_type", "Invalid grant_type")
        claims, account = self._claims(form.get("assertion", ""))
        if claims.get("aud") not in {token_uri, _AUDIENCE}:
            raise GrantError("invalid_grant", "Invalid JWT: wrong audience")
        now = time.time()
        issued, expires = float(claims["iat"]), float(claims["exp"])
        if issued > now + _SKEW or expires < now - _SKEW or expires - issued > 3600:
            raise GrantError(
                "invalid_grant",
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a"
                " reasonable timeframe. Check your iat and exp values in the JWT"
                " claim.",
            )
        return self._token(Holder(account.email, account.permissions))

    def downscope(self, body: bytes) -> dict[str, Any]:
        """Exchange a token for one that can do less.

        See https://cloud.google.com/iam/docs/downscoping-short-lived-credentials.
        """
        form = _form(body)
        source = self.bearer(f"Bearer {form.get('subject_token', '')}")
        options = json.loads(unquote(form.get("options", "{}")))
        boundary = options.get("accessBoundary", {})
        (rule,) = boundary.get("accessBoundaryRules", [])
        bucket = rule["availableResource"].rpartition("/")[2]
        within = f"{bucket}/"
        condition = rule.get("availabilityCondition")
        if condition is not None:
            found = _CONDITION.fullmatch(condition["expression"])
            if found is None:
                raise GrantError("invalid_request", "The condition is not understood.")
            within = re.sub(r"\\(.)", r"\1", found[1])
        allowed = frozenset[str]().union(
            *(_ROLES[role] for role in rule["availablePermissions"])
        )
        return self._token(
            source._replace(permissions=source.permissions & allowed, within=within)
        )

    def sign(self, email: str, authorization: str, body: bytes) -> dict[str, str]:
        """Sign for an account, like the IAM credentials API's ``signBlob``."""
        account = self._accounts.get(email)
        if account is None or self.bearer(authorization).email != email:
            raise RefusalError(
                403, "Permission 'iam.serviceAccounts.signBlob' denied on resource."
            )
        payload = base64.b64decode(json.loads(body)["payload"])
        signature = account.key.sign(payload, padding.PKCS1v15(), hashes.SHA256())
        return {
            "keyId": account.key_id,
            "signedBlob": base64.b64encode(signature).decode(),
        }

    def holder(self, request: Request) -> Holder | None:
        """Return who makes a request; None if it does not say.

        Raises:
            RefusalError: It says so, but the token or the signature is not valid.
        """
        if "X-Goog-Signature" in request.query:
            signature = Signature.of(request)
            account = self._accounts.get(signature.email)
            if account is None or not account.verify(
                signature.message, signature.signature
            ):
                raise RefusalError(
                    403,
                    "Access denied: the signature does not match.",
                    "SignatureDoesNotMatch",
                )
            signature.check_time()
            return Holder(account.email, account.permissions)
        authorization = request.get_header("authorization")
        return None if authorization is None else self.bearer(authorization)

    def bearer(self, authorization: str) -> Holder:
        """Return who a token was issued to.

        Raises:
            RefusalError: It was not, or has expired.
        """
        kind, _, token = authorization.partition(" ")
        holder = self._tokens.get(token) if kind.lower() == "bearer" else None
        if holder is None or holder.expires < time.time():
            raise RefusalError(401, "Invalid Credentials")
        return holder

    def _token(self, holder: Holder) -> dict[str, Any]:
        expires = min(holder.expires, time.time() + self._token_seconds)
        token = f"ya29.{secrets.token_urlsafe(32)}"
        self._tokens[token] = holder._replace(expires=expires)
        return {
            "access_token": token,
            "expires_in": int(expires - time.time() + 0.5),
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer",
        }

    def _claims(self, assertion: str) -> tuple[dict[str, Any], Account]:
        try:
            signed, _, signature = assertion.rpartition(".")
            header, claims = (json.loads(_decode(part)) for part in signed.split("."))
            account = self._accounts.get(claims["iss"])
            if account is None:
                raise GrantError("invalid_grant", "Invalid grant: account not found")
            if header["alg"] == "RS256" and account.verify(
                signed.encode(), _decode(signature)
            ):
                return claims, account
        except (ValueError, KeyError, TypeError) as exc:
            raise GrantError("invalid_grant", "Bad Request") from exc
        raise GrantError("invalid_grant", "Invalid JWT Signature.")


class GrantError(RefusalError):
    """No token is issued; the shape is that of OAuth 2."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(400, description, error)


def _form(body: bytes) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(body.decode()).items()}


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
