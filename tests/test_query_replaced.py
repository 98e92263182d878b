"""Queries of a reducer that is being replaced: who waits for the new one, and who gets the old answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from ingest_parts import SOURCE, running
from waiting import auntil

from lo_kernel.app.protocol import QueryConnection
from lo_kernel.engine.events import Sender, identify
from lo_kernel.engine.keys import EventField, KeyField, Scope
from lo_kernel.engine.reducers import kvs_pipeline
from lo_kernel.engine.registration import Registration
from lo_kernel.errors import ReducerError
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

SENDER = Sender(identify({"user_id": "u0"}), SOURCE)  # type: ignore[arg-type]
OLD = [{"student": "tc-testcase-u0", "n": 3}]
NEW = [{"student": "tc-testcase-u0", "n": 30}]


def reducer(step: int, scope: Scope | None = None, *, stuck: bool = False) -> Any:
    """A counting reducer; each step is other code. One that is stuck doesn't get through the past."""

    async def counting(event: Any, state: Any) -> Any:
        if stuck:
            await asyncio.Event().wait()
        return {"n": state["n"] + step}, None

    return kvs_pipeline({"n": 0}, scope, module_override="tests", qualname_override="count")(counting)


class Gate:
    """A ``migrate`` that holds a replacement back until it may go on."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.broken = False

    async def __call__(self, old: Any) -> Any:
        """Ten times what was there, once the gate is open."""
        await self.open.wait()
        if self.broken:
            raise ValueError("no way from the old state to a new one")
        return {"n": 10 * old["n"]}


async def came(runtime: Runtime) -> None:
    """Three events."""
    for number in range(3):
        body = {"event": "keystroke", "number": number}
        await runtime.pipeline.accept(SENDER, body, json.dumps(body).encode(), 1.5)


async def counted(runtime: Runtime) -> None:
    """Three events, and a reducer that has counted them."""
    await runtime.add_reducer("count", reducer(1), module="tests").ready()
    await came(runtime)
    await auntil(lambda: runtime.registry.get("count").behind == 0)
    assert await runtime.executor.rows("count") == OLD


def replace(runtime: Runtime, gate: Gate) -> Registration:
    """Run the cell again, changed."""
    return runtime.add_reducer("count", reducer(10), module="tests", migrate=gate)


async def test_a_query_waits_for_the_reducer_that_replaces_another(settings: Settings) -> None:
    """After the cell ran again, changed, a query tells how far the new code is, and gives its answer."""
    async with running(settings) as runtime:
        await counted(runtime)
        gate = Gate()
        heard: list[Any] = []
        new = replace(runtime, gate)
        asked = asyncio.create_task(runtime.executor.rows("count", on_wait=heard.append))
        open_one = asyncio.create_task(runtime.executor.run("tests", ["count"]))
        await auntil(lambda: len(heard) > 1)
        assert not asked.done()
        assert not open_one.done()
        gate.open.set()
        assert await asked == NEW
        assert (await open_one)["count"][0]["n"] == 30
        assert set(heard) == {new}
        assert await runtime.executor.rows("count", on_wait=heard.append) == NEW


async def test_what_goes_on_being_shown_shows_the_old_answer_meanwhile(settings: Settings) -> None:
    """Watchers and charts have the old code's answer while the new code runs, and then the new one's."""
    async with running(settings) as runtime:
        await counted(runtime)
        gate = Gate()
        source = runtime.live.source("count")
        watching = runtime.live.watch("count")
        assert await anext(watching) == OLD
        replace(runtime, gate)
        late = runtime.live.watch("count")
        assert await anext(late) == OLD
        assert await source.rows() == OLD
        gate.open.set()
        assert await asyncio.wait_for(anext(watching), 5) == NEW
        await asyncio.wait_for(late.aclose(), 5)  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_the_old_reducer_answers_where_the_new_one_comes_to_nothing(
    settings: Settings, how: str
) -> None:
    """A query that waits for a replacement that is cancelled, or fails, gets the old one's answer."""
    async with running(settings) as runtime:
        await counted(runtime)
        gate = Gate()
        new = replace(runtime, gate)
        heard: list[Any] = []
        asked = asyncio.create_task(runtime.executor.rows("count", on_wait=heard.append))
        await auntil(lambda: bool(heard))
        if how == "cancelled":
            new.cancel()
        else:
            gate.broken = True
            gate.open.set()
        assert await asyncio.wait_for(asked, 5) == OLD
        assert new.status == how
        assert await runtime.executor.rows("count") == OLD


async def test_a_query_waits_for_the_last_of_several_replacements(settings: Settings) -> None:
    """Where the cell ran a third time meanwhile, a query waits for that one."""
    async with running(settings) as runtime:
        await counted(runtime)
        gate = Gate()
        replace(runtime, gate)
        heard: list[Any] = []
        asked = asyncio.create_task(runtime.executor.rows("count", on_wait=heard.append))
        await auntil(lambda: bool(heard))
        last = runtime.add_reducer("count", reducer(100), module="tests")
        assert (await asyncio.wait_for(asked, 10))[0]["n"] == 300
        assert last.status == "live"


async def test_the_old_scope_answers_again_where_a_new_one_comes_to_nothing(settings: Settings) -> None:
    """A replacement with another scope that is cancelled leaves queries with the old rows."""
    async with running(settings) as runtime:
        await counted(runtime)
        other = Scope([KeyField.STUDENT, EventField("number")])
        new = runtime.add_reducer("count", reducer(10, other, stuck=True), module="tests")
        asked = asyncio.create_task(runtime.executor.rows("count"))
        await auntil(lambda: new.status == "catching up")
        new.cancel()
        assert await asyncio.wait_for(asked, 5) == OLD


async def test_a_first_reducer_that_fails_is_an_error_of_its_query(settings: Settings) -> None:
    """Where nothing was there before, whoever asks hears that the reducer was cancelled."""
    async with running(settings) as runtime:
        await came(runtime)
        new = runtime.add_reducer("count", reducer(1, stuck=True), module="tests")
        asked = asyncio.create_task(runtime.executor.rows("count"))
        await auntil(lambda: new.status == "catching up")
        new.cancel()
        with pytest.raises(ReducerError, match="cancelled before it had gone through the past"):
            await asyncio.wait_for(asked, 5)


async def test_a_client_that_asks_once_waits_for_the_new_code(settings: Settings) -> None:
    """Over the wire, a query with a delay of -1 gets progress, then the new code's answer alone."""
    async with running(settings) as runtime:
        await counted(runtime)
        gate = Gate()
        frames: list[dict[str, Any]] = []

        async def send(frame: bytes) -> None:
            frames.extend(json.loads(frame))

        looking = runtime.live.watch("count")
        await anext(looking)
        replace(runtime, gate)
        connection = QueryConnection(runtime.live, send)
        asked = {
            "execution_dag": "tests",
            "target_exports": ["count"],
            "kwargs": {"rerun_dag_delay": -1},
            "progress": True,
            "mark_complete": True,
        }
        await connection.receive(json.dumps({"q": asked}))
        await auntil(lambda: bool(frames))
        assert {frame["op"] for frame in frames} == {"progress"}
        gate.open.set()
        await auntil(lambda: frames[-1]["op"] == "complete")
        (answer,) = [frame for frame in frames if frame["op"] == "update"]
        assert answer["value"]["n"] == 30
        await connection.close()
        await looking.aclose()  # type: ignore[attr-defined]
