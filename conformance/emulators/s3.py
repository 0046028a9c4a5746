"""S3 by MiniStack, which verifies presigned URLs and enforces IAM policies."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Final

from wren.config import worker_environment
from wren.conformance.emulators.emulator import (
    LOOPBACK,
    Emulator,
    PortTakenError,
    on_free_port,
    request,
)
from wren.conformance.emulators.errors import EmulatorError
from wren.conformance.emulators.install import Installation, Recipe, find
from wren.conformance.emulators.process import ServerProcess

_RECIPE: Final = Recipe(
    name="s3",
    version="1.5.33",
    python=("ministack==1.5.33", "hypercorn==0.18.0", "h11==0.16.0", "h2==4.4.1"),
)
RECIPES: Final = (_RECIPE,)
REGION: Final = "us-east-1"
_IN_USE: Final = "already in use"

_UNSET: Final = (
    "AWS_ACCOUNT_ID",
    "AWS_DEFAULT_PROFILE",
    "AWS_ENDPOINT_URL",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)


@contextmanager
def serve(*, bucket: str = "wren") -> Generator[Emulator]:
    """Start an S3 server with one bucket, its data in memory, its credentials random.

    It serves IAM and STS too. Requests without a valid key are refused.

    Raises:
        NotInstalledError: The server is not installed.
        EmulatorError: It did not start.
    """
    with on_free_port(partial(_start, find(_RECIPE), bucket)) as emulator:
        yield emulator


def _start(
    installation: Installation, bucket: str, stack: ExitStack, port: int
) -> Emulator:
    key = "AKIA" + secrets.token_hex(8).upper()
    secret = secrets.token_urlsafe(30)
    process = stack.enter_context(ServerProcess("s3"))
    process.start(
        [str(installation.python), "-I", "-m", "ministack"],
        worker_environment()
        | {
            "AUTH": "true",
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "BIND_HOST": LOOPBACK,  # every interface otherwise
            "GATEWAY_PORT": str(port),
            "IOT_MTLS_ENABLED": "0",
            "LOG_LEVEL": "WARNING",
            "MINISTACK_REGION": REGION,
            "SERVICES": "s3,iam,sts",
            "SFTP_ENABLED": "0",
        },
    )
    try:
        process.wait_until(lambda: _is_ready(port))
    except EmulatorError as error:
        if _IN_USE in str(error):
            raise PortTakenError(str(error)) from error
        raise
    _create_bucket(port, bucket, key, secret)
    endpoint = f"http://{LOOPBACK}:{port}"
    return Emulator(
        name="s3",
        url=f"s3://{bucket}",
        environment={
            "AWS_ACCESS_KEY_ID": key,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL_IAM": endpoint,
            "AWS_ENDPOINT_URL_S3": endpoint,
            "AWS_ENDPOINT_URL_STS": endpoint,
            "AWS_REGION": REGION,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        },
        unset=_UNSET,
        processes=(process,),
    )


def _is_ready(port: int) -> bool | None:
    answer = request(port, "GET", "/_ministack/ready")
    return True if answer is not None and answer[0] == 200 else None


def _create_bucket(port: int, bucket: str, key: str, secret: str) -> None:
    path = f"/{bucket}"
    headers = _signed("PUT", f"{LOOPBACK}:{port}", path, key, secret)
    answer = request(port, "PUT", path, headers)
    if answer is not None and answer[0] == 403:  # another server, with other keys
        raise PortTakenError(f"s3: port {port} belongs to somebody else: {answer}")
    if answer is None or answer[0] != 200:
        raise EmulatorError(f"s3: the bucket {bucket!r} was not created: {answer}")


def _signed(method: str, host: str, path: str, key: str, secret: str) -> dict[str, str]:
    """Return the headers of a request without a query and a body, signed.

    See https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html.
    """
    time = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {
        "host": host,
        "x-amz-content-sha256": hashlib.sha256(b"").hexdigest(),
        "x-amz-date": time,
    }
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = "\n".join(
        (method, path, "", lines, names, headers["x-amz-content-sha256"])
    )
    scope = f"{time[:8]}/{REGION}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    signing = f"AWS4{secret}".encode()
    for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}"):
        signing = hmac.digest(signing, part.encode(), "sha256")
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, "
        f"Signature={signing.hex()}"
    )
    return headers
