"""A reducer that gives up altogether: `sys.exit()` somewhere below it is a failed event, and no more."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest
from ingest_parts import SOURCE, expect, idle, key_of, running, say, talking, typed, who

from lo_kernel.engine.events import Sender, identify
from lo_kernel.engine.reducers import kvs_pipeline
from lo_kernel.errors import ReducerError
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

KEY = key_of("u0", "tests.exits")
WAYS = ("plain", "coroutine", "suspends", "cancels", "cancels late", "closes", "closes in", "closes late")


def reducer(way: str, step: int = 1) -> Any:
    """A counter whose library gives up at the event with the number 3."""

    def count(event: Any, state: Any) -> Any:
        state["n"] += step
        if event["client"].get("number") == 3:
            if way.startswith("cancels"):
                raise asyncio.CancelledError
            if way.startswith("closes"):
                raise GeneratorExit
            sys.exit("library gave up")
        return state, state

    async def coroutine(event: Any, state: Any) -> Any:
        return count(event, state)

    async def suspends(event: Any, state: Any) -> Any:
        await asyncio.sleep(0)
        return count(event, state)

    function = count
    if way in ("coroutine", "closes in"):
        function = coroutine
    elif way in ("suspends", "cancels late", "closes late"):
        function = suspends
    return kvs_pipeline({"n": 0}, module_override="tests", qualname_override="exits")(function)


@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("way", WAYS)
async def test_the_app_goes_on(settings: Settings, way: str, array: bool) -> None:
    """The event counts as failed; those before and after it count, and the connection stays."""
    async with talking(settings) as (runtime, ws):
        registration = runtime.add_reducer("exits", reducer(way), module="tests")
        await registration.ready()
        events = [typed(number) for number in range(6)]
        await say(ws, who("u0"), *([events] if array else events))
        await expect(runtime, KEY, {"n": 6})
        await say(ws, typed(7))
        await expect(runtime, KEY, {"n": 7})
        assert registration.errors == 1
        kind = runtime.errors.of("reducer 'exits'")[0].kind
        assert kind in ("SystemExit", "CancelledError", "GeneratorExit")


@pytest.mark.parametrize("says", [ValueError, SystemExit, None])
@pytest.mark.parametrize("array", [False, True])
async def test_what_a_reducer_says_to_being_closed_counts_for_nothing(
    settings: Settings, array: bool, says: type[BaseException] | None
) -> None:
    """A reducer that suspends is closed and begun anew; what it answers to being closed is no error."""

    async def stubborn(event: Any, state: Any) -> Any:
        try:
            await asyncio.sleep(0)
        except GeneratorExit:
            if says is not None:
                raise says("clearing up") from None
            await asyncio.sleep(0)
        state["n"] += 1
        return state, state

    function: Any = kvs_pipeline({"n": 0}, module_override="tests", qualname_override="exits")(stubborn)
    async with talking(settings) as (runtime, ws):
        registration = runtime.add_reducer("exits", function, module="tests")
        await registration.ready()
        events = [typed(number) for number in range(6)]
        await say(ws, who("u0"), *([events] if array else events))
        await expect(runtime, KEY, {"n": 7})
        assert registration.errors == 0


@pytest.mark.parametrize("way", WAYS)
async def test_nor_does_the_past_end_it(settings: Settings, way: str) -> None:
    """Such an event in the archive ends neither the next registration nor the next start."""
    sender = Sender(identify({"user_id": "u0"}), SOURCE)  # type: ignore[arg-type]
    async with running(settings) as runtime:
        for number in range(6):
            body = {"event": "x", "number": number}
            runtime.pipeline.take(sender, body, json.dumps(body).encode(), 1.5)
        for step in (1, 2):
            registration = runtime.add_reducer("exits", reducer(way, step), module="tests")
            await registration.ready()
            await expect(runtime, KEY, {"n": 5 * step})
        await idle(runtime)
    async with running(settings) as runtime:
        await runtime.add_reducer("exits", reducer(way, 3), module="tests").ready()
        await expect(runtime, KEY, {"n": 15})


async def test_nor_does_a_function_that_converts_states(settings: Settings) -> None:
    """Where `migrate` gives up, the old reducer goes on, and the error is told."""

    def gives_up(state: Any) -> Any:
        sys.exit(3)

    async with running(settings) as runtime:
        await _some(runtime)
        old = runtime.add_reducer("exits", reducer("plain"), module="tests")
        await old.ready()
        new = runtime.add_reducer("exits", reducer("plain", 2), module="tests", migrate=gives_up)
        with pytest.raises(ReducerError, match="SystemExit"):
            await new.ready()
        assert runtime.registry.get("exits") is old


async def _some(runtime: Runtime) -> None:
    sender = Sender(identify({"user_id": "u0"}), SOURCE)  # type: ignore[arg-type]
    runtime.pipeline.take(sender, {"event": "x"}, b'{"event":"x"}', 1.5)
    await idle(runtime)
