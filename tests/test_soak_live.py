"""Dashboards for minutes at full push: memory stays where it was, and so does all that is counted."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import time
from collections import deque
from pathlib import Path

import pytest
from test_protocol_queries import connected, counter_query, counting_app, typing
from waiting import auntil

from lo_kernel.query.live import QUEUE_UPDATES
from lo_kernel.runtime import Runtime
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


def held(runtime: Runtime) -> dict[str, int]:
    """What the app holds on to for who is looking: each must be bounded, however long it runs."""
    shared = list(runtime.live._shared.values())
    readers = [reader for one in shared for reader in one.readers]
    return {
        "tasks": len(asyncio.all_tasks()),
        "queries": len(shared),
        "readers": len(readers),
        "waiting": max((reader.waiting for reader in readers), default=0),
        "times": len(runtime.executor._timings),
        "errors": len(list(runtime.errors)),
    }


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
async def test_full_push_for_minutes_holds_memory_flat(settings: Settings) -> None:
    """Twenty dashboards, one that never reads and one that comes and goes, leave nothing behind."""
    names = [f"u{number}" for number in range(LEARNERS)]
    async with contextlib.AsyncExitStack() as stack:
        runtime = await stack.enter_async_context(counting_app(settings))
        send = await stack.enter_async_context(typing(runtime, *names))
        frames = 0
        comings: deque[int] = deque(maxlen=1)
        most: dict[str, int] = {}
        end = time.monotonic() + SECONDS

        async def dashboard() -> None:
            nonlocal frames
            async with connected(runtime) as client:
                await client.ask(q=counter_query(1))
                while True:
                    await client.get()
                    frames += 1

        async def comes_and_goes() -> None:
            for number in itertools.count():
                async with connected(runtime) as client:
                    await client.ask(q=counter_query(1))
                    await client.get()
                    own = counter_query(1)
                    own["kwargs"]["course_id"] = str(number)  # a computation that nobody shares
                    await client.ask(q=own)
                    await client.get()
                    comings.append(number)

        async def never_reads() -> None:
            while True:
                async with connected(runtime) as client:
                    await client.ask(q=counter_query(1))
                    await asyncio.sleep(20)

        tasks = [asyncio.create_task(dashboard()) for _ in range(DASHBOARDS)]
        tasks += [asyncio.create_task(comes_and_goes()), asyncio.create_task(never_reads())]
        early: int | None = None
        warm: dict[str, int] = {}
        while time.monotonic() < end:
            for name in names:
                await send(name)
                await asyncio.sleep(0.004)
            for name, number in held(runtime).items():
                most[name] = max(most.get(name, 0), number)
            if early is None and time.monotonic() > end - SECONDS * (1 - WARM_UP):
                early, warm, most = resident(), dict(most), {}
        assert early is not None
        late = resident()
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended
        await auntil(lambda: len(runtime.live) == 0, what="no query to be kept up to date for nobody")
    print(f"{frames:,} frames, {comings[-1]:,} comings, {early:,} -> {late:,} bytes; {warm} -> {most}")
    assert most["tasks"] <= warm["tasks"] + 8, (warm, most)  # those of a connection that opens or ends
    assert most["queries"] <= 3, most
    assert most["readers"] <= DASHBOARDS + 4, most
    assert most["waiting"] <= QUEUE_UPDATES, most
    assert most["times"] <= 64, most
    assert most["errors"] == 0, most
    assert frames > SECONDS * DASHBOARDS * 10
    assert late < early * 1.05 + 4 * 1024 * 1024, f"{early:,} bytes after the warm-up, {late:,} at the end"
