"""What `lo.reducers` and the card of `lo` say of a reducer, before and after a restart."""

from __future__ import annotations

import asyncio
import html
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from apps import running_app
from ingest_parts import SOURCE, count
from waiting import auntil

from lo_kernel.bridge import LoopBridge
from lo_kernel.engine.events import Sender, identify
from lo_kernel.engine.reducers import student_event_reducer
from lo_kernel.notebook.cards import AppFacts, ReducerFacts, observer_html, observer_text
from lo_kernel.notebook.observer import LearningObserver
from lo_kernel.notebook.reducers_view import Reducers
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

SENDER = Sender(identify({"user_id": "u0"}), SOURCE)  # type: ignore[arg-type]


async def came(runtime: Runtime, events: int) -> None:
    """Some events, folded."""
    for number in range(events):
        body = {"event": "keystroke", "number": number}
        await runtime.pipeline.accept(SENDER, body, json.dumps(body).encode(), 1.5)
    await auntil(runtime.pipeline.is_idle)


def said(runtime: Runtime) -> list[str]:
    """The lines of `lo.reducers`, without whose they are."""
    shown = repr(Reducers(runtime, LoopBridge(asyncio.get_running_loop())))
    return [line.partition(": ")[2] for line in shown.splitlines()]


async def test_a_reducer_of_many_events_says_where_it_stands_after_a_restart(workspace: Path) -> None:
    """What is counted is said to be since the start; the states' place in the archive stands beside it."""
    settings = Settings(workspace=str(workspace), port=0)
    async with running_app(settings) as runtime:
        await runtime.add_reducer("count", count, module="tests").ready()
        assert said(runtime) == ["live, 0 events since the start, the archive is empty"]
        await came(runtime, 1200)
        assert said(runtime) == ["live, 1,200 events since the start, at the archive's newest event (1,200)"]
    async with running_app(settings) as runtime:
        assert said(runtime) == [
            "paused, with all events so far in its states; run the cell that defines it to go on"
        ]
        await runtime.add_reducer("count", count, module="tests").ready()
        assert said(runtime) == ["live, 0 events since the start, at the archive's newest event (1,200)"]
        await came(runtime, 1)
        assert said(runtime) == ["live, 1 event since the start, at the archive's newest event (1,201)"]


async def test_one_that_is_at_work_stands_before_the_archives_end(settings: Settings) -> None:
    """A reducer that waits inside an event has all up to the one before, and says so."""
    gate = asyncio.Event()

    @student_event_reducer(null_state={"n": 0}, module_override="tests")
    async def slow(event: dict[str, Any], state: dict[str, int]) -> tuple[Any, Any]:
        if event["client"]["number"] == 2:
            await gate.wait()
        return {"n": state["n"] + 1}, False

    async with running_app(settings) as runtime:
        await runtime.add_reducer("slow", slow, module="tests").ready()
        coming = asyncio.ensure_future(came(runtime, 5))
        await auntil(lambda: runtime.archive.last == 5)
        await auntil(lambda: "at event 2, the archive's newest is 5" in said(runtime)[0])
        gate.set()
        await coming
        assert said(runtime) == ["live, 5 events since the start, at the archive's newest event (5)"]


async def test_who_takes_over_is_told_what_to_do_about_the_owners_reducers(workspace: Path) -> None:
    """`lo.reducers`, the card and an answer say that its cell has to be run, and how far its states are."""
    settings = Settings(workspace=str(workspace), port=0)
    ending = AsyncExitStack()
    owner = await ending.enter_async_context(running_app(settings))
    await owner.add_reducer("count", count, module="tests").ready()
    await came(owner, 2)
    async with running_app(settings) as follower:
        lo = LearningObserver(follower, LoopBridge(asyncio.get_running_loop()))
        await ending.aclose()
        await follower.own()
        whole = "paused, with all events so far in its states; run the cell that defines it to go on"
        for text in (repr(lo.reducers), repr(lo), html.unescape(lo._repr_html_())):
            assert whole in text
            assert "0 events" not in text
        notes = repr(await follower.executor.rows("count")).splitlines()
        assert notes[-1] == f"'count' is {whole}"
        await came(follower, 1)
        behind = "paused, 1 event behind; run the cell that defines it to go on"
        for text in (repr(lo.reducers), repr(lo), html.unescape(lo._repr_html_())):
            assert behind in text


def test_the_card_says_since_when_it_counts() -> None:
    """A console and JupyterLab: the number of events is that since the start."""
    one = ReducerFacts(id="count", context="org.x", status="live", events=1)
    told = AppFacts(url="http://127.0.0.1:9/", events=1200, reducers=[one])
    assert "count: live, 1 event of org.x since the start" in observer_text(told)
    assert "Events since the start</th>" in observer_html(told)
