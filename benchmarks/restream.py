"""A reducer is replaced over a long past while a class types: how long do others wait for an answer?

Archived events are made first (in this app's own form), then a server process replaces a counting reducer and
goes through all of them, while a class sends events by websocket and a client asks for the state of the app.
Also: memory a live state takes, and how long a start takes, with many learners. JSON lines out.

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
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {told['notebook']}"}) as session:
        typists = [asyncio.create_task(_type(session, told["ingest"], number)) for number in range(size)]
        before = await _ask(session, told["url"], asyncio.create_task(asyncio.sleep(2)))
        process.stdin.write(b"\n")
        done = asyncio.create_task(process.stdout.readline())
        during = await _ask(session, told["url"], done)
        for task in typists:
            task.cancel()
        await asyncio.gather(*typists, return_exceptions=True)
    report = json.loads(done.result())
    process.stdin.write(b"\n")
    await process.wait()
    emit(
        "restream",
        events=report["events"],
        live_class=size,
        seconds=round(report["seconds"], 1),
        events_per_s=round(report["events"] / report["seconds"]),
        before_p99_ms=round(_p99(before) * 1000, 1),
        p50_ms=round(statistics.median(during) * 1000, 1),
        p99_ms=round(_p99(during) * 1000, 1),
        worst_ms=round(max(during) * 1000, 1),
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


async def _ask(session: aiohttp.ClientSession, url: str, until: asyncio.Task[Any]) -> list[float]:
    """How long each answer of the app took, in seconds, one every 10 ms."""
    found = []
    while not until.done():
        started = time.perf_counter()
        async with session.get(f"{url}config.json") as answer:
            await answer.read()
        found.append(time.perf_counter() - started)
        await asyncio.sleep(0.01)
    return found


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
    assert len(registration.run.entries) == number
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
    given = parser.parse_args()
    asyncio.run(serve(given.serve) if given.serve else main(given))
