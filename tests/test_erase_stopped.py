"""Erasing a learner where a reducer was stopped on its way through the past."""

from __future__ import annotations

import asyncio
from typing import Any

from apps import running_app
from page_parts import send
from waiting import auntil

from lo_kernel.app.erasing import erase
from lo_kernel.engine.reducers import student_event_reducer
from lo_kernel.settings import Settings

ADA = "tc-testcase-ada"


async def test_a_reducer_that_was_stopped_is_not_begun_again(settings: Settings) -> None:
    """It never comes to an end: to run it anew would hold the erasure up for good."""
    begun = 0

    @student_event_reducer(null_state={"count": 0}, module_override="erasing")
    async def count(event: dict[str, Any], state: dict[str, Any]) -> Any:
        return {"count": state["count"] + 1}, None

    @student_event_reducer(null_state={}, module_override="erasing")
    async def hangs(event: dict[str, Any], state: dict[str, Any]) -> Any:
        nonlocal begun
        begun += 1
        await asyncio.Event().wait()

    async with running_app(settings) as runtime:
        await send(runtime, "ada", "ben")
        await runtime.add_reducer("count", count, module="erasing").ready()
        stopped = runtime.add_reducer("hangs", hangs, module="erasing")
        await auntil(lambda: begun > 0)
        stopped.cancel()
        await auntil(lambda: stopped.status == "cancelled")
        before = begun
        report = await asyncio.wait_for(erase(runtime, ADA), 20)
        assert report.reducers == ["count"]
        assert begun == before
        assert runtime.registry.get("hangs").status == "cancelled"
        assert [runtime.registry.get("count").status, runtime.registry.get("count").errors] == ["live", 0]
