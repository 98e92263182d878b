"""How far a dashboard is behind: from an event sent to its update received, over real websockets.

Each learner has a connection of its own and sends once a second. An event counts as seen when the learner's
count has reached it. The deployed Learning Observer: 6,800 ms median, and each update is the whole class.
Goals at the 95th percentile: 10 ms in a quiet class, 75 ms with 1,000 learners active, 150 ms with 100
dashboards on them.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache

import aiohttp
import msgspec
from _class import SOURCE, ClassApp, class_app, milliseconds, percentile
from _common import emit

QUERY = '{"q": {"execution_dag": "bench", "target_exports": ["counter"], "kwargs": {"rerun_dag_delay": 1}}}'
CASES = [
    ("quiet class", 30, 1, 10.0, 0.010),
    ("busy", 1000, 1, 1000.0, 0.075),
    ("busy", 1000, 100, 1000.0, 0.150),
]


class Dashboard:
    """One reader: when it saw which count of whom."""

    def __init__(self, sent: dict[str, deque[tuple[int, float]]]) -> None:
        self.waiting = dict.fromkeys(sent, 0)
        self.sent = sent
        self.delays: list[float] = []
        self.frames = self.bytes = self.rows = 0
        self.ready = asyncio.Event()

    async def read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """Take updates until the connection ends."""
        await ws.send_str(QUERY)
        async for frame in ws:
            now = time.monotonic()
            counts = _counts(frame.data)
            if not self.ready.is_set():
                self.ready.set()
                continue
            self.frames += 1
            self.rows += len(counts)
            self.bytes += len(frame.data)
            for path, count in counts:
                taken = self.waiting[path]
                for number, when in self.sent[path]:
                    if taken < number <= count:
                        self.delays.append(now - when)
                        taken = number
                self.waiting[path] = taken


@lru_cache(maxsize=256)
def _counts(text: str) -> list[tuple[str, int]]:
    """Path and count of each update; the same text comes to every dashboard."""
    return [(message["path"], message["value"]["count"]) for message in msgspec.json.decode(text)]


async def measure(
    app: ClassApp, learners: int, dashboards: int, rate: float, seconds: float
) -> list[Dashboard]:
    """Let the class type, and dashboards look on."""
    sent: dict[str, deque[tuple[int, float]]] = {
        f"students.tc-testcase-u{n}": deque(maxlen=16) for n in range(learners)
    }
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        sources = [await stack.enter_async_context(_source(session, app, n)) for n in range(learners)]
        counts = [2] * learners  # one event before the start, and the one that says who it is
        boards = [Dashboard(sent) for _ in range(dashboards)]
        readers = []
        for board in boards:
            ws = await stack.enter_async_context(session.ws_connect(app.query_url))
            readers.append(asyncio.create_task(board.read(ws)))
            await board.ready.wait()
        await asyncio.sleep(0.5)
        for board in boards:
            board.frames = board.rows = board.bytes = 0
        start = time.monotonic()
        number = 0
        while (due := start + number / rate) < start + seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            who = number % learners
            counts[who] += 1
            sent[f"students.tc-testcase-u{who}"].append((counts[who], time.monotonic()))
            await sources[who].send_str('{"event":"keystroke","source":"' + SOURCE + '"}')
            number += 1
        await asyncio.sleep(0.3)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
    return boards


@asynccontextmanager
async def _source(
    session: aiohttp.ClientSession, app: ClassApp, number: int
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with session.ws_connect(app.ingest_url) as ws:
        await ws.send_json(
            {
                "event": "test_framework_fake_identity",
                "source": SOURCE,
                "user_id": f"u{number}",
                "origin": "b",
            }
        )
        await ws.receive()
        yield ws


def main() -> int:
    """Print a line for each case; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    seconds = parser.parse_args().seconds
    missed = 0
    for name, learners, dashboards, rate, goal in CASES:
        with class_app(learners) as app:
            boards = asyncio.run(measure(app, learners, dashboards, rate, seconds))
        delays = [delay for board in boards for delay in board.delays]
        frames = sum(board.frames for board in boards)
        rows = sum(board.rows for board in boards)
        size = sum(board.bytes for board in boards)
        expected = int(rate * seconds) * dashboards
        emit(
            "freshness",
            case=name,
            learners=learners,
            dashboards=dashboards,
            events_per_second=rate,
            **milliseconds(delays),
            goal_p95_ms=goal * 1000,
            seen=len(delays),
            expected=expected,
            updates_per_second=round(frames / dashboards / seconds, 1),
            bytes_per_update=round(size / max(1, frames)),
            bytes_per_row=round(size / max(1, rows)),
        )
        missed += percentile(delays, 95) > goal or len(delays) < expected
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
