"""A Google Cloud Storage server for tests: a program for an environment of its own.

    cd …/wren/conformance
    python -m emulators.gcs_server --bucket wren --credentials-file key.json

It needs `REQUIREMENTS` and neither wren nor anything that wren needs; hence the
relative imports. Once it listens, one line of JSON is written to standard output:
``{"url": "http://127.0.0.1:43117"}``.

It is the emulator of the package gcp-storage-emulator, with what a store for
coordination depends upon and the emulator lacks:

* preconditions, checked and applied under one lock, in batches and sessions too;
* pages and offsets of listings; ranges; errors in the words of the real service;
* signed URLs (V4), verified; tokens for service accounts, also downscoped ones;
  permissions, so that what a role does not include is refused;
* threads and connections that are kept open.

Objects are in memory. Not modelled: quotas, life cycles, versions, soft deletion of
objects, the XML API but for reading and writing whole objects.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import logging
import re
import sys
import threading
from email.parser import BytesHeaderParser
from http import server
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from gcp_storage_emulator.handlers import buckets, objects
from gcp_storage_emulator.server import HANDLERS

from .gcs_http import Listener  # noqa: TID251, TID252

# Where this runs, wren is not installed: the package's own name may be another.
from .gcs_identity import (  # noqa: TID251, TID252
    EVERYTHING,
    READ,
    GrantError,
    Holder,
    Identity,
)
from .gcs_messages import RefusalError, Request, Response  # noqa: TID251, TID252
from .gcs_objects import Conditions, MemoryStorage  # noqa: TID251, TID252
from .gcs_rules import (  # noqa: TID251, TID252
    Handler,
    authorize,
    rule_for,
    target,
)

REQUIREMENTS: Final = ("gcp-storage-emulator==2026.7.19", "cryptography==50.0.2")
"""Exactly this emulator, since it is taken apart; the tests are what notices."""

_MAX_BATCH: Final = 100
_SIGN: Final = re.compile(r"/v1/projects/-/serviceAccounts/([^/]+):signBlob")


class Service:
    """The store, and who may do what in it. Safe for use by many threads."""

    def __init__(self, *, token_seconds: float, anonymous: bool) -> None:
        """Start without buckets and accounts.

        Args:
            token_seconds: How long a token is valid.
            anonymous: Whether a request without credentials may do everything.
        """
        self.storage = MemoryStorage()
        self.identity = Identity(token_seconds)
        self._anonymous = Holder("", EVERYTHING if anonymous else frozenset())
        self._lock = threading.RLock()
        self._sessions: dict[str, tuple[Conditions, str, str]] = {}
        self._routes = [(re.compile(each), methods) for each, methods in HANDLERS]

    def create_bucket(self, name: str) -> None:
        """Create a bucket that does not keep what is deleted."""
        created = buckets.create_bucket(name, self.storage)
        if isinstance(created, dict):
            created["softDeletePolicy"] = {"retentionDurationSeconds": "0"}

    def answer(self, request: Request) -> Response:
        """Carry one request out."""
        response = Response()
        try:
            if not self._answer_identity(request, response):
                self._answer_storage(request, response)
        except GrantError as exc:
            response.status = exc.status
            response.json({"error": exc.code, "error_description": exc.message})
        except RefusalError as exc:
            response.refuse(exc, xml=request.is_xml)
        return response

    def _answer_identity(self, request: Request, response: Response) -> bool:
        found = _SIGN.fullmatch(request.path)
        if request.method == "POST" and request.path == "/token":
            uri = f"{request.base_url}/token"
            response.json(self.identity.issue(request.body, uri))
        elif request.method == "POST" and request.path == "/v1/token":
            response.json(self.identity.downscope(request.body))
        elif request.method == "POST" and found is not None:
            authorization = request.get_header("authorization") or ""
            response.json(self.identity.sign(found[1], authorization, request.body))
        else:
            return False
        return True

    def _answer_storage(self, request: Request, response: Response) -> None:
        handler = self._route(request)
        holder = self.identity.holder(request) or self._anonymous
        if handler is objects.batch:
            self._batch(request, response)
            return
        _ = request.data  # is taken apart before the lock is held
        with self._lock:
            self._run(handler, holder, request, response)

    def _route(self, request: Request) -> Handler:
        for pattern, methods in self._routes:
            found = pattern.fullmatch(request.path)
            if found is None:
                continue
            request.set_params(found.groupdict())
            method = request.method
            if "upload_id" in request.query and method in {"PUT", "POST", "DELETE"}:
                return objects.upload_partial
            if method == "HEAD":
                method = "GET"
            if method == "POST" and "uploadType" in request.query:
                return objects.insert
            handler = methods.get(method)
            if handler is not None:
                return handler
            if method == "DELETE" and objects.xml_upload in methods.values():
                return objects.delete
        raise RefusalError(501, f"{request.method} {request.path} is not modelled.")

    def _run(
        self, handler: Handler, holder: Holder, request: Request, response: Response
    ) -> None:
        rule = rule_for(handler)
        conditions, (bucket, name) = Conditions.of(request), target(request, handler)
        session = request.argument("upload_id")
        if session in self._sessions:
            conditions, bucket, name = self._sessions[session]
        found = self.storage.found(bucket, name) if name else None
        if rule.permission == "create":
            # What holds of the object is told first, so that a creator who may not
            # replace learns that there is something.
            conditions.check(found, reads=False)
        authorize(holder, rule.permission, bucket, name, exists=found is not None)
        if bucket and rule.permission != "buckets.update":
            self.storage.check_bucket(bucket)
        if name and found is None and rule.permission in {"delete", "update", "get"}:
            raise RefusalError(404, f"No such object: {bucket}/{name}")
        conditions.check(found, reads=rule.reads)
        rule.run(request, response, self.storage)
        if handler is buckets.test_iam_permissions:
            asked = request.query.get("permissions", [])
            allowed = [each for each in asked if each in holder.permissions]
            response.json({"permissions": allowed})
        self._keep_session(request, response, (conditions, bucket, name))
        if handler is objects.delete:
            response.status = 204

    def _keep_session(
        self, request: Request, response: Response, about: tuple[Conditions, str, str]
    ) -> None:
        started = urlsplit(response.headers.get("Location", "")).query
        for session in parse_qs(started).get("upload_id", ()):
            self._sessions[session] = about
        ended = request.argument("upload_id")
        if ended is not None and response.status != 308:
            self._sessions.pop(ended, None)

    def _batch(self, request: Request, response: Response) -> None:
        parts = request.parts()
        if len(parts) > _MAX_BATCH:
            raise RefusalError(400, "The batch has more than 100 calls.")
        boundary = "batch_part"
        response["Content-Type"] = f"multipart/mixed; boundary={boundary}"
        authorization = request.get_header("authorization")
        for headers, content in parts:
            inner = self.answer(_inner(request, content, authorization))
            response.write(f"--{boundary}\r\nContent-Type: application/http\r\n")
            identity = headers.get("content-id", "").strip("<>")
            response.write(f"Content-ID: <response-{identity}>\r\n\r\n")
            reason = server.BaseHTTPRequestHandler.responses.get(inner.status, ("", ""))
            response.write(f"HTTP/1.1 {inner.status} {reason[0]}\r\n")
            for name, value in inner.headers.items():
                response.write(f"{name}: {value}\r\n")
            response.write(f"Content-Length: {len(inner.content)}\r\n\r\n")
            response.write(f"{inner.content.decode()}\r\n")
        response.write(f"--{boundary}--\r\n")


def _inner(outer: Request, content: bytes, authorization: str | None) -> Request:
    """Return the request in a part of a batch, on behalf of whoever sent the batch."""
    first, _, rest = content.replace(b"\r\n", b"\n").partition(b"\n")
    head, _, body = rest.partition(b"\n\n")
    method, address, _ = first.decode().split(" ", 2)
    headers = BytesHeaderParser().parsebytes(head)
    if authorization is not None and "authorization" not in headers:
        headers["authorization"] = authorization
    address = address.removeprefix(outer.base_url)
    return Request(method, address, headers, body, outer.base_url)


def main() -> None:
    """Serve until the process is ended."""
    options = _options()
    logging.getLogger("gcp_storage_emulator").setLevel(logging.CRITICAL)
    service = Service(
        token_seconds=options.token_seconds,
        anonymous=not options.require_authentication,
    )
    for name in options.bucket:
        service.create_bucket(name)
    listener = Listener((options.host, options.port), service.answer)
    url = f"http://{options.host}:{listener.server_address[1]}"
    for name, path, permissions in (
        ("wren", options.credentials_file, EVERYTHING),
        ("reader", options.reader_credentials_file, READ),
    ):
        if path is not None:
            account = service.identity.add(name, permissions)
            path.touch(mode=0o600)
            path.write_text(json.dumps(account.credentials(url)))
    sys.stdout.write(json.dumps({"url": url}) + "\n")
    sys.stdout.flush()
    listener.serve_forever()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A Google Cloud Storage server.")
    parser.add_argument("--host", type=_loopback, default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 for a free one")
    parser.add_argument("--bucket", action="append", default=[], help="create it")
    parser.add_argument(
        "--credentials-file", type=Path, help="write a key of an administrator there"
    )
    parser.add_argument(
        "--reader-credentials-file",
        type=Path,
        help="write a key of an account there that may only read",
    )
    parser.add_argument(
        "--require-authentication",
        action="store_true",
        help="refuse requests without a token or signature",
    )
    parser.add_argument(
        "--token-seconds", type=float, default=3600.0, help="how long tokens are valid"
    )
    return parser.parse_args()


def _loopback(host: str) -> str:
    if not ipaddress.ip_address(host).is_loopback:
        raise argparse.ArgumentTypeError("not an address of this machine alone")
    return host


if __name__ == "__main__":
    main()
