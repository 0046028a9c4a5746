"""The commands about deployed functions, over a platform that is a dictionary."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import ModuleType

import pytest

from wren import cli
from wren.config import Settings
from wren.errors import DeploymentError
from wren.protocols import Buffer, Deployer, Deployment, Limits, WorkerInfo
from wren.registry import BACKENDS, Adapter

INFO = WorkerInfo(python="3.11", wren="0.1.0", cloudpickle="3.1.2")


@dataclass
class Shelf:
    """A platform: what is deployed, and what was said."""

    functions: dict[str, Deployment] = field(default_factory=dict[str, Deployment])
    closed: int = 0
    name = "shelf"
    limits = Limits(concurrency=1)

    async def prepare(self) -> WorkerInfo:
        """Say what runs here."""
        return INFO

    async def invoke(
        self,
        request: Sequence[Buffer],
        *,
        timeout: float,  # noqa: ASYNC109  # the contract's
    ) -> Buffer:
        """Refuse: nothing is run in these tests."""
        raise DeploymentError

    async def aclose(self) -> None:
        """Count."""
        self.closed += 1

    def open_deployer(self) -> Deployer:
        """Return itself."""
        return self

    async def deploy(self) -> Deployment:
        """Put one function there."""
        name = f"wren-py311-{len(self.functions)}"
        created = datetime(2026, 1, len(self.functions) + 1, 12, tzinfo=UTC)
        made = Deployment(name=name, info=INFO, created=created, size=53_000)
        self.functions[name] = made
        return made

    async def list(self) -> AsyncIterator[Deployment]:
        """Yield the newest first, which is not the order of the table."""
        for deployment in reversed(self.functions.values()):
            yield deployment

    async def remove(self, name: str) -> None:
        """Take one away."""
        self.functions.pop(name, None)

    async def logs(self, name: str) -> AsyncIterator[str]:
        """Yield two lines."""
        if name not in self.functions:
            raise DeploymentError(f"no function {name!r}: see wren runtimes")
        yield "first"
        yield "second"


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """Return a platform that ``--backend shelf`` names."""
    shelf = Shelf()
    module = ModuleType("wren_test_shelf")

    def open_compute(_settings: Settings) -> Shelf:
        return shelf

    module.__dict__["open_compute"] = open_compute
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(BACKENDS, "shelf", Adapter(module.__name__))
    return shelf


def wren(*arguments: str) -> int:
    """Run a command on the shelf."""
    return cli.main([*arguments, "--backend", "shelf"])


def test_deploy_tells_what_is_there_now(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    """The name is what the other commands take."""
    assert wren("deploy") == 0

    assert capsys.readouterr().out == (
        "wren-py311-0  Python 3.11  wren 0.1.0  2026-01-01 12:00  53000 bytes\n"
    )
    assert shelf.closed == 1


def test_deploy_has_a_form_for_programs(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipeline that deploys wants the name."""
    assert wren("deploy", "--json") == 0

    assert json.loads(capsys.readouterr().out) == {
        "name": "wren-py311-0",
        "python": "3.11",
        "wren": "0.1.0",
        "cloudpickle": "3.1.2",
        "created": "2026-01-01T12:00:00+00:00",
        "bytes": 53_000,
    }
    assert len(shelf.functions) == 1


def test_runtimes_are_listed_by_age(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    """What may be removed is what is old."""
    assert (wren("deploy"), wren("deploy")) == (0, 0)
    capsys.readouterr()

    assert wren("runtimes") == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in lines] == list(shelf.functions)


@pytest.mark.usefixtures("shelf")
def test_no_runtimes_are_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    """For people and for programs."""
    assert wren("runtimes") == 0
    assert capsys.readouterr() == ("", "wren: nothing is deployed\n")

    assert wren("runtimes", "--json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_remove_takes_one_away_and_may_be_repeated(shelf: Shelf) -> None:
    """Whoever tries twice meant the same."""
    assert (wren("deploy"), wren("deploy")) == (0, 0)

    assert wren("remove", "wren-py311-0") == 0
    assert wren("remove", "wren-py311-0") == 0

    assert list(shelf.functions) == ["wren-py311-1"]


@pytest.mark.usefixtures("shelf")
def test_logs_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """For grep, that is."""
    assert wren("deploy") == 0
    capsys.readouterr()

    assert wren("logs", "wren-py311-0") == 0

    assert capsys.readouterr().out == "first\nsecond\n"


def test_a_failure_ends_in_its_message_and_everything_is_closed(
    shelf: Shelf, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1: the platform refused."""
    assert wren("logs", "nothing") == 1

    assert "no function 'nothing': see wren runtimes" in capsys.readouterr().err
    assert shelf.closed == 1


@pytest.mark.parametrize("command", ["deploy", "runtimes", "remove", "logs"])
def test_a_backend_that_deploys_nothing_says_so(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2: it is the setting that is wrong."""
    name = ["x"] if command in {"remove", "logs"} else []

    assert cli.main([command, *name, "--backend", "local"]) == 2

    assert "'local' deploys nothing: set WREN_BACKEND" in capsys.readouterr().err
