"""How a worker reads and writes objects: by grants, with the standard library alone.

A grant travels as a JSON object (`to_json`), and its holder needs no credential and no
cloud library. A ``file:`` URL is a file on this machine; anything else is HTTP, tried
again while the fault may pass. A URL's query string and the headers are secrets: they
appear in no error.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

from wren import files
from wren.errors import KeyNotFoundError, StorageError, TransientError, translate

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse
    from ssl import SSLContext

    from wren.protocols import Grant

Buffer: TypeAlias = bytes | bytearray | memoryview
Stored: TypeAlias = Literal["written", "exists"]
T = TypeVar("T")

_TRIES: Final = 6
_SILENCE: Final = 20.0  # seconds for one step: connect, send a piece, receive something
_PATIENCE: Final = 60.0  # seconds after which nothing is tried again
_FIRST_PAUSE: Final = 0.2  # seconds, doubled each time; the real one is drawn below it
_LONGEST_PAUSE: Final = 5.0
_PIECE: Final = 1024 * 1024
_ERROR_BODY: Final = 64 * 1024

_CODE: Final = re.compile(rb"<Code>([A-Za-z]{1,64})</Code>")  # S3, GCS and Azure
_WRITTEN: Final = frozenset({200, 201, 204})
_TRY_AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})
_NO_BUCKET: Final = frozenset({"NoSuchBucket", "ContainerNotFound"})
_EXPIRED: Final = "ExpiredToken"  # with status 400, of S3 and GCS

# Azure answers the second if what it looks at first is not the condition but the grant,
# which allows to create and not to overwrite. Azurite has only a less precise word.
_TAKEN: Final = frozenset({"BlobAlreadyExists", "UnauthorizedBlobOverwrite"})
_TAKEN_IN_AZURITE: Final = frozenset({"AuthorizationPermissionMismatch"})


class RefusedGrantError(StorageError):
    """The store does not accept a grant, or no longer: another one may help."""


def to_json(grant: Grant) -> dict[str, Any]:
    """Return a grant as the object that the functions of this module take."""
    return {
        "method": grant.method,
        "url": grant.url,
        "headers": dict(grant.headers),
        "expires": None if math.isinf(grant.expires) else grant.expires,
    }


def fetch(grant: Mapping[str, Any]) -> bytes:
    """Return an object's content.

    Args:
        grant: A GET, as made by `to_json`.

    Raises:
        KeyNotFoundError: No such object.
        RefusedGrantError: It has expired, or the like.
        TransientError: The store did not answer, or cut its answer short, each time.
        StorageError: There is no bucket, the grant is malformed, or the like.
    """
    path = _path(grant)
    if path is None:
        return _exchange(grant, None, _receive)
    with translate(files.classify, (OSError,), "file", path):
        descriptor = files.open_object(path)
        try:
            return files.read(descriptor)
        finally:
            os.close(descriptor)


def fetch_buffer(grant: Mapping[str, Any]) -> memoryview:
    """Return an object's content as writable memory of this process's own.

    A file is mapped: pages are read when they are touched and copied when they are
    changed. An object that is overwritten or deleted later stays as it was.

    Args:
        grant: A GET, as made by `to_json`.

    Raises:
        StorageError: See `fetch`.
    """
    path = _path(grant)
    if path is None:
        return _exchange(grant, None, _receive_buffer)
    with translate(files.classify, (OSError,), "file", path):
        descriptor = files.open_object(path)
        try:
            return files.map_private(descriptor)
        finally:
            os.close(descriptor)


def store(grant: Mapping[str, Any], parts: Sequence[Buffer]) -> Stored:
    """Write an object, atomically.

    Args:
        grant: A PUT, as made by `to_json`.
        parts: The content, one after the other. They are not copied.

    Returns:
        ``exists`` if the grant is conditional and the key was taken. The object there
        may be this one: the answer to an earlier try may have been lost.

    Raises:
        RefusedGrantError: It has expired, or the like.
        TransientError: The store did not answer, or was busy, each time. It may have
            written the object nevertheless.
        StorageError: The disk is full, or the like.
    """
    path = _path(grant)
    conditional = any(name.lower() == "if-none-match" for name in grant["headers"])
    if path is None:
        emulated = conditional and grant["url"].startswith("http:")
        taken = _TAKEN | _TAKEN_IN_AZURITE if emulated else _TAKEN
        return _exchange(grant, parts, partial(_settle, taken=taken))
    parent, name = os.path.split(path)
    open_parent = partial(files.open_directory, parent, create=True)
    with translate(files.classify, (OSError,), "file", path):
        written = files.write(open_parent, name, parts, if_absent=conditional)
    return "written" if written else "exists"


def _path(grant: Mapping[str, Any]) -> str | None:
    """Return the path of a ``file:`` URL; None for any other."""
    url: str = grant["url"]
    if not url.startswith("file:"):
        return None
    from urllib.parse import unquote, urlsplit

    path = unquote(urlsplit(url).path)
    if grant["expires"] is not None and grant["expires"] < time.time():
        raise RefusedGrantError("the grant has expired", store="file", key=path)
    return path


def _exchange(
    grant: Mapping[str, Any],
    parts: Sequence[Buffer] | None,
    receive: Callable[[HTTPResponse], T],
) -> T:
    """Send one request, and send it again while the fault may pass."""
    began = time.monotonic()
    bound = _FIRST_PAUSE
    tries = 0
    while True:
        tries += 1
        try:
            return _send(grant, parts, receive)
        except TransientError:
            from random import uniform

            pause = uniform(0, bound)  # noqa: S311  # full jitter, not a secret
            waited = time.monotonic() - began
            if tries == _TRIES or waited + pause > _PATIENCE:
                raise
        time.sleep(pause)
        bound = min(2 * bound, _LONGEST_PAUSE)


def _send(
    grant: Mapping[str, Any],
    parts: Sequence[Buffer] | None,
    receive: Callable[[HTTPResponse], T],
) -> T:
    from http.client import HTTPException, InvalidURL
    from ssl import SSLCertVerificationError
    from urllib.parse import urlsplit

    address: str = grant["url"]
    where = ""
    try:
        url = urlsplit(address)
        where = f"{url.hostname}{url.path}"
        target = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
        connection = _connection(url.scheme, url.hostname or "", url.port)
        try:
            return receive(_ask(connection, grant, target, parts))
        finally:
            connection.close()
    except StorageError as exc:
        exc.store, exc.key = "grant", where
        raise
    except SSLCertVerificationError as exc:
        fault = f"certificate not accepted: {exc.verify_message}"
        raise StorageError(fault, store="grant", key=where) from exc
    except (InvalidURL, ValueError) as exc:
        malformed = type(exc).__name__  # its text quotes the URL or a header
    except (OSError, HTTPException) as exc:
        fault = getattr(exc, "strerror", None) or str(exc)
        fault = f"{type(exc).__name__}: {fault}"
        raise TransientError(fault, store="grant", key=where) from exc
    fault = f"malformed grant or answer: {malformed}"
    raise StorageError(fault, store="grant", key=where)


def _connection(scheme: str, host: str, port: int | None) -> HTTPConnection:
    from http.client import HTTPConnection, HTTPSConnection

    if not host:
        raise ValueError(scheme)
    if scheme == "https":
        return HTTPSConnection(host, port, timeout=_SILENCE, context=_tls())
    if scheme == "http":
        return HTTPConnection(host, port, timeout=_SILENCE)
    raise ValueError(scheme)


@cache
def _tls() -> SSLContext:
    from ssl import create_default_context

    return create_default_context()  # verifies; reading the authorities takes a while


def _ask(
    connection: HTTPConnection,
    grant: Mapping[str, Any],
    target: str,
    parts: Sequence[Buffer] | None,
) -> HTTPResponse:
    connection.connect()
    headers: dict[str, str] = dict(grant["headers"])
    if parts is None:
        connection.request(grant["method"], target, headers=headers)
        return connection.getresponse()
    headers["Content-Length"] = str(sum(map(len, parts)))
    try:
        connection.request(grant["method"], target, _pieces(parts), headers)
    except (BrokenPipeError, ConnectionResetError):
        # A server that refuses may close before it has read everything. Its answer, if
        # there is one, is still to be had; if not, getresponse raises in turn.
        response = connection.getresponse()
        if response.status in _WRITTEN:
            raise
        return response
    return connection.getresponse()


def _pieces(parts: Sequence[Buffer]) -> Iterator[Buffer]:
    # The socket's timeout holds for all of one sendall, so that must not be too much.
    for part in parts:
        view = memoryview(part)
        for start in range(0, len(view), _PIECE):
            yield view[start : start + _PIECE]


def _receive(response: HTTPResponse) -> bytes:
    if response.status != 200:
        raise _failure(response.status, _code(response))
    return response.read()  # raises IncompleteRead if it is shorter than announced


def _receive_buffer(response: HTTPResponse) -> memoryview:
    from http.client import IncompleteRead

    length = response.length
    if response.status != 200 or length is None:
        return memoryview(bytearray(_receive(response)))
    buffer = memoryview(bytearray(length))
    filled = 0
    while filled < length:
        count = response.readinto(buffer[filled:])
        if not count:
            raise IncompleteRead(b"", length - filled)
        filled += count
    return buffer


def _settle(response: HTTPResponse, *, taken: frozenset[str]) -> Stored:
    if response.status in _WRITTEN:
        return "written"
    code = _code(response)
    if response.status == 412 or code in taken:
        return "exists"
    if response.status == 409:
        # S3: another conditional write is in flight, and may yet fail. Ask once more.
        # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
        raise TransientError(f"HTTP 409 {code}")
    raise _failure(response.status, code)


def _failure(status: int, code: str) -> StorageError:
    answer = f"HTTP {status} {code}".rstrip()
    if status == 404 and code not in _NO_BUCKET:
        return KeyNotFoundError(answer)
    if status in {401, 403} or code == _EXPIRED:
        return RefusedGrantError(f"{answer}: the grant is refused or has expired")
    if status in _TRY_AGAIN or code == "RequestTimeout":
        return TransientError(answer)
    if 300 <= status < 400:
        return StorageError(f"{answer}: a redirection, which is not followed")
    return StorageError(answer)


def _code(response: HTTPResponse) -> str:
    """Return the store's own word for what went wrong. The rest may quote secrets."""
    code = response.headers.get("x-ms-error-code", "")
    found = _CODE.search(f"<Code>{code}</Code>".encode() + response.read(_ERROR_BODY))
    return found[1].decode() if found else ""
