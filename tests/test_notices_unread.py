"""What went wrong while nobody ran a cell."""

from __future__ import annotations

import asyncio

from apps import running_app

from lo_kernel.bridge import LoopBridge
from lo_kernel.notebook.observer import LearningObserver
from lo_kernel.settings import Settings


async def test_no_more_is_kept_than_the_list_of_errors_holds(settings: Settings) -> None:
    """A notebook that is left alone for days keeps no error that ``lo.errors`` has let go of."""
    async with running_app(settings) as runtime:
        lo = LearningObserver(runtime, LoopBridge(asyncio.get_running_loop()))
        limit = runtime.errors.limit
        for number in range(3 * limit):
            runtime.errors.add(f"place {number}", "it failed")
        assert len(lo._unsaid) <= limit + 1
        notices = lo._take_notices()
        assert notices[-1] == f"and {limit - 5} more"
        assert notices[0].startswith(f"place {2 * limit}:")
