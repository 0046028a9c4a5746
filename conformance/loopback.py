"""`LoopbackCompute`: an adapter for a platform behind HTTP that runs on this machine.

It is what the suite is tested with, as `wren.backends.local` has no API that could
fail, no limits and nothing to deploy; and a short example of an adapter for a remote
platform.
"""

from __future__ import annotations

import json
import math
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from email.parser import BytesParser
from typing import Any, Final, NamedTuple

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from wren.conformance.compute_faults import Fault
from wren.conformance.loopback_run import CRASHED, NOT_STARTED
from wren.conformance.loopback_server import TOO_LARGE, Options, to_json
from wren.envelope import Buffer, Parts, size
from wren.errors import (
    ComputeError,
    CredentialsError,
    DeploymentError,
    PayloadTooLargeError,
    TaskTimeoutError,
    ThrottledError,
    WorkerLostError,
)
from wren.protocols import Deployment, Limits, WorkerInfo
from wren.worker import versions

FUNCTION: Final = "wren"

_HEAD_BYTES: Final = 1 << 16


class Reply(NamedTuple):
    """What the platform answered."""

    status: int
    retry_after: str | None
    body: bytes


class LoopbackPlatform:
    """The platform's process, and its API. It ends with this process."""

    def __init__(
        self,
        *,
        concurrency: int = 4,
        request_bytes: int = 1 << 20,
        response_bytes: int = 1 << 20,
        direct_seconds: float = math.inf,
        startable: bool = True,
        program: Sequence[str] = ("-m", "wren.conformance.loopback_server"),
    ) -> None:
        """Describe a platform; nothing starts before it is needed.

        Args:
            concurrency: Most invocations at a time; more are refused.
            request_bytes: Longest request.
            response_bytes: Longest response.
            direct_seconds: It drops the connection of an invocation that takes longer.
            startable: Its workers can start.
            program: What Python runs.
        """
        self.options = Options(
            token=secrets.token_hex(),
            concurrency=concurrency,
            request_bytes=request_bytes,
            response_bytes=response_bytes,
            direct_seconds=direct_seconds,
            startable=startable,
        )
        self._program = program
        self._process: Process | None = None
        self._port = 0
        self._starting = anyio.Lock()
        self._closed = False

    async def send(self, method: str, path: str, parts: Parts = ()) -> Reply:
        """Send one request, on a connection of its own, and return what is answered.

        Raises:
            ComputeError: It was not sent.
            WorkerLostError: It was sent, and the answer is lost.
        """
        await self._start()
        head = (
            f"{method} {path} HTTP/1.0\r\n"
            f"Authorization: Bearer {self.options.token}\r\n"
            f"Content-Length: {size(parts)}\r\n\r\n"
        )
        try:
            stream = await anyio.connect_tcp("127.0.0.1", self._port)
        except OSError as exc:
            raise ComputeError(f"the platform does not answer: {exc}") from exc
        async with stream:
            try:
                await stream.send(b"".join((head.encode(), *parts)))
                return await _receive(BufferedByteReceiveStream(stream))
            except (anyio.BrokenResourceError, anyio.IncompleteRead) as exc:
                raise WorkerLostError("the connection was lost") from exc

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """Send a request about functions and return the answer.

        Raises:
            CredentialsError: The token is not accepted.
        """
        reply = await self.send(method, path, [json.dumps(body).encode()])
        return json.loads(_classify(reply) or b"null")

    async def inject(self, fault: Fault | None, *, seconds: float = 0) -> None:
        """See `Faults.inject`."""
        await self.ask("PUT", "/fault", {"fault": fault, "seconds": seconds})

    async def received(self) -> int:
        """See `Faults.received`."""
        count: int = await self.ask("GET", "/received")
        return count

    async def _start(self) -> None:
        async with self._starting:
            if self._closed:
                raise ComputeError("the platform was closed")
            if self._process is not None:
                return
            self._process = await anyio.open_process(
                [sys.executable, *self._program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None,
                start_new_session=True,
            )
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            await self._process.stdin.send(f"{to_json(self.options)}\n".encode())
            said = BufferedByteReceiveStream(self._process.stdout)
            self._port = int(await said.receive_until(b"\n", 10))

    async def aclose(self) -> None:
        """End the platform with all its workers. Idempotent."""
        self._closed = True
        process, self._process = self._process, None
        if process is not None:
            with anyio.CancelScope(shield=True):
                await process.aclose()


class LoopbackCompute:
    """A `Compute` on a `LoopbackPlatform`, which it closes."""

    name = "loopback"

    def __init__(self, platform: LoopbackPlatform) -> None:
        """Describe the adapter; it does nothing before `prepare`."""
        self.platform = platform
        self.deployer = LoopbackDeployer(platform)
        options = platform.options
        self.limits = Limits(
            concurrency=options.concurrency,
            request_bytes=options.request_bytes,
            response_bytes=options.response_bytes,
            direct_seconds=options.direct_seconds,
        )

    async def prepare(self) -> WorkerInfo:
        """See `Compute.prepare`."""
        return (await self.deployer.deploy()).info

    async def invoke(
        self,
        request: Sequence[Buffer],
        *,
        timeout: float,  # noqa: ASYNC109  # the contract
    ) -> bytes:
        """See `Compute.invoke`."""
        length = size(request)
        if length > self.limits.request_bytes:
            raise PayloadTooLargeError(f"a request of {length} bytes")
        path = f"/functions/{FUNCTION}/invocations"
        with anyio.move_on_after(timeout):
            return _classify(await self.platform.send("POST", path, request))
        raise TaskTimeoutError(f"no response within {timeout:g} s")

    async def aclose(self) -> None:
        """See `Compute.aclose`."""
        await self.platform.aclose()


class LoopbackDeployer:
    """The `Deployer` of a `LoopbackPlatform`."""

    def __init__(self, platform: LoopbackPlatform) -> None:
        self._platform = platform
        self._deploying = anyio.Lock()

    async def deploy(self) -> Deployment:
        """See `Deployer.deploy`."""
        async with self._deploying:
            for found in [each async for each in self.list()]:
                if found.name == FUNCTION:
                    return found
            now = datetime.now(UTC).isoformat()
            about = {"versions": versions(), "created": now, "size": 1}
            await self._platform.ask("PUT", f"/functions/{FUNCTION}", about)
            return _deployment(FUNCTION, about)

    async def list(self) -> AsyncIterator[Deployment]:
        """See `Deployer.list`."""
        for name, about in (await self._platform.ask("GET", "/functions")).items():
            yield _deployment(name, about)

    async def remove(self, name: str) -> None:
        """See `Deployer.remove`."""
        await self._platform.ask("DELETE", f"/functions/{name}")

    async def logs(self, name: str) -> AsyncIterator[str]:
        """See `Deployer.logs`."""
        for line in await self._platform.ask("GET", f"/functions/{name}/logs"):
            yield line


def _deployment(name: str, about: dict[str, Any]) -> Deployment:
    python, wren, cloudpickle = about["versions"]
    return Deployment(
        name=name,
        info=WorkerInfo(python=python, wren=wren, cloudpickle=cloudpickle, name=name),
        created=datetime.fromisoformat(about["created"]),
        size=about["size"],
    )


async def _receive(stream: BufferedByteReceiveStream) -> Reply:
    head = await stream.receive_until(b"\r\n\r\n", _HEAD_BYTES)
    first, _, fields = head.partition(b"\r\n")
    headers = BytesParser().parsebytes(fields, headersonly=True)
    body = await stream.receive_exactly(int(headers["Content-Length"]))
    return Reply(int(first.split()[1]), headers["Retry-After"], body)


def _classify(reply: Reply) -> bytes:
    """Return the body of a reply that is one, and raise what the others say."""
    match reply.status:
        case 200:
            return reply.body
        case 401 | 403:
            raise CredentialsError(
                f"the platform refuses its token: HTTP {reply.status}"
            )
        case 404:
            raise DeploymentError("the function is not deployed: deploy it")
        case 429:
            seconds = None if reply.retry_after is None else float(reply.retry_after)
            raise ThrottledError("too many invocations", retry_after=seconds)
        case _ if reply.status == TOO_LARGE:
            raise PayloadTooLargeError(reply.body.decode())
        case _ if reply.status == NOT_STARTED:
            output = json.loads(reply.body)["output"]
            raise DeploymentError(f"the worker did not start:\n{output}")
        case _ if reply.status == CRASHED:
            raise _crash(**json.loads(reply.body))
        case _:
            raise WorkerLostError(f"the platform failed: HTTP {reply.status}")


def _crash(code: int, output: str) -> WorkerLostError:
    how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    text = f"the worker ended with {how}"
    return WorkerLostError(text, exit_code=code, output=output)
