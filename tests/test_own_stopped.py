"""Taking a workspace over where a reducer was stopped on its way through the past."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from apps import running_app
from page_parts import send
from waiting import auntil

from lo_kernel.engine.reducers import student_event_reducer
from lo_kernel.settings import Settings


async def test_a_reducer_that_was_stopped_is_not_begun_again(workspace: Path) -> None:
    """One that never comes to an end would hold up who takes over, and has to be stopped once more."""
    begun = 0

    @student_event_reducer(null_state={"count": 0}, module_override="own")
    async def count(event: dict[str, Any], state: dict[str, Any]) -> Any:
        return {"count": state["count"] + 1}, None

    @student_event_reducer(null_state={}, module_override="own")
    async def hangs(event: dict[str, Any], state: dict[str, Any]) -> Any:
        nonlocal begun
        begun += 1
        await asyncio.Event().wait()

    settings = Settings(workspace=str(workspace), port=0)
    ending = AsyncExitStack()
    owner = await ending.enter_async_context(running_app(settings))
    async with running_app(settings) as follower:
        await send(owner, "ada", "ben")
        await auntil(lambda: follower.pipeline.routed == owner.archive.last > 0)
        counting = await follower.add_reducer("count", count, module="tests").ready()
        stopped = follower.add_reducer("hangs", hangs, module="tests")
        await auntil(lambda: begun > 0)
        stopped.cancel()
        await auntil(lambda: stopped.status == "cancelled")
        await ending.aclose()
        before = begun
        await follower.own()
        await counting.ready()
        assert counting.status == "live"
        await send(follower, "ada")
        await follower.pipeline.commit()
        assert counting.events > 0
        assert (stopped.status, begun) == ("cancelled", before)
