"""The class overview's page in Chromium: how soon it is there, and how it keeps up with a large class.

Two cases. *open*: 100 learners with half an hour behind them; the page is opened ten times in a new window.
*live*: 1,000 learners and 500 events a second for so many seconds; frames are counted as the browser asks
for them, and memory is what JavaScript holds after a collection. Goals: first paint under 1 s; 30 frames/s or
more; memory flat (the last quarter's mean within 10% of the second quarter's).

`python benchmarks/page.py [--seconds 60]`; ten minutes are `--seconds 600`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from _class import SOURCE, percentile
from _common import emit

ARGS = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--enable-precise-memory-info"]
FRAMES = """() => {
  window.frames_seen = [];
  const count = (time) => { window.frames_seen.push(time); requestAnimationFrame(count); };
  requestAnimationFrame(count);
}"""
TAKE = "() => { const seen = window.frames_seen; window.frames_seen = []; return seen; }"
SAMPLE_SECONDS = 5.0


async def serve(learners: int, rate: float) -> None:
    """The app with its overview, half an hour of a class behind it, and events as they come."""
    from lo_kernel.app.application import create_app
    from lo_kernel.app.overview import add_overview
    from lo_kernel.engine.events import Sender, identify
    from lo_kernel.kernel.host import AppHost
    from lo_kernel.runtime import Runtime
    from lo_kernel.settings import Settings

    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(workspace=str(Path(folder) / "workspace"), port=0)
        runtime = Runtime(settings)
        host = AppHost(settings, lambda: create_app(runtime), on_bind=runtime.bind)
        await host.start()
        for registration in add_overview(runtime)[1]:
            await registration.ready()
        senders = []
        for number in range(learners):
            identity = identify({"user_id": f"learner-{number:04d}"})
            assert identity is not None
            senders.append(Sender(identity, SOURCE))

        async def typed(sender: Sender, when: float) -> None:
            command = {"ty": "is", "ibi": 1, "s": "word "}
            body = {"event": "google_docs_save", "doc_id": "d", "bundles": [{"commands": [command]}]}
            await runtime.pipeline.accept(sender, body, json.dumps(body).encode(), when)

        now = time.time()
        for minute in range(30, 0, -1):
            for sender in senders:
                await typed(sender, now - 60 * minute + rng.random() * 50)
        print(json.dumps({"url": runtime.url, "token": runtime.security.ticket()}), flush=True)
        asked = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        begin, sent = time.monotonic(), 0
        while not asked.done():
            due = int((time.monotonic() - begin) * rate)
            for _ in range(due - sent):
                await typed(rng.choice(senders), time.time())
            sent = due
            await asyncio.sleep(0.02)
        await host.stop()


class App:
    """The app in a process of its own."""

    def __init__(self, learners: int, rate: float) -> None:
        command = [sys.executable, __file__, "--serve", str(learners), str(rate)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> str:
        assert self.process.stdout is not None
        about = json.loads(self.process.stdout.readline())
        return f"{about['url']}dashboards/overview?token={about['token']}"

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)


async def opened(browser: Any, address: str) -> dict[str, float]:
    """Milliseconds from the start of the navigation to what is there first, in a new window with no cache."""
    window = await browser.new_context(viewport={"width": 1300, "height": 900})
    page = await window.new_page()
    await page.goto(address)
    await page.wait_for_selector("body[data-drawn]")
    marks: dict[str, float] = await page.evaluate(
        "Object.fromEntries(['paint', 'mark'].flatMap(type => performance.getEntriesByType(type))"
        ".map(entry => [entry.name, entry.startTime]))"
    )
    await window.close()
    return marks


async def lived(browser: Any, address: str, seconds: float) -> dict[str, Any]:
    """Frames a second and memory while events come."""
    page = await (await browser.new_context(viewport={"width": 1300, "height": 900})).new_page()
    await page.goto(address)
    await page.wait_for_selector("body[data-drawn]")
    tools = await page.context.new_cdp_session(page)
    rates: list[float] = []
    gaps: list[float] = []
    memory: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        # The collection between two samples stops the page, and is not part of either.
        await tools.send("HeapProfiler.collectGarbage")
        memory.append(await page.evaluate("performance.memory.usedJSHeapSize"))
        await page.evaluate("() => { window.frames_seen = []; }" if rates else FRAMES)
        await asyncio.sleep(SAMPLE_SECONDS)
        times = await page.evaluate(TAKE)
        gaps += [after - before for before, after in pairwise(times)]
        rates.append(1000 * (len(times) - 1) / (times[-1] - times[0]))
    facts = await page.inner_text("#facts")
    quarter = max(1, len(memory) // 4)
    settled, last = statistics.mean(memory[quarter : 2 * quarter]), statistics.mean(memory[-quarter:])
    return {
        "frames_per_second": {
            "mean": round(statistics.mean(rates), 1),
            "worst_5_s": round(min(rates), 1),
        },
        "frame_ms": {"p50": round(percentile(gaps, 50), 1), "p99": round(percentile(gaps, 99), 1)},
        "heap_mb": [round(value / 1e6, 1) for value in memory[:: max(1, len(memory) // 12)]],
        "heap_growth": round(last / settled - 1, 3),
        "facts": facts,
        "good": min(rates) >= 30 and last / settled < 1.1,
    }


async def measure(seconds: float) -> None:
    """Both cases."""
    from playwright.async_api import async_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGS)
        with App(100, 0) as address:
            await opened(browser, address)  # Chromium's own first window
            found = [await opened(browser, address) for _ in range(10)]
        paint = [marks["first-contentful-paint"] for marks in found]
        emit(
            "page",
            case="open, 100 learners",
            **{
                name: {"p50": round(percentile(values, 50)), "worst": round(max(values))}
                for name, values in {
                    "first_paint_ms": paint,
                    "learners_ms": [marks["learners"] for marks in found],
                    "charts_ms": [marks["charts"] for marks in found],
                }.items()
            },
            good=max(paint) < 1000,
        )
        with App(1000, 500) as address:
            emit(
                "page", case=f"live, 1,000 learners, {seconds:g} s", **await lived(browser, address, seconds)
            )
        await browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to watch a large class")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(int(options.serve[0]), float(options.serve[1])))
    else:
        asyncio.run(measure(options.seconds))
