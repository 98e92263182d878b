"""The note on events that nobody hears: said where it is true, with what helps."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from ingest_parts import expect, idle, key_of, running
from waiting import auntil

from lo_kernel.engine.events import Sender, identify
from lo_kernel.engine.reducers import kvs_pipeline
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings


@kvs_pipeline(null_state={"n": 0}, module_override="tests", qualname_override="heard")
async def heard(event: Any, state: Any) -> Any:
    """A counter."""
    return {"n": state["n"] + 1}, False


def sent(runtime: Runtime, source: str | None, count: int = 1) -> None:
    """Events of u0."""
    sender = Sender(identify({"user_id": "u0"}), source)  # type: ignore[arg-type]
    for number in range(count):
        body = {"event": "x", "number": number}
        runtime.pipeline.take(sender, body, json.dumps(body).encode(), 1.5)


async def test_no_note_while_the_reducer_goes_through_the_past(settings: Settings) -> None:
    """Events for a reducer that is not through the past yet will be heard, and are said to be by nobody."""
    async with running(settings) as runtime:
        sent(runtime, "quiz", 3000)
        await idle(runtime)
        runtime.errors.clear()
        runtime.pipeline.unrouted.clear()
        registration = runtime.add_reducer("heard", heard, module="tests", context="quiz")
        while registration.status != "live":
            sent(runtime, "quiz")
            await asyncio.sleep(0)
        assert registration.total > 0
        sent(runtime, "quiz")
        await auntil(runtime.pipeline.is_idle)
        await expect(runtime, key_of("u0", "tests.heard"), {"n": runtime.archive.last})
        assert runtime.errors.of("context 'quiz'") == []
        assert runtime.pipeline.unrouted == {}


async def test_the_note_comes_where_the_reducer_came_to_nothing(settings: Settings) -> None:
    """A registration that was cancelled hears nothing: it is said then."""
    async with running(settings) as runtime:
        sent(runtime, "quiz", 3000)
        await idle(runtime)
        runtime.errors.clear()
        runtime.pipeline.unrouted.clear()
        registration = runtime.add_reducer("heard", heard, module="tests", context="quiz")
        registration.cancel()
        await auntil(lambda: registration.status == "cancelled")
        sent(runtime, "quiz")
        assert [entry.kind for entry in runtime.errors.of("context 'quiz'")] == ["NoReducer"]


async def test_the_note_goes_with_the_registration(settings: Settings) -> None:
    """Not only once the past is gone through; where nothing comes of it, the note is there again."""
    async with running(settings) as runtime:
        sent(runtime, "quiz", 3000)
        await idle(runtime)
        assert [entry.kind for entry in runtime.errors.of("context 'quiz'")] == ["NoReducer"]
        registration = runtime.add_reducer("heard", heard, module="tests", context="quiz")
        assert runtime.errors.of("context 'quiz'") == []
        registration.cancel()
        await auntil(lambda: registration.status == "cancelled")
        assert [entry.kind for entry in runtime.errors.of("context 'quiz'")] == ["NoReducer"]
        runtime.add_reducer("heard", heard, module="tests", context="quiz")
        await runtime.remove_reducer("heard")
        await auntil(lambda: runtime.errors.of("context 'quiz'") != [], what="the note again")
        await runtime.add_reducer("heard", heard, module="tests", context="quiz").ready()
        assert runtime.errors.of("context 'quiz'") == []


async def test_without_a_source_no_context_is_advised(settings: Settings) -> None:
    """Where events name no source, a reducer of context '(none)' would see none either."""
    async with running(settings) as runtime:
        sent(runtime, None)
        (entry,) = runtime.errors.of("context '(none)'")
        assert "source='...'" in entry.message
        assert "context=" not in entry.message
