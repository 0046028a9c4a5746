"""``wren deploy``, ``runtimes``, ``remove`` and ``logs``: functions on a platform."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

from wren import registry
from wren.cli_common import (
    OK,
    Command,
    add_json,
    add_settings,
    print_json,
    print_table,
    settings_of,
)
from wren.config import load
from wren.errors import ConfigurationError
from wren.protocols import Deployer, Deployment, HasDeployer


@asynccontextmanager
async def _deployer(args: Namespace) -> AsyncGenerator[Deployer, None]:
    settings = load(**settings_of(args))
    compute = registry.open_compute(settings.backend, settings)
    try:
        if not isinstance(compute, HasDeployer):
            raise ConfigurationError(
                f"the backend {compute.name!r} deploys nothing: set WREN_BACKEND, or"
                " --backend, to one that does, such as aws"
            )
        yield compute.open_deployer()
    finally:
        with anyio.CancelScope(shield=True):
            await compute.aclose()


def _document(deployment: Deployment) -> dict[str, object]:
    return {
        "name": deployment.name,
        "python": deployment.info.python,
        "wren": deployment.info.wren,
        "cloudpickle": deployment.info.cloudpickle,
        "created": deployment.created.isoformat(),
        "bytes": deployment.size,
    }


def _row(deployment: Deployment) -> tuple[object, ...]:
    info = deployment.info
    return (
        deployment.name,
        f"Python {info.python}",
        f"wren {info.wren}",
        f"{deployment.created:%Y-%m-%d %H:%M}",
        f"{deployment.size} bytes",
    )


def _configure(parser: ArgumentParser) -> None:
    add_json(parser)
    add_settings(parser, "backend")


def _configure_name(parser: ArgumentParser) -> None:
    parser.add_argument("name", help="the function, as wren runtimes shows it")
    add_settings(parser, "backend")


async def _deploy(args: Namespace) -> int:
    async with _deployer(args) as deployer:
        deployment = await deployer.deploy()
    if args.json:
        print_json(_document(deployment))
    else:
        print_table([_row(deployment)])
    return OK


async def _runtimes(args: Namespace) -> int:
    async with _deployer(args) as deployer:
        found = [deployment async for deployment in deployer.list()]
    found.sort(key=lambda deployment: deployment.created)
    if args.json:
        print_json([_document(deployment) for deployment in found])
    elif found:
        print_table(map(_row, found))
    else:
        print("wren: nothing is deployed", file=sys.stderr)
    return OK


async def _remove(args: Namespace) -> int:
    async with _deployer(args) as deployer:
        await deployer.remove(args.name)
    print(f"wren: {args.name} is removed", file=sys.stderr)
    return OK


async def _logs(args: Namespace) -> int:
    async with _deployer(args) as deployer:
        async for line in deployer.logs(args.name):
            print(line)
    return OK


DEPLOY = Command(
    "deploy", "put the function that this configuration asks for", _configure, _deploy
)
RUNTIMES = Command(
    "runtimes", "list the functions that wren has deployed", _configure, _runtimes
)
REMOVE = Command("remove", "delete a deployed function", _configure_name, _remove)
LOGS = Command("logs", "show a function's recent log lines", _configure_name, _logs)
