"""Answers that are behind say so: in a notebook and over the wire."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from apps import running_app
from ingest_parts import SOURCE
from waiting import auntil

from lo_kernel.engine.events import Sender, identify
from lo_kernel.engine.reducers import student_event_reducer
from lo_kernel.query.behind import Behind
from lo_kernel.query.rows import Rows
from lo_kernel.query.subscription import Subscription
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

SENDER = Sender(identify({"user_id": "u0"}), SOURCE)  # type: ignore[arg-type]


def reducer(step: int) -> Any:
    """A counting reducer; each step is other code."""

    @student_event_reducer(null_state={"n": 0}, module_override="tests", qualname_override="count")
    async def count(event: dict[str, Any], state: dict[str, int]) -> tuple[Any, Any]:
        return {"n": min(state["n"] + step, 3)}, False

    return count


async def came(runtime: Runtime, events: int) -> None:
    """Some events."""
    for number in range(events):
        body = {"event": "keystroke", "number": number}
        await runtime.pipeline.accept(SENDER, body, json.dumps(body).encode(), 1.5)
    await auntil(lambda: not len(runtime.registry) or runtime.registry.get("count").behind == 0)


async def soon(subscription: Subscription) -> list[dict[str, Any]]:
    """The messages of the next update."""
    update = await asyncio.wait_for(anext(subscription), 5)
    return [message for frame in update.frames for message in json.loads(frame)]


async def test_the_answer_of_a_paused_reducer_says_that_it_is_behind(workspace: Path) -> None:
    """After a restart, rows and the wire say that the reducer is paused, until its code is there again."""
    settings = Settings(workspace=str(workspace), port=0)
    async with running_app(settings) as runtime:
        await runtime.add_reducer("count", reducer(1), module="tests").ready()
        await came(runtime, 3)
        rows = await runtime.executor.rows("count")
        assert (rows, rows.behind) == ([{"student": "tc-testcase-u0", "n": 3}], {})
    async with running_app(settings) as runtime:
        await came(runtime, 2)
        rows = await runtime.executor.rows("count")
        assert rows.behind == {"count": Behind("paused", 2)}
        assert "'count' is behind: paused, 2 events came since" in repr(rows)
        assert "&#x27;count&#x27; is behind: paused" in rows._repr_html_()
        assert rows[:1].behind == rows.behind
        async with runtime.live.subscribe("tests", ["count"]) as subscription:
            (message,) = await soon(subscription)
            assert (message["op"], message["behind"]) == ("update", {"count": "paused"})
            await runtime.add_reducer("count", reducer(1), module="tests").ready()
            while "behind" in (message := (await soon(subscription))[0]):
                pass
            assert (message["op"], message["path"], message["value"]["n"]) == (
                "update",
                "students.tc-testcase-u0",
                3,
            )
        assert (await runtime.executor.rows("count")).behind == {}


async def test_the_old_answer_says_so_while_new_code_goes_through_the_past(settings: Settings) -> None:
    """Who watches is told that the code before answers, and that it no longer does, though no row changed."""
    async with running_app(settings) as runtime:
        await runtime.add_reducer("count", reducer(1), module="tests").ready()
        await came(runtime, 3)
        gate = asyncio.Event()

        async def migrate(old: Any) -> Any:
            await gate.wait()
            return old

        async with runtime.live.subscribe("tests", ["count"]) as subscription:
            assert "behind" not in (await soon(subscription))[0]
            runtime.add_reducer("count", reducer(2), module="tests", migrate=migrate)
            (message,) = await soon(subscription)
            assert (message["value"]["n"], message["behind"]) == (3, {"count": "replaced"})
            watching = runtime.live.watch("count")
            watched = await anext(watching)
            assert watched.behind["count"].status == "replaced"
            assert (await runtime.executor.rows("count", newest=False)).behind["count"].status == "replaced"
            gate.set()
            (message,) = await soon(subscription)
            assert (message["value"]["n"], message.get("behind")) == (3, None)
            await watching.aclose()  # type: ignore[attr-defined]


def test_how_far_behind_is_said_in_words() -> None:
    """Each reason reads as a sentence, with or without rows."""
    assert str(Behind("replaced", 1200)) == "the code before answers; the new one has 1,200 events to go"
    assert str(Behind("catching up", 1)) == "catching up, 1 event to go"
    assert repr(Rows(behind={"c": Behind("paused", 1)})).startswith("no rows\n'c' is behind: paused, 1 event")
    assert "is behind" in Rows(behind={"c": Behind("paused", 1)})._repr_html_()
