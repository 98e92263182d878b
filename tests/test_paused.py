"""Reducers of an earlier process: their states answer until the code is there again."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from apps import running_app
from waiting import auntil

from lo_kernel.engine.reducers import student_event_reducer
from lo_kernel.errors import UnknownQueryError, UnknownReducerError
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

SOURCE = "org.mitros.writing_analytics"


@student_event_reducer(null_state={"count": 0}, module_override="tests")
async def count(event: dict[str, Any], state: dict[str, int]) -> tuple[Any, Any]:
    """Count events."""
    return {"count": state["count"] + 1}, False


async def _send(runtime: Runtime, events: int) -> None:
    before = runtime.archive.last
    async with aiohttp.ClientSession() as client, client.ws_connect(runtime.ingest_url) as ws:
        for number in range(events):
            await ws.send_json({"event": "keystroke", "source": SOURCE, "user_id": "u0", "n": number})
        await auntil(lambda: runtime.pipeline.synced >= before + events)


async def _rows(runtime: Runtime) -> list[dict[str, Any]]:
    return list(await runtime.executor.rows("count"))


async def test_a_paused_reducer_answers_with_the_states_it_left(workspace: Path) -> None:
    """After a restart a query answers from the stored states; registered again, it goes on exactly."""
    settings = Settings(workspace=str(workspace), port=0)
    async with running_app(settings) as runtime:
        await runtime.add_reducer("count", count, module="my-module").ready()
        await _send(runtime, 3)
    async with running_app(settings) as runtime:
        await _send(runtime, 2)
        assert await _rows(runtime) == [{"student": "tc-testcase-u0", "count": 3}]
        paused = runtime.registry.get("count")
        assert (paused.status, paused.behind, paused.module) == ("paused", 2, "my-module")
        await runtime.add_reducer("count", count, module="another-module").ready()
        assert await _rows(runtime) == [{"student": "tc-testcase-u0", "count": 5}]
        assert runtime.registry.get("count").status == "live"


async def test_the_owners_reducers_answer_in_who_takes_over(workspace: Path) -> None:
    """A follower that never had their code finds the stored states when it takes the workspace over."""
    settings = Settings(workspace=str(workspace), port=0)
    first = AsyncExitStack()
    runtime = await first.enter_async_context(running_app(settings))
    async with running_app(settings) as follower:
        with pytest.raises(UnknownQueryError):
            await _rows(follower)
        await runtime.add_reducer("count", count, module="my-module").ready()
        await _send(runtime, 3)
        await first.aclose()
        assert await follower.own()
        assert await _rows(follower) == [{"student": "tc-testcase-u0", "count": 3}]


async def test_a_removed_reducer_is_not_paused(workspace: Path) -> None:
    """What was taken out, states and all, is unknown after a restart."""
    settings = Settings(workspace=str(workspace), port=0)
    async with running_app(settings) as runtime:
        await runtime.add_reducer("count", count, module="my-module").ready()
        await _send(runtime, 3)
        await runtime.remove_reducer("count")
    async with running_app(settings) as runtime:
        with pytest.raises(UnknownReducerError, match="there are: none yet"):
            runtime.registry.get("count")
