"""Connections to the GCS server, read and written.

Belongs to `gcs_server`; see there for what may be imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from email.message import Message
from functools import partial
from http import server
from typing import Any, Final, TypeAlias

from .gcs_messages import Request, Response  # noqa: TID251, TID252

Answer: TypeAlias = Callable[[Request], Response]

_PIECE: Final = 1024 * 1024
_LINE: Final = 64 * 1024


class Connection(server.BaseHTTPRequestHandler):
    """One connection, for as many requests as its client has."""

    protocol_version = "HTTP/1.1"
    wbufsize = _LINE
    disable_nagle_algorithm = True

    def __init__(self, answer: Answer, *arguments: Any) -> None:
        self._answer = answer
        super().__init__(*arguments)

    def handle_one_request(self) -> None:
        """Read a request and answer it."""
        self.raw_requestline = self.rfile.readline(_LINE)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        request = Request(
            self.command,
            self.path,
            self.headers,
            self._body(self.headers),
            f"http://{self.headers.get('host')}",
        )
        self._send(self._answer(request))

    def _body(self, headers: Message) -> bytes:
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(headers.get("content-length", 0)))
        pieces: list[bytes] = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            continue
        return b"".join(pieces)

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        if response.status not in {204, 304}:
            self.send_header("Content-Length", str(len(response.content)))
        self.end_headers()
        if self.command != "HEAD" and response.status not in {204, 304}:
            content = memoryview(response.content)
            for start in range(0, len(content), _PIECE):
                self.wfile.write(content[start : start + _PIECE])
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing of requests."""


class Listener(server.ThreadingHTTPServer):
    """Accepts connections, each with a thread."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], answer: Answer) -> None:
        """Listen.

        Args:
            address: Host and port.
            answer: Answers one request, in whatever thread it came.
        """
        super().__init__(address, partial(Connection, answer))

    def handle_error(self, request: object, client_address: object) -> None:
        """Report what is a fault of the server; clients may leave as they like."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]
