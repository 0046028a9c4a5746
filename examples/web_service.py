"""A web service that computes without making anybody wait.

    pip install starlette uvicorn
    python examples/web_service.py --port 8000
    curl 'http://127.0.0.1:8000/primes?below=1000000'

The work runs on wren's workers: processes here, functions of a cloud when WREN_BACKEND
says so. The event loop stays free, and ``/health`` answers while primes are counted.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TypedDict

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import wren


def count_primes(below: int) -> int:
    """Count the primes below a number, by the sieve of Eratosthenes. Pure CPU."""
    if below < 3:
        return 0
    sieve = bytearray([1]) * below
    sieve[:2] = b"\0\0"
    for number in range(2, int(below**0.5) + 1):
        if sieve[number]:
            for multiple in range(number * number, below, number):
                sieve[multiple] = 0
    return sum(sieve)


class State(TypedDict):
    """What the requests share; one executor serves the whole application."""

    executor: wren.Executor
    running: list[int]


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncGenerator[State]:
    """Open the executor when the server starts, and close it when it stops."""
    async with wren.Executor(timeout=30) as executor:
        yield {"executor": executor, "running": []}


async def primes(request: Request) -> JSONResponse:
    """Count primes on a worker and await the answer."""
    below = request.query_params.get("below", "")
    if not below.isdecimal() or int(below) > 10_000_000:
        problem = "below must be a whole number, at most 10000000"
        return JSONResponse({"error": problem}, status_code=400)
    executor: wren.Executor = request.state.executor
    running: list[int] = request.state.running
    running.append(int(below))
    try:
        count = await executor.submit(count_primes, int(below))
    except wren.TaskTimeoutError:
        return JSONResponse({"error": "that took too long"}, status_code=504)
    finally:
        running.remove(int(below))
    return JSONResponse({"below": int(below), "primes": count})


async def health(request: Request) -> JSONResponse:
    """Say that the service is alive, and what it is working on."""
    return JSONResponse({"status": "ok", "running": request.state.running})


app = Starlette(
    routes=[Route("/primes", primes), Route("/health", health)], lifespan=lifespan
)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Count primes on request.")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free")
    uvicorn.run(app, host="127.0.0.1", port=parser.parse_args().port)
