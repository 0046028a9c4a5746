"""Checks of requests that must not be carried out, and of workers that cannot start."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from wren.conformance import probes
from wren.conformance.compute_calls import ComputeCalls
from wren.conformance.marks import VALID, Marks
from wren.conformance.request import ask, pack, pack_items, split
from wren.conformance.spec import Level, check, not_offered
from wren.envelope import ARGUMENTS, REQUEST, Buffer, encode
from wren.errors import DeploymentError
from wren.grants import to_json
from wren.protocols import Compute
from wren.worker import versions

_VERSION_AT = 4  # of the envelope's layout; see `wren.envelope`
_ABSENT = "absent_on_every_worker"


class RefusalChecks(ComputeCalls):
    """What cannot be carried out says so, at once, and runs nothing."""

    @pytest.fixture
    def absent(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        """A function that travels by name, of a module that no worker has."""
        module = ModuleType(_ABSENT)
        exec("def function(item): return item", vars(module))  # noqa: S102  # constant
        monkeypatch.setitem(sys.modules, _ABSENT, module)
        yield module.function
        monkeypatch.delitem(sys.modules, _ABSENT, raising=False)

    @pytest.fixture
    def unstartable(self) -> Compute | None:
        """A compute whose worker cannot start, such as one without wren."""
        return None

    @check("C16")
    async def test_other_versions_are_refused(
        self, ready: Compute, marks: Marks
    ) -> None:
        """Another Python, wren or cloudpickle: nothing is unpickled; both are named."""
        canary = probes.Canary(await marks.places("unpickled"))
        info = await ready.prepare()
        assert [info.python, info.wren, info.cloudpickle] == versions()

        for position in range(3):
            other = versions()
            other[position] = "0.0"
            answer = await self.send(ready, ask(canary, canary, versions=other))

            assert answer.refused == "version"
            assert answer.header["detail"] == ", ".join(versions())
        assert await marks.count("unpickled") == 0

    @check("C16")
    async def test_another_protocol_is_refused(
        self, ready: Compute, marks: Marks
    ) -> None:
        """An envelope of another version is refused, and nothing in it is unpickled."""
        canary = probes.Canary(await marks.places("unpickled"))
        data = bytearray(b"".join(ask(canary, canary)))
        data[_VERSION_AT] += 1

        answer = await self.send(ready, [bytes(data)])

        assert answer.refused == "integrity"
        assert await marks.count("unpickled") == 0

    @check("C17")
    async def test_missing_module_is_named(self, ready: Compute, absent: Any) -> None:
        """A function whose module the worker lacks is refused by the module's name."""
        request = ask(absent, 1)
        del sys.modules[_ABSENT]  # else a worker that is forked from here would have it

        answer = await self.send(ready, request)

        assert (answer.refused, answer.header["detail"]) == ("module", _ABSENT)
        assert (await self.call(ready, probes.echo, 1)).value == 1

    @check("C17")
    async def test_worker_that_cannot_start_says_so(
        self, unstartable: Compute | None
    ) -> None:
        """A worker without wren is a prompt `DeploymentError`, and no silence."""
        if unstartable is None:
            not_offered("unstartable")

        async def start() -> None:
            await unstartable.prepare()
            await unstartable.invoke(ask(probes.echo, 1), timeout=self.patience)

        with (
            self.within(self.patience, "an error"),
            pytest.raises(DeploymentError) as caught,
        ):
            await start()

        assert not caught.value.may_have_run

    @check("C28", Level.SECURITY)
    async def test_altered_function_is_refused(
        self, ready: Compute, marks: Marks
    ) -> None:
        """A function that is not the one whose digest the request has does not run."""
        canary = probes.Canary(await marks.places("unpickled"))
        identity, _ = pack(probes.echo)
        _, parts = pack(canary)
        await marks.store.put("function", b"".join(parts))
        grant = await self._grant(marks, "function")
        items = pack_items(1)
        header = {"versions": versions(), "function": identity, "call": "item"}

        inline = encode(
            REQUEST, header | {"function_inline": True}, [parts, *items.frames]
        )
        stored = encode(REQUEST, header | {"function_grant": grant}, items.frames)

        assert (await self.send(ready, inline)).refused == "integrity"
        assert (await self.send(ready, stored)).refused == "corrupt"
        assert await marks.count("unpickled") == 0

    @check("C28", Level.SECURITY)
    async def test_altered_arguments_are_refused(
        self, ready: Compute, marks: Marks
    ) -> None:
        """Stored arguments that were replaced are not unpickled."""
        canary = probes.Canary(await marks.places("unpickled"))
        items = pack_items(canary)
        await marks.store.put("in", b"".join(encode(ARGUMENTS, {}, items.frames)))
        grant = await self._grant(marks, "in")
        header, buffers = split(ask(probes.echo, canary))
        function: list[Buffer] = [buffers[0]]
        header["arguments"] = {"grant": grant, "sha256": "0" * 64}

        answer = await self.send(ready, encode(REQUEST, header, [function]))

        assert answer.refused == "corrupt"
        assert await marks.count("unpickled") == 0

    @check("C28", Level.SECURITY)
    async def test_intact_arguments_are_used(
        self, ready: Compute, marks: Marks
    ) -> None:
        """The same, unaltered, works: so it was the digest that was refused."""
        data = b"".join(encode(ARGUMENTS, {}, pack_items([7]).frames))
        await marks.store.put("in", data)
        header, buffers = split(ask(probes.echo, [7]))
        header["arguments"] = {
            "grant": await self._grant(marks, "in"),
            "sha256": hashlib.sha256(data).hexdigest(),
        }

        answer = await self.send(ready, encode(REQUEST, header, [[buffers[0]]]))

        assert answer.value == [7]

    @staticmethod
    async def _grant(marks: Marks, key: str) -> dict[str, Any]:
        return to_json(await marks.store.grant(key, "GET", expires_in=VALID))
