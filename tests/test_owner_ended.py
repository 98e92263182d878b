"""A follower whose owner has ended: whatever is asked for says so, and how to go on."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from apps import running_app

from lo_kernel.app.simulate import simulate_class
from lo_kernel.bridge import LoopBridge
from lo_kernel.errors import LOError, NotOwnerError
from lo_kernel.notebook.observer import LearningObserver
from lo_kernel.settings import Settings


async def test_all_say_that_the_workspace_can_be_taken_over(workspace: Path) -> None:
    """The card, a class that is to type and a replay name `await lo.own()`; after it, the class types."""
    settings = Settings(workspace=str(workspace), port=0, store="memory")
    owner = AsyncExitStack()
    await owner.enter_async_context(running_app(settings))
    async with running_app(settings) as follower:
        lo = LearningObserver(follower, LoopBridge(asyncio.get_running_loop()))
        assert "another process, followed here" in repr(lo)
        await owner.aclose()
        assert "await lo.own() takes it over" in repr(lo)
        with pytest.raises(LOError, match=r"`await lo\.own\(\)` takes the workspace over"):
            await simulate_class(follower.ingest_url, students=1, seconds=0.1)
        with pytest.raises(NotOwnerError, match=r"take it over with await lo\.own\(\)"):
            lo.replay("of-a-class.study.log")
        assert await follower.own()
        assert "owned by this kernel" in repr(lo)
        assert (await simulate_class(follower.ingest_url, students=1, seconds=0.1)).unsent == 0
