"""Dashboards for minutes at full push: memory stays where it was."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from pathlib import Path

import pytest
from test_protocol_queries import connected, counter_query, counting_app, typing

from lo_kernel.settings import Settings

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
LEARNERS = 50
DASHBOARDS = 20
WARM_UP = 0.2  # of the time; what is allocated by then is what there is


def resident() -> int:
    """Memory of this process that is in use, in bytes."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
async def test_full_push_for_minutes_holds_memory_flat(settings: Settings) -> None:
    """Twenty dashboards, one that never reads and one that comes and goes, leave memory flat."""
    names = [f"u{number}" for number in range(LEARNERS)]
    async with contextlib.AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(counting_app(settings))
        send = await stack.enter_async_context(typing(runtime, *names))
        frames = 0
        end = time.monotonic() + SECONDS

        async def dashboard() -> None:
            nonlocal frames
            async with connected(runtime) as client:
                await client.ask(q=counter_query(1))
                while True:
                    await client.get()
                    frames += 1

        async def comes_and_goes() -> None:
            while True:
                async with connected(runtime) as client:
                    await client.ask(q=counter_query(1))
                    await client.get()

        async def never_reads() -> None:
            while True:
                async with connected(runtime) as client:
                    await client.ask(q=counter_query(1))
                    await asyncio.sleep(20)

        tasks = [asyncio.create_task(dashboard()) for _ in range(DASHBOARDS)]
        tasks += [asyncio.create_task(comes_and_goes()), asyncio.create_task(never_reads())]
        early: int | None = None
        while time.monotonic() < end:
            for name in names:
                await send(name)
                await asyncio.sleep(0.004)
            if early is None and time.monotonic() > end - SECONDS * (1 - WARM_UP):
                early = resident()
        assert early is not None
        late = resident()
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended
    assert frames > SECONDS * DASHBOARDS * 10
    assert late < early * 1.05 + 4 * 1024 * 1024, f"{early:,} bytes after the warm-up, {late:,} at the end"
