"""Work in the background leaves the loop to who has to answer."""

from __future__ import annotations

import asyncio
from time import perf_counter

from lo_kernel.engine.turns import Turns, give_way


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
