"""The loopback platform: functions behind HTTP, one process for each invocation.

    PUT    /functions/NAME                deploy; the body is what is known of it
    GET    /functions                     list
    DELETE /functions/NAME                remove
    GET    /functions/NAME/logs           its last lines
    POST   /functions/NAME/invocations    invoke
    PUT    /fault, GET /received          for `wren.conformance.compute_faults`

The program takes its options as a line of JSON on standard input, says on standard
output at which port it listens, and ends when standard input does.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from wren.conformance.loopback_run import Outcome, Run

REFUSALS: Final = {
    "throttled": 429,
    "missing": 404,
    "unauthorized": 401,
    "forbidden": 403,
    "failed": 500,
}
TOO_LARGE: Final = 413

_LINES: Final = 1000
_FOREVER: Final = 1e6


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the platform allows."""

    token: str
    concurrency: int
    request_bytes: int
    response_bytes: int
    direct_seconds: float
    startable: bool


class Platform:
    """What all requests share."""

    run = Run

    def __init__(self, options: Options) -> None:
        self.options = options
        self.functions: dict[str, Any] = {}
        self.logs: dict[str, deque[str]] = {}
        self.fault: dict[str, Any] = {}
        self.received = 0
        self.runs: set[Run] = set()
        self._lock = threading.Lock()

    def invoke(self, name: str, request: bytes, client: socket.socket) -> Outcome:
        """Carry out an invocation.

        Raises:
            ConnectionError: The client has gone, or its connection was dropped.
        """
        options = self.options
        with self._lock:
            if len(self.runs) >= options.concurrency:
                return Outcome(REFUSALS["throttled"], b"")
            directory = self.directory()
            lines = self.logs.setdefault(name, deque(maxlen=_LINES))
            run = self.run(directory, self.environment(directory), lines)
            self.runs.add(run)
        try:
            seconds = min(options.direct_seconds, _FOREVER)
            outcome = run.finish(request, client, seconds)
        except TimeoutError:
            reset(client)
            run.wait()
            raise ConnectionError from None
        finally:
            run.close()
            self.leave(run.directory)
            self.runs.discard(run)
        if len(outcome.body) > options.response_bytes:
            return Outcome(TOO_LARGE, b"the response is too large")
        return outcome

    def directory(self) -> str:
        """Return where an invocation runs."""
        return tempfile.mkdtemp(prefix="wren-loopback-")

    def leave(self, directory: str) -> None:
        """Remove what an invocation has left there."""
        shutil.rmtree(directory, ignore_errors=True)

    def environment(self, directory: str) -> dict[str, str]:
        """Return a worker's variables: these, and no others."""
        found = {"PATH": os.defpath, "TMPDIR": directory}
        if self.options.startable:
            found["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        else:
            found["PYTHONHOME"] = "/nonexistent"
        return found

    def end(self) -> None:
        """Leave nothing behind when the driver has gone."""
        for run in list(self.runs):
            run.kill()
            self.leave(run.directory)


class Handler(BaseHTTPRequestHandler):
    """One request to the platform's API."""

    platform: Platform

    def do_GET(self) -> None:
        """List, tell, or count."""
        if not self._permitted():
            return
        match self.path.strip("/").split("/"):
            case ["functions"]:
                self._json(self.platform.functions)
            case ["functions", name, "logs"]:
                self._json([*self.platform.logs.get(name, ())])
            case _:
                self._json(self.platform.received)

    def do_PUT(self) -> None:
        """Deploy, or have faults injected."""
        body = self._body()
        if not self._permitted():
            return
        match self.path.strip("/").split("/"):
            case ["functions", name]:
                self.platform.functions[name] = json.loads(body)
            case _:
                self.platform.fault = json.loads(body)
        self._answer(200, b"")

    def do_DELETE(self) -> None:
        """Remove a function."""
        if self._permitted():
            self.platform.functions.pop(self.path.rpartition("/")[2], None)
            self._answer(200, b"")

    def do_POST(self) -> None:
        """Invoke a function."""
        body = self._body()
        self.platform.received += 1
        fault = self.platform.fault.get("fault")
        if fault == "reset":
            reset(self.connection)
        elif fault in REFUSALS:
            self._answer(REFUSALS[fault], b"")
        elif self._permitted():
            self._invoke(body, fault)

    def _invoke(self, body: bytes, fault: str | None) -> None:
        name = self.path.split("/")[2]
        if name not in self.platform.functions:
            self._answer(REFUSALS["missing"], b"")
            return
        if len(body) > self.platform.options.request_bytes:
            self._answer(TOO_LARGE, b"the request is too large")
            return
        try:
            outcome = self.platform.invoke(name, body, self.connection)
        except ConnectionError:
            return
        if fault == "lost":
            reset(self.connection)
            return
        if fault == "slow":
            time.sleep(self.platform.fault["seconds"])
        self._answer(outcome.status, outcome.body)

    def _permitted(self) -> bool:
        given = self.headers.get("Authorization")
        if given == f"Bearer {self.platform.options.token}":
            return True
        self._answer(REFUSALS["unauthorized"], b"")
        return False

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _json(self, value: object) -> None:
        self._answer(200, json.dumps(value).encode())

    def _answer(self, status: int, body: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # the client did not wait
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if status == REFUSALS["throttled"]:
                self.send_header("Retry-After", "7")
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing of each request."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def reset(connection: socket.socket) -> None:
    """End a connection the hard way."""
    # Without lingering, closing is a reset: https://man7.org/linux/man-pages/man7/socket.7.html
    linger = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()


def main(kind: type[Platform] = Platform) -> None:
    """Serve until standard input ends."""
    platform = kind(Options(**json.loads(sys.stdin.readline())))
    handler = type("_Handler", (Handler,), {"platform": platform})
    with _Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        sys.stdin.read()
        platform.end()
    os._exit(0)


def to_json(options: Options) -> str:
    """Return the line that `main` reads."""
    return json.dumps(asdict(options))


if __name__ == "__main__":
    main()
