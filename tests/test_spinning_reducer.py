"""A reducer that does not come to an end: the stop button ends it, and the kernel is of use again."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from apps import running_app
from conftest import StartKernel
from ingest_parts import expect, key_of, say, talking, typed, who
from waiting import until

from lo_kernel.engine.reducers import student_event_reducer
from lo_kernel.engine.run.interrupting import Interrupted, call_in
from lo_kernel.errors import ReducerError
from lo_kernel.query.language import q
from lo_kernel.settings import Settings

SOURCE = "org.mitros.writing_analytics"
REDUCERS = """
import time

@lo.reducer('count', null_state={'n': 0})
def count(event, state):
    return {'n': state['n'] + 1}, None

@lo.reducer('spins', null_state={'n': 0})
def spins(event, state):
    does = event['client'].get('does')
    if does:
        print(does, file=open(does, 'a'))
    if does == 'sleep':
        time.sleep(0.1)
    while does == 'spin':
        pass
    return {'n': state['n'] + 1}, None

await lo.reducers['spins'].ready()
"""
LOOK = "print([(await lo.query(each))[0]['n'] for each in ('count', 'spins')])"
KINDS = "print([(each.where, each.kind, each.count) for each in lo.errors])"


async def _send(url: str, does: list[str | None]) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as ws:
        await ws.send_json({"event": "test_framework_fake_identity", "source": SOURCE, "user_id": "u0"})
        for each in does:
            await ws.send_json({"event": "keystroke", "source": SOURCE, "does": each})


@pytest.mark.parametrize("loop", ["kernel", "thread"])
def test_the_stop_button_ends_a_reducer_that_spins(start_kernel: StartKernel, loop: str) -> None:
    """Once costs that event alone; twice, and the reducer is paused, and a mended one sees all events.

    A reducer that does end is not touched by an interrupt that is meant for the cell.
    """
    kernel = start_kernel(env={"LO_KERNEL_LOOP": loop})
    kernel.execute(REDUCERS)
    url = kernel.execute("print(lo.ingest_url)").text.strip()

    def send(*does: str | None) -> None:
        with suppress(TimeoutError):  # who is held says no goodbye
            asyncio.run(asyncio.wait_for(_send(url, list(does)), 0.5))

    def at_work(does: str, times: int) -> None:
        path = kernel.root / does
        until(lambda: path.exists() and len(path.read_text().split()) == times, what=f"it to {does}")

    cell = kernel.send("import asyncio\nprint('on', flush=True)\nawait asyncio.sleep(30)")
    kernel.next_message(lambda message: message["content"].get("text") == "on\n")
    send(*["sleep"] * 8)
    kernel.interrupt()
    assert kernel.collect(cell, timeout=10).reply["ename"] == "CancelledError"
    at_work("sleep", 8)
    assert kernel.execute(LOOK).text == "[9, 9]\n"

    send("spin", None)
    at_work("spin", 1)
    if loop == "thread":
        assert kernel.execute("1 + 1").value == "2"
    kernel.interrupt()
    until(lambda: "'Interrupted', 1)" in kernel.execute(KINDS).text, what="the call to end")
    assert "it failed at 1 event (see lo.errors)" in kernel.execute("lo.reducers").value
    send("spin", None)
    at_work("spin", 2)
    kernel.interrupt()
    until(lambda: "'Paused', 1)" in kernel.execute(KINDS).text, what="the reducer to be paused")
    until(lambda: "paused, 1 event behind" in kernel.execute("lo.reducers").value, what="it to be set aside")
    counted, spun = (int(each) for each in kernel.execute(LOOK).text.strip("[]\n").split(","))
    assert counted - spun == 3, "the two events, and the one behind them"

    kernel.execute(REDUCERS.replace("while does", "while 0 and does"))
    assert kernel.execute(LOOK).text == f"[{counted}, {counted}]\n"
    assert kernel.execute(KINDS).text == "[]\n"


@student_event_reducer(null_state={"n": 0}, module_override="tests", qualname_override="count")
async def count(event: Any, state: Any) -> Any:
    """Count events."""
    return {"n": state["n"] + 1}, False


@student_event_reducer(null_state={"n": 0}, module_override="tests", qualname_override="count")
async def interrupted(event: Any, state: Any) -> Any:
    """Raise what is raised in a reducer that is interrupted."""
    raise Interrupted


async def test_one_that_spins_at_the_past_leaves_the_old_one_in_place(settings: Settings) -> None:
    """A new version that is interrupted twice while it goes through the past takes nobody's place."""
    async with talking(settings) as (runtime, ws):
        await runtime.add_reducer("count", count, module="tests").ready()
        await say(ws, who("u0"), *[typed(number) for number in range(5)])
        await expect(runtime, key_of("u0"), {"n": 6})
        new = runtime.add_reducer("count", interrupted, module="tests")
        with pytest.raises(ReducerError, match="cancelled"):
            await new.ready()
        assert [each.kind for each in runtime.errors] == ["Interrupted", "Paused"]
        await say(ws, typed(5))
        await expect(runtime, key_of("u0"), {"n": 7})
        assert repr(runtime.registry.get("count")).endswith("live, 7 events since the start>")


async def test_a_querys_function_is_found_too(settings: Settings) -> None:
    """It holds the loop as a reducer does; what raises in it is an error of its call."""
    found = []

    def function(rows: Any) -> Any:
        found.append(call_in(sys._getframe()) is sys._getframe())
        raise Interrupted

    async with running_app(settings) as runtime:
        runtime.functions.publish("f")(function)
        (row,) = await runtime.executor.rows(q.call("f")(q.parameter("x", required=False, default=1)))
        assert row["error"] == "f: Interrupted: it was interrupted, because it did not come to an end"
        assert found == [True]
        assert call_in(sys._getframe()) is None
