"""Requests and responses of the GCS server, as the emulator's handlers take them.

Belongs to `gcs_server`; see there for what may be imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from email.message import Message
from email.parser import BytesHeaderParser
from functools import cached_property
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

_JSON_APIS: Final = ("/storage/", "/upload/", "/download/", "/batch/", "/b/", "/b?")

_NAMES: Final = {  # status: the JSON API's reason, the XML API's code
    400: ("invalid", "InvalidArgument"),
    401: ("authError", "AuthenticationRequired"),
    403: ("forbidden", "AccessDenied"),
    404: ("notFound", "NoSuchKey"),
    409: ("conflict", "Conflict"),
    412: ("conditionNotMet", "PreconditionFailed"),
    416: ("requestedRangeNotSatisfiable", "InvalidRange"),
    501: ("notImplemented", "NotImplemented"),
}


class RefusalError(Exception):
    """The request is answered with an error."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        """Describe the answer.

        Args:
            status: The HTTP status.
            message: For people.
            code: The XML API's code, where it is not the usual one of the status.
        """
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


class Request:
    """One HTTP request, read to its end."""

    def __init__(
        self,
        method: str,
        target: str,
        headers: Message,
        body: bytes,
        base_url: str,
    ) -> None:
        """Take a request apart.

        Args:
            method: Such as ``GET``.
            target: Path and query, still percent-encoded.
            headers: Looked up without regard to case.
            body: Empty if there is none.
            base_url: The server's own address, as the client knows it.
        """
        self.method = headers.get("x-http-method-override", method)
        self.headers = headers
        self.body = body
        self.base_url = base_url
        self.full_url = base_url + target
        parts = urlsplit(self.full_url)
        self.path = parts.path
        self.raw_query = parts.query
        self.query = parse_qs(parts.query, keep_blank_values=True)
        self.params: dict[str, str] = {}

    @property
    def is_xml(self) -> bool:
        """Whether it is one for the XML API, whose paths are bucket and object."""
        return not self.path.startswith(_JSON_APIS)

    def set_params(self, found: Mapping[str, str]) -> None:
        """Keep what the route's pattern has found in the path."""
        self.params = {name: unquote(value) for name, value in found.items()}

    def argument(self, name: str) -> str | None:
        """Return a parameter of the query; None if it is not there."""
        values = self.query.get(name)
        return values[0] if values else None

    def get_header(self, key: str, default: str | None = None) -> str | None:
        """Return a header."""
        found: str | None = self.headers.get(key, default)
        return found

    @cached_property
    def data(self) -> Any:
        """The body: JSON and multipart uploads taken apart, anything else as bytes."""
        kind = self.headers.get_content_type()
        is_content = "upload_id" in self.query or self.argument("uploadType") == "media"
        if is_content or self.is_xml:
            return self.body
        if kind == "multipart/related":
            return self._upload()
        if kind == "application/json":
            return json.loads(self.body) if self.body else None
        return self.body

    def parts(self) -> list[tuple[Message, bytes]]:
        """Return headers and content of each part of a multipart body."""
        boundary = self.headers.get_boundary()
        if boundary is None:
            raise RefusalError(400, "The body is no multipart message.")
        found: list[tuple[Message, bytes]] = []
        line_end = b"\r\n" if b"\r\n" in self.body[: len(boundary) + 4] else b"\n"
        delimiter = b"--" + boundary.encode()
        body = line_end + self.body
        for part in body.split(line_end + delimiter)[1:]:
            if part.startswith(b"--"):
                return found
            head, _, content = part.partition(2 * line_end)
            headers = BytesHeaderParser().parsebytes(head.removeprefix(line_end))
            found.append((headers, content))
        raise RefusalError(400, "The multipart message has no end.")

    def _upload(self) -> dict[str, Any]:
        (_, meta), (headers, content) = self.parts()
        return {
            "meta": json.loads(meta),
            "content": content,
            "content-type": headers.get_content_type(),
        }


class Response:
    """The answer to one request."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.content = b""

    def __setitem__(self, name: str, value: str) -> None:
        self.headers[name] = value

    def __getitem__(self, name: str) -> str:
        return self.headers[name]

    def write_file(self, content: bytes, content_type: str | None = None) -> None:
        """Answer with the content of an object."""
        self["Content-Type"] = content_type or "application/octet-stream"
        self.content = content

    def write(self, content: str) -> None:
        """Append text."""
        self.content += content.encode()

    def json(self, value: object) -> None:
        """Answer with JSON."""
        self["Content-Type"] = "application/json; charset=UTF-8"
        self.content = json.dumps(value).encode()

    def refuse(self, refusal: RefusalError, *, xml: bool) -> None:
        """Answer with an error, in the shape of one of the APIs."""
        reason, code = _NAMES.get(refusal.status, ("backendError", "InternalError"))
        self.status = refusal.status
        if refusal.status == 401:
            self["WWW-Authenticate"] = 'Bearer realm="https://accounts.google.com/"'
        if xml:
            self["Content-Type"] = "application/xml; charset=UTF-8"
            self.content = (
                "<?xml version='1.0' encoding='UTF-8'?>"
                f"<Error><Code>{refusal.code or code}</Code>"
                f"<Message>{escape(refusal.message)}</Message></Error>"
            ).encode()
            return
        each = {"domain": "global", "reason": reason, "message": refusal.message}
        self.json(
            {
                "error": {
                    "code": refusal.status,
                    "message": refusal.message,
                    "errors": [each],
                }
            }
        )
