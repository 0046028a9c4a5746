"""The aiobotocore client: how it is configured, and made without holding up a loop.

Importing this module and making a client take up to a second, all of it computing, so
both are for a thread: `wren.storage.s3_connection` does it there.
"""

from __future__ import annotations

import asyncio
import re
import socket
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session

from wren.errors import StorageError
from wren.storage.location import Location
from wren.storage.requests import CONNECT_SECONDS, IDLE_SECONDS
from wren.storage.s3_errors import NAME, explained

# NAT gateways and VPC endpoints forget a connection after 350 silent seconds.
# https://docs.aws.amazon.com/vpc/latest/userguide/nat-gateway-troubleshooting.html
_FIRST_PROBE: Final = 60  # seconds
_NEXT_PROBE: Final = 30

_AWS: Final = re.compile(r"\.(amazonaws\.(com|com\.cn|eu)|api\.aws)$")

_AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]


class Opened(NamedTuple):
    """A client that is ready, and what it was made from."""

    client: Any
    credentials: Any
    """Those that the client signs with; it renews them in place."""

    region: str
    endpoint: str

    checksums: bool
    """Every upload carries a checksum, which the server is to verify and keep."""


def connect(location: Location, region: str | None, slots: int) -> Opened:
    """Make a client. Reads files, and may ask for credentials; sends nothing to S3.

    Args:
        location: The bucket, for errors.
        region: Where the bucket is; None for what AWS's own tools would use.
        slots: Most connections.

    Raises:
        AccessDeniedError: The profile or the credentials are unusable.
        StorageError: The endpoint or the region is malformed.
    """
    with explained(location):
        session = get_session()
        session.get_scoped_config()  # from here on the configuration is not read again
        session.warm_up_loader_caches("s3")
        # A client belongs to no event loop before its first request: it connects then.
        return asyncio.run(_open(session, region, slots))


async def _open(session: AioSession, region: str | None, slots: int) -> Opened:
    style = session.get_scoped_config().get("s3", {}).get("addressing_style")
    config = AioConfig(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=IDLE_SECONDS,
        max_pool_connections=slots,
        # aiobotocore accepts tcp_keepalive and ignores it.
        connector_args={"socket_factory": keep_alive_socket},
        retries={"total_max_attempts": 1, "mode": "standard"},
        # Without these, presigned URLs are signed by a method that leaves If-None-Match
        # out, and name a host that redirects.
        signature_version="s3v4",
        s3={
            "addressing_style": style or "virtual",
            "us_east_1_regional_endpoint": "regional",
        },
    )
    client = await _create(session, region, config)
    endpoint: str = client.meta.endpoint_url
    if not _AWS.search(urlsplit(endpoint).hostname or ""):
        await client.close()
        client = await _create(session, region, config.merge(_foreign(style)))
    client.meta.events.register("before-endpoint-resolution.s3", _stay)
    return Opened(
        client,
        await session.get_credentials(),
        client.meta.region_name,
        endpoint,
        client.meta.config.request_checksum_calculation == "when_supported",
    )


async def _create(session: AioSession, region: str | None, config: AioConfig) -> Any:
    opening: AbstractAsyncContextManager[Any] = session.create_client(
        "s3", region, config=config
    )
    try:
        return await opening.__aenter__()
    except ValueError as exc:
        raise StorageError(
            f"AWS_ENDPOINT_URL_S3, or endpoint_url in ~/.aws/config, is no URL: {exc}",
            store=NAME,
        ) from exc


def _foreign(style: str | None) -> AioConfig:
    """Return what differs for a server that is not AWS's."""
    return AioConfig(
        # Servers that do not know the checksums, or return those of another range,
        # fail: https://github.com/boto/botocore/issues/3352
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={
            # Names of buckets as host names need a DNS that knows them.
            "addressing_style": style or "path",
            # Hashing each body twice, here and on the server, would hold up the loop.
            "payload_signing_enabled": False,
        },
    )


def _stay(context: dict[str, Any], **_: Any) -> None:
    """Keep the client from following a bucket to another region.

    It would ask where the bucket is, and send the request again. But grants would still
    name the wrong region, and every transfer would cross regions, silently.
    """
    context.setdefault("s3_redirect", {})["redirected"] = True


def keep_alive_socket(address: _AddressInfo) -> socket.socket:
    """Make a socket that tells the network, now and then, that it is in use."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, seconds in (
        ("TCP_KEEPIDLE", _FIRST_PROBE),
        ("TCP_KEEPALIVE", _FIRST_PROBE),  # the same, on macOS
        ("TCP_KEEPINTVL", _NEXT_PROBE),
    ):
        if hasattr(socket, name):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
    return made
