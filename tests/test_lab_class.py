"""The class that types beside JupyterLab: into the workspace, whoever owns it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from apps import running_app
from waiting import auntil

from lo_kernel.commands.lab import _type
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
