"""Checks of where tasks run: output, descriptors, environment, files, processes."""

from __future__ import annotations

import pytest

from wren.conformance import probes
from wren.conformance.compute_calls import ComputeCalls
from wren.conformance.marks import Marks
from wren.conformance.spec import Level, check, not_offered
from wren.protocols import Compute
from wren.tasks import TAIL

_FLOOD = 100_000_000
_LIFE = 15.0
_SECRET = "canary-4c1f9a"  # noqa: S105  # planted, to be looked for
_NAMES = ("SUITE_SECRET", "SUITE_API_TOKEN", "SUITE_PASSWORD", "SUITE_ACCESS_KEY")


class SurroundingsChecks(ComputeCalls):
    """What tasks do to their surroundings is harmless, and seen by nobody else."""

    @pytest.fixture
    def planted(self, monkeypatch: pytest.MonkeyPatch) -> str:
        """A secret in this process's environment, before the compute is made."""
        for name in _NAMES:
            monkeypatch.setenv(name, _SECRET)
        return _SECRET

    @check("C18")
    async def test_output_arrives(self, ready: Compute) -> None:
        """What a task writes to either standard stream is part of the answer."""
        answer = await self.call(ready, probes.say, "ä\u2028z")

        assert "out ä\u2028z" in answer.output
        assert "err ä\u2028z" in answer.output

    @check("C18")
    async def test_much_output_is_no_harm(self, ready: Compute) -> None:
        """100 MB of output block nothing; the end of it is kept, up to a limit."""
        answer = await self.call(ready, probes.flood, _FLOOD)

        assert answer.value == "done"
        assert answer.output.endswith("the end\n")
        assert len(answer.output) <= 2 * TAIL

    @check("C19")
    async def test_standard_descriptors_are_the_tasks_own(self, ready: Compute) -> None:
        """Noise on descriptors 1 and 2, and closing all three, harm no answer."""
        for _ in range(2):
            answer = await self.call(ready, probes.scribble, None)

            assert answer.value == "still here"
        assert (await self.call(ready, probes.echo, 1)).value == 1

    @check("C20", Level.SECURITY)
    async def test_no_secret_of_the_driver_is_seen(
        self, planted: str, ready: Compute
    ) -> None:
        """Nothing in a worker's environment comes from the driver's secrets."""
        seen = (await self.call(ready, probes.environment, None)).value

        assert not seen.keys() & set(_NAMES)
        assert planted not in "".join(seen.values())

    @check("C21", Level.EXTENDED)
    async def test_each_request_finds_the_same_place(self, ready: Compute) -> None:
        """Another task's change of directory or environment is not seen."""
        if not self.traits.clean_place:
            not_offered("clean_place")
        _, before = (await self.call(ready, probes.look, None)).value

        for _ in range(2):
            await self.call(ready, probes.disturb, None)
            directory, environment = (await self.call(ready, probes.look, None)).value

            assert directory != "/"
            assert "LEFT_BY_A_TASK" not in environment
            assert environment.get("PATH") == before.get("PATH")

    @check("C21", Level.EXTENDED)
    async def test_each_request_finds_an_empty_temporary_directory(
        self, ready: Compute
    ) -> None:
        """Files that a task leaves behind are gone when the next request runs."""
        if not self.traits.clean_temp:
            not_offered("clean_temp")
        name = "litter-4c1f9a"

        for _ in range(2):
            await self.call(ready, probes.litter, name)

            assert (await self.call(ready, probes.find_litter, name)).value == []

    @check("C22")
    async def test_what_a_task_starts_ends_with_it(
        self, ready: Compute, marks: Marks
    ) -> None:
        """A child, and a daemon in a session of its own, do not outlive the request."""
        child, daemon = await marks.heart("child"), await marks.heart("daemon")

        await self.call(ready, probes.leave_beating, (child, daemon, _LIFE))
        await self.call(ready, probes.echo, 1)  # a platform may freeze what is idle

        await marks.stops("child", self.grace)
        await marks.stops("daemon", self.grace)
