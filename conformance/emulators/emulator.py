"""What an emulator is to a program: an address, and variables that lead there."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final, Protocol

from wren.conformance.emulators.errors import EmulatorError
from wren.conformance.emulators.process import ServerProcess

LOOPBACK: Final = "127.0.0.1"
_TRIES: Final = 5
_ANSWER_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulator:
    """Running servers that stand in for services of one cloud.

    Those of several together are one more emulator: all their processes, all their
    variables, the URL of the store among them.
    """

    name: str

    url: str
    """The store, as a value of ``WREN_STORAGE``; its bucket or container exists."""

    environment: Mapping[str, str]
    """Variables by which the cloud's own libraries find the servers, and credentials
    that these accept."""

    unset: tuple[str, ...] = ()
    """Variables that would lead a program past the servers."""

    processes: tuple[ServerProcess, ...]


class PortTakenError(EmulatorError):
    """Another process took the port between the choice and the server's start."""


class _Start(Protocol):
    def __call__(self, stack: ExitStack, port: int, /) -> Emulator: ...


@contextmanager
def on_free_port(start: _Start) -> Generator[Emulator]:
    """Start a server that must be told its port; stop it when the block is left.

    Args:
        start: Starts it, registers with the stack what must be undone, and may be
            called again, with another port, after it has raised `PortTakenError`.
    """
    for left in reversed(range(_TRIES)):
        with ExitStack() as stack:
            port = free_port()
            try:
                emulator = start(stack, port)
            except PortTakenError:
                if not left:
                    raise
                continue
            yield emulator
            return


def request(
    port: int,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    trust: ssl.SSLContext | None = None,
) -> tuple[int, bytes] | None:
    """Send one request to this machine; return status and body.

    None means that nobody listens, or answers. Proxies are not asked. With ``trust`` it
    is HTTPS.
    """
    connection = HTTPConnection(LOOPBACK, port, timeout=_ANSWER_SECONDS)
    if trust is not None:
        connection = HTTPSConnection(
            LOOPBACK, port, timeout=_ANSWER_SECONDS, context=trust
        )
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, HTTPException):
        return None
    finally:
        connection.close()


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        port: int = listener.getsockname()[1]
        return port
