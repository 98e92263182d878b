"""Work in the background leaves the loop to who has to answer."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from event_files import study_log
from ingest_parts import count, idle, running

from lo_kernel.engine.export import export_events
from lo_kernel.engine.reducers import kvs_pipeline
from lo_kernel.engine.replay import replay
from lo_kernel.engine.turns import Turns, give_way
from lo_kernel.settings import Settings


async def test_an_answer_of_several_steps_waits_for_one_slice_at_most() -> None:
    """What came by a socket goes all its steps of the loop between two slices of work."""
    slices, ended, closed = 0, False, asyncio.Event()

    async def work() -> None:
        nonlocal slices
        while not ended:
            until = perf_counter() + 0.003
            while perf_counter() < until:
                pass
            slices += 1
            await give_way()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1):
            for _ in range(3):  # steps, each with a little to do
                until = perf_counter() + 0.0003
                while perf_counter() < until:
                    pass
                await asyncio.sleep(0)
            writer.write(bytes([slices % 256]))
        writer.close()
        await writer.wait_closed()
        closed.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    working = asyncio.create_task(work())
    spans: list[int] = []
    for _ in range(30):
        before = slices
        writer.write(b"?")
        answered = (await reader.readexactly(1))[0]
        spans.append(answered - before)
    ended = True
    await working
    writer.close()
    await writer.wait_closed()
    await closed.wait()
    server.close()
    await server.wait_closed()
    assert sorted(spans)[len(spans) // 2] <= 2  # the one at hand, and one while it is on its way


async def test_work_goes_on_beside_somebody_who_never_pauses() -> None:
    """However busy others are, a turn ends."""
    ended = False

    async def busy() -> None:
        while not ended:
            until = perf_counter() + 0.0005
            while perf_counter() < until:
                pass
            await asyncio.sleep(0)

    other = asyncio.create_task(busy())
    turns = Turns()
    async with asyncio.timeout(10):
        for _ in range(5):
            await turns.give()
    ended = True
    await other


@kvs_pipeline(null_state={"n": 0}, module_override="tests", qualname_override="again")
async def again(event: dict[str, Any], state: Any) -> tuple[Any, Any]:
    """How many events, counted once more."""
    state["n"] += 1
    return state, state


@contextlib.asynccontextmanager
async def steps_timed() -> AsyncIterator[list[float]]:
    """Processor time that others had between two steps of the loop, in seconds; empty steps are left out."""
    steps: list[float] = []
    over = False

    async def tick() -> None:
        while not over:
            before = time.thread_time()
            await asyncio.sleep(0)
            if (took := time.thread_time() - before) > 0.0002:
                steps.append(took)

    gc.collect()
    gc.disable()  # what it takes has nothing to do with slices
    ticking = asyncio.create_task(tick())
    try:
        yield steps
    finally:
        over = True
        await ticking
        gc.enable()


@pytest.mark.parametrize("what", ["restream", "replay", "merged", "export"])
async def test_slices_are_short(settings: Settings, tmp_path: Path, what: str) -> None:
    """What goes through the past, a file, several, or the archive holds the loop for 5 ms at a time."""
    files = [
        study_log(tmp_path / f"{name}.study.log", range(first, 9000, 2)) for first, name in enumerate("xy")
    ]
    async with running(replace(settings, store="sqlite")) as runtime:
        await runtime.add_reducer("count", count, module="tests").ready()
        if what in ("restream", "export"):
            await replay(runtime, files)
            await idle(runtime)
        async with steps_timed() as steps:
            match what:
                case "restream":
                    await runtime.add_reducer("again", again, module="tests").ready()
                case "export":
                    await export_events(runtime.archive, tmp_path / "out.study.log.gz")
                case _:
                    await replay(runtime, files if what == "merged" else files[0])
    assert len(steps) >= 5
    # the machine may disturb some, and what is too long is so each time
    assert sorted(steps)[len(steps) * 3 // 4] < 0.005
