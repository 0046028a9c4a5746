"""Google Cloud Storage by `gcs_server`, which verifies tokens and signed URLs."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from wren.config import worker_environment
from wren.conformance.emulators.emulator import Emulator
from wren.conformance.emulators.install import Recipe, find
from wren.conformance.emulators.process import ServerProcess

READER: Final = "reader.json"
"""In the server's directory, the key of an account that may only read."""

_RECIPE: Final = Recipe(
    name="gcs",
    version="2026.7.19",
    python=("gcp-storage-emulator==2026.7.19", "cryptography==50.0.2"),
)
RECIPES: Final = (_RECIPE,)
_KEY: Final = "key.json"
_PACKAGE: Final = "emulators"
_UNSET: Final = (
    "CLOUDSDK_AUTH_ACCESS_TOKEN",
    "CLOUDSDK_CONFIG",
    "CLOUDSDK_CORE_PROJECT",
    "GCLOUD_PROJECT",
    "GOOGLE_API_USE_CLIENT_CERTIFICATE",
    "GOOGLE_API_USE_MTLS_ENDPOINT",
    "GOOGLE_CLOUD_QUOTA_PROJECT",
    "GOOGLE_CLOUD_UNIVERSE_DOMAIN",
)


@contextmanager
def serve(*, bucket: str = "wren", anonymous: bool = True) -> Generator[Emulator]:
    """Start a GCS server with one bucket, its data in memory, its accounts new.

    Args:
        bucket: Its name.
        anonymous: Serve requests without credentials, since that is what Google's
            libraries send to an emulator unless they are told otherwise. Wrong
            credentials are refused in any case.

    Raises:
        NotInstalledError: The server is not installed.
        EmulatorError: It did not start.
    """
    installation = find(_RECIPE)
    with ServerProcess("gcs") as process:
        # There, the server imports its own modules and none of wren.
        (process.directory / _PACKAGE).symlink_to(Path(__file__).parent)
        key = process.directory / _KEY
        options = ["--bucket", bucket, "--credentials-file", str(key)]
        options += ["--reader-credentials-file", str(process.directory / READER)]
        if not anonymous:
            options.append("--require-authentication")
        process.start(
            [
                str(installation.python),
                "-E",
                "-s",
                "-m",
                f"{_PACKAGE}.gcs_server",
                *options,
            ],
            worker_environment(),
        )
        url = process.wait_until(lambda: _url(process.output()))
        yield Emulator(
            name="gcs",
            url=f"gs://{bucket}",
            environment={
                "GOOGLE_APPLICATION_CREDENTIALS": str(key),
                "GOOGLE_CLOUD_PROJECT": json.loads(key.read_bytes())["project_id"],
                "STORAGE_EMULATOR_HOST": url,
            },
            unset=_UNSET,
            processes=(process,),
        )


def _url(output: str) -> str | None:
    """Return what the server says when it listens, one line of JSON."""
    for line in output.splitlines(keepends=True):
        if line.startswith("{") and line.endswith("\n"):
            url: str = json.loads(line)["url"]
            return url
    return None
