"""The class that types beside JupyterLab: into the workspace, whoever owns it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from apps import running_app
from waiting import auntil

from lo_kernel.commands.lab import _end, _type
from lo_kernel.settings import Settings


async def test_the_class_follows_to_a_new_owner(workspace: Path) -> None:
    """Where another process takes the workspace over, events go on to come in there."""
    settings = Settings(workspace=str(workspace), port=0, store="memory")
    first = AsyncExitStack()
    owner = await first.enter_async_context(running_app(settings))
    async with running_app(settings) as follower:
        typing = asyncio.create_task(_type(settings, students=3))
        try:
            await auntil(lambda: owner.pipeline.accepted > 5)
            await first.aclose()
            assert await follower.own()
            await auntil(lambda: follower.pipeline.accepted > 5, timeout=10)
        finally:
            typing.cancel()
            with suppress(asyncio.CancelledError):
                await typing


async def test_who_ends_a_class_can_be_ended_meanwhile() -> None:
    """A cancel while the old class comes to its end isn't lost, and doesn't cut that end short."""
    ending, ended = asyncio.Event(), asyncio.Event()
    steps: list[str] = []

    async def slow_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await ended.wait()
            steps.append("to its end")

    typing = asyncio.create_task(slow_to_end())
    await asyncio.sleep(0)
    end = asyncio.create_task(_end(typing))
    await ending.wait()
    end.cancel()
    await asyncio.wait([end])
    assert end.cancelled()
    assert not typing.done()
    again = asyncio.create_task(_end(typing))
    await asyncio.sleep(0)
    ended.set()
    await again
    assert typing.cancelled()
    assert steps == ["to its end"]
