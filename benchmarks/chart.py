"""From an event sent to the chart under a cell that shows it, in a real kernel, over its real websocket.

    python benchmarks/chart.py [--events 40] [--seconds 20]

The end is the moment at which a front end has the update; drawing it is the front end's. A chart at rest
shows an event at once. In a class that types it changes at most twice a second, so an event waits for the
next update. For comparison, in the same kernel: the round trip of an empty cell. Prints a JSON line for each.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
from _class import milliseconds
from _common import emit
from _kernel import Kernel, running_kernel
from jupyter_client.asynchronous.client import AsyncKernelClient

SOURCE = "benchmark.chart"
LEARNERS = 30
CELL = f"""
@lo.reducer("typed", context="{SOURCE}", null_state={{"count": 0}})
async def typed(event, state):
    state["count"] += 1
    return state, state

lo.dashboard("typed", "bar")
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, and print JSON lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=40, help="sent one by one to a chart at rest")
    parser.add_argument("--seconds", type=float, default=20.0, help="for which the class types")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, running_kernel(Path(folder)) as kernel:
        kernel.run("pass")
        cells = [_timed(kernel) for _ in range(options.events)]
        address = kernel.run("print(lo.ingest_url)").strip()
        kernel.run(CELL)
        asyncio.run(measure(kernel, address, options.events, options.seconds))
    emit("chart", case="an empty cell and back", **milliseconds(cells))


def _timed(kernel: Kernel) -> float:
    began = time.perf_counter()
    kernel.run("pass")
    return time.perf_counter() - began


async def measure(kernel: Kernel, address: str, events: int, seconds: float) -> None:
    """Send events, at rest and as a class does, and see when the chart has them."""
    chart = Chart(kernel)
    hearing = asyncio.create_task(chart.hear())
    async with aiohttp.ClientSession() as session:
        sources = [await session.ws_connect(address) for _ in range(LEARNERS)]
        for number, source in enumerate(sources):
            await source.send_json(
                {"event": "test_framework_fake_identity", "source": SOURCE, "user_id": f"u{number}"}
            )
        await chart.quiet()
        for _ in range(events):
            await chart.send(sources[0], 0)
            await chart.seen()
            await chart.quiet()
        emit("chart", case="at rest", events=len(chart.delays), limit_ms=1000, **milliseconds(chart.delays))
        chart.delays.clear()
        updates, sent, began = chart.updates, 0, time.perf_counter()
        while sent < seconds * LEARNERS:
            await asyncio.sleep(max(0.0, began + sent / LEARNERS - time.perf_counter()))
            await chart.send(sources[sent % LEARNERS], sent % LEARNERS)
            sent += 1
        await chart.seen()
    emit(
        "chart",
        case=f"a class of {LEARNERS}, an event a second each",
        events=len(chart.delays),
        updates_per_second=round((chart.updates - updates) / seconds, 2),
        limit_ms=1000,
        **milliseconds(chart.delays),
    )
    hearing.cancel()
    await asyncio.gather(hearing, return_exceptions=True)


class Chart:
    """What a front end hears of the chart."""

    def __init__(self, kernel: Kernel) -> None:
        self.delays: list[float] = []
        self.updates = 0
        self._kernel = kernel
        self._sent: dict[int, list[float]] = {number: [] for number in range(LEARNERS)}
        self._shown = dict.fromkeys(range(LEARNERS), 0)
        self._heard = asyncio.Event()

    async def send(self, source: aiohttp.ClientWebSocketResponse, learner: int) -> None:
        """Send an event of a learner."""
        self._sent[learner].append(time.perf_counter())
        await source.send_str('{"event":"keystroke","source":"' + SOURCE + '"}')

    async def seen(self) -> None:
        """Wait until the chart has shown all that was sent."""
        async with asyncio.timeout(60):
            while any(self._shown[number] < len(sent) for number, sent in self._sent.items()):
                self._heard.clear()
                await self._heard.wait()

    async def quiet(self, seconds: float = 0.8) -> None:
        """Wait until no update has come for so long: the chart is at rest."""
        while True:
            self._heard.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._heard.wait()
            except TimeoutError:
                return

    async def hear(self) -> None:
        """Take updates, for ever."""
        client = AsyncKernelClient(connection_file=self._kernel.client.connection_file)
        client.load_connection_file()
        client.start_channels(shell=False, stdin=False, hb=False, control=False)
        try:
            while True:
                self._take(await client.get_iopub_msg(timeout=None))
        finally:
            client.stop_channels()

    def _take(self, message: dict[str, Any]) -> None:
        if message["msg_type"] not in ("display_data", "update_display_data"):
            return
        now = time.perf_counter()
        specs = [data for name, data in message["content"]["data"].items() if "vegalite" in name]
        for row in specs[0]["data"]["values"] if specs else ():
            learner = int(row["id"].rpartition("-u")[2])
            count = int(row["value"]) - 1  # the event that says who it is was the first
            self.delays += [now - sent for sent in self._sent[learner][self._shown[learner] : count]]
            self._shown[learner] = max(count, self._shown[learner])
        self.updates += 1
        self._heard.set()


if __name__ == "__main__":
    main()
