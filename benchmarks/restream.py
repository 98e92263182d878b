"""A reducer is replaced over a long past while a class types: how long do others wait for an answer?

Archived events are made first (in this app's own form), then a server process replaces a counting reducer and
goes through all of them, while a class sends events by websocket and a client, in a process of its own, asks
for the state of the app. ``late_p99_ms`` says by how much that client itself woke too late: what the machine
did to it. Also: memory a live state takes, and how long a start takes, with many learners. JSON lines out.

    python benchmarks/restream.py [--events 1000000] [--class 100] [--learners 100000]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from _common import emit
from aiohttp import web

from lo_kernel.app.application import create_app
from lo_kernel.engine.events import Sender, identify
from lo_kernel.engine.reducers import student_event_reducer
from lo_kernel.kernel.host import bind_first
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings

SOURCE = "org.mitros.writing_analytics"


def counting(step: int) -> Any:
    """A counting reducer; each step is other code."""

    async def count(event: Any, state: Any) -> Any:
        state["n"] += step
        return state, None

    return student_event_reducer({"n": 0}, module_override="bench", qualname_override="count")(count)


def _sender(number: int) -> Sender:
    identity = identify({"user_id": f"u{number}"})
    assert identity is not None
    return Sender(identity, SOURCE)


async def fill(folder: str, events: int, learners: int) -> None:
    """An archive of so many events, without reducers."""
    runtime = Runtime(Settings(workspace=folder, port=0))
    await runtime.start()
    senders = [_sender(number) for number in range(learners)]
    text = b'{"event":"keystroke","source":"%b","doc_id":"doc","text":"%b"}' % (SOURCE.encode(), b"x" * 500)
    for number in range(events):
        await runtime.pipeline.accept(
            senders[number % learners], {"event": "keystroke", "source": SOURCE}, text, time.time()
        )
        if number % 500 == 0:
            await asyncio.sleep(0)
    await runtime.archive.keep()
    await runtime.stop()


async def serve(folder: str) -> None:
    """The app; on each line of its input it replaces its reducer, and says when that is done."""
    runtime = Runtime(Settings(workspace=folder, port=0))
    sock = bind_first("127.0.0.1", ())
    runtime.bind("127.0.0.1", sock.getsockname()[1])
    runner = web.AppRunner(create_app(runtime))
    await runner.setup()
    await web.SockSite(runner, sock).start()
    await runtime.add_reducer("count", counting(1), module="bench", migrate="drop").ready()
    print(
        json.dumps({"url": runtime.url, "ingest": runtime.ingest_url, **runtime.workspace.tokens}), flush=True
    )
    await asyncio.to_thread(sys.stdin.readline)
    started = time.perf_counter()
    registration = runtime.add_reducer("count", counting(2), module="bench")
    await registration.ready()
    print(json.dumps({"seconds": time.perf_counter() - started, "events": registration.total}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    os._exit(0)


async def restream(folder: str, events: int, size: int) -> None:
    """Ask while it goes through the past."""
    await fill(folder, events, 1000)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        "--serve",
        folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    told = json.loads(await process.stdout.readline())
    url, token = told["url"], told["notebook"]
    # each learner holds a connection: as many as there are, and no queue for them
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, headers={"Authorization": f"Bearer {token}"}
    ) as session:
        typists = [asyncio.create_task(_type(session, told["ingest"], number)) for number in range(size)]
        await asyncio.sleep(1)  # until all of them type
        async with _asking(url, token) as found:
            await asyncio.sleep(4)
        before, _ = found
        async with _asking(url, token) as found:
            process.stdin.write(b"\n")
            done = await process.stdout.readline()
        during, late = found
        for task in typists:
            task.cancel()
        await asyncio.gather(*typists, return_exceptions=True)
    report = json.loads(done)
    process.stdin.write(b"\n")
    await process.wait()
    emit(
        "restream",
        events=report["events"],
        live_class=size,
        seconds=round(report["seconds"], 1),
        events_per_s=round(report["events"] / report["seconds"]),
        before_p50_ms=round(statistics.median(before) * 1000, 1),
        before_p99_ms=round(_p99(before) * 1000, 1),
        p50_ms=round(statistics.median(during) * 1000, 1),
        p99_ms=round(_p99(during) * 1000, 1),
        worst_ms=round(max(during) * 1000, 1),
        late_p99_ms=round(_p99(late) * 1000, 1),
        answers=len(during),
    )


async def _type(session: aiohttp.ClientSession, url: str, number: int) -> None:
    """One learner: an event every half a second."""
    async with session.ws_connect(url) as ws:
        await ws.send_json(
            {"event": "test_framework_fake_identity", "source": SOURCE, "user_id": f"live{number}"}
        )
        await asyncio.sleep(number * 0.005)
        while True:
            await ws.send_json({"event": "keystroke", "source": SOURCE, "doc_id": "d"})
            await asyncio.sleep(0.5)


@asynccontextmanager
async def _asking(url: str, token: str) -> AsyncIterator[tuple[list[float], list[float]]]:
    """A client that asks until the end; then: how long answers took, and how late it was, in seconds."""
    found: tuple[list[float], list[float]] = ([], [])
    pipe = asyncio.subprocess.PIPE
    asker = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--ask", url, token, stdin=pipe, stdout=pipe
    )
    assert asker.stdout is not None
    await asker.stdout.readline()
    yield found
    told, _ = await asker.communicate(b"")  # its end
    for values, given in zip(found, json.loads(told), strict=True):
        values += given


async def ask(url: str, token: str) -> None:
    """Ask every 10 ms until the input ends."""
    took: list[float] = []
    late: list[float] = []
    over = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        while not over.done():
            started = time.perf_counter()
            async with session.get(f"{url}config.json") as answer:
                await answer.read()
            ended = time.perf_counter()
            if not took:
                print("asking", flush=True)
            took.append(ended - started)
            await asyncio.sleep(0.01)
            late.append(time.perf_counter() - ended - 0.01)
    print(json.dumps([took[1:], late]), flush=True)


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def learners(folder: str, number: int) -> None:
    """Memory a state held takes, and the start with all of them in the store."""
    runtime = Runtime(Settings(workspace=folder, port=0))
    await runtime.start()
    runtime.registry.live_states = 2 * number
    registration = await runtime.add_reducer("count", counting(1), module="bench").ready()
    senders = [_sender(each) for each in range(number)]
    text = b'{"event":"keystroke","source":"%b"}' % SOURCE.encode()
    gc.collect()
    before = _resident()
    for each in range(number):
        await runtime.pipeline.accept(senders[each], {"event": "k", "source": SOURCE}, text, 1.5)
        if each % 500 == 499:
            await asyncio.sleep(0.001)
    await runtime.pipeline.commit()
    assert registration.run is not None
    assert len(registration.run.states.entries) == number
    gc.collect()
    each_bytes = (_resident() - before) / number
    await runtime.stop()
    del runtime, registration, senders
    gc.collect()
    started = time.perf_counter()
    runtime = Runtime(Settings(workspace=folder, port=0))
    await runtime.start()
    registration = await runtime.add_reducer("count", counting(1), module="bench").ready()
    seconds = time.perf_counter() - started
    assert registration.events == 0
    assert len(runtime.learners) == number
    await runtime.stop()
    emit("learners", learners=number, bytes_each=round(each_bytes), start_s=round(seconds, 2))


async def main(args: argparse.Namespace) -> None:
    """Both."""
    if args.learners:
        with tempfile.TemporaryDirectory() as folder:
            await learners(folder, args.learners)
    if args.events:
        with tempfile.TemporaryDirectory() as folder:
            await restream(folder, args.events, args.size)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--class", dest="size", type=int, default=100)
    parser.add_argument("--learners", type=int, default=100_000)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--ask", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask:
        asyncio.run(ask(*given.ask))
    else:
        asyncio.run(serve(given.serve) if given.serve else main(given))
