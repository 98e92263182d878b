"""A notebook that follows has what it has put in when it is told that it is in."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from apps import running_app
from event_files import study_log
from waiting import auntil

from lo_kernel.bridge import LoopBridge
from lo_kernel.engine.reducers import student_event_reducer
from lo_kernel.notebook.observer import LearningObserver
from lo_kernel.settings import Settings


@student_event_reducer(null_state={"n": 0}, module_override="tests")
def counted(event: Any, state: Any) -> Any:
    """How many events came."""
    return {"n": state["n"] + 1}, None


async def test_what_was_replayed_is_in_the_next_answer(tmp_path: Path, settings: Settings) -> None:
    """The owner puts a file's events in, and they come from its archive: a query behind it has them all."""
    async with running_app(settings) as owner, running_app(settings) as follower:
        lo = LearningObserver(follower, LoopBridge(asyncio.get_running_loop()))
        await lo.add_reducer("counted", counted)
        for round in range(1, 6):
            report = await lo.replay(
                study_log(tmp_path / f"{round}.log", range(3000 * round, 3000 * round + 3000))
            )
            assert report.events == 3000
            assert lo.events.count() == owner.archive.last == 3000 * round
            assert sum(row["n"] for row in await lo.query("counted")) == 3000 * round


async def test_what_a_class_has_typed_is_in_the_next_answer(settings: Settings) -> None:
    """The same holds for a class that types into the owner."""
    async with running_app(settings) as owner, running_app(settings) as follower:
        lo = LearningObserver(follower, LoopBridge(asyncio.get_running_loop()))
        await lo.add_reducer("counted", counted)
        for seed in range(3):
            await lo.simulate(students=3, seconds=0.1, seed=seed, speed=400)
            assert lo.events.count() == owner.archive.last > 0
            assert sum(row["n"] for row in await lo.query("counted")) == owner.archive.last


async def test_nobody_waits_for_who_has_ended(settings: Settings) -> None:
    """Who follows no more holds nobody up, and who owns the workspace has all there is."""
    async with running_app(settings) as owner:
        await asyncio.wait_for(owner.caught_up(), 5)
        async with running_app(settings) as follower:
            waiting = asyncio.ensure_future(follower.caught_up())
        await asyncio.wait_for(waiting, 5)
        await asyncio.wait_for(follower.caught_up(), 5)


async def test_a_class_goes_on_where_another_owns_the_workspace(settings: Settings) -> None:
    """One that was begun in a notebook that follows types into that notebook, once it has taken over."""
    ending = AsyncExitStack()
    owner = await ending.enter_async_context(running_app(settings))
    async with running_app(settings) as follower:
        lo = LearningObserver(follower, LoopBridge(asyncio.get_running_loop()))
        job = lo.simulate(students=2, speed=20)
        await auntil(lambda: owner.archive.last > 5)
        await ending.aclose()
        await lo.own()
        held = follower.archive.last
        await auntil(lambda: follower.archive.last > held + 5, what="the class to come back")
        job.cancel()
