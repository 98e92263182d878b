"""How long a full answer takes, from the question sent to the last row parsed, over a real websocket.

The deployed Learning Observer takes 1,000 ms for any of these (it sends once a second). Goals: 5 ms for 30
learners, 25 ms for 1,000, at the 95th percentile.
"""

from __future__ import annotations

import asyncio
import time

import aiohttp
import msgspec
from _class import ClassApp, class_app, milliseconds, percentile
from _common import emit

GOALS = {30: 0.005, 1000: 0.025}
ROUNDS = 200


async def _answer(ws: aiohttp.ClientWebSocketResponse, number: int) -> tuple[int, int]:
    """Ask for the class, by a course of its own so that nothing is shared; rows and bytes."""
    kwargs = {"course_id": str(number), "rerun_dag_delay": -1}
    query = {"execution_dag": "bench", "target_exports": ["counter"], "kwargs": kwargs, "mark_complete": True}
    await ws.send_str(msgspec.json.encode({"q": query}).decode())
    rows = size = 0
    while True:
        text = (await ws.receive()).data
        messages = msgspec.json.decode(text)
        if messages[-1]["op"] == "complete":
            return rows, size
        rows += len(messages)
        size += len(text)


async def _measure(app: ClassApp) -> tuple[list[float], list[float], int, int]:
    held, new = [], []
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(app.query_url) as ws:
            for number in range(ROUNDS):
                since = time.perf_counter()
                rows, size = await _answer(ws, number)
                held.append(time.perf_counter() - since)
        for number in range(ROUNDS):
            since = time.perf_counter()
            async with session.ws_connect(app.query_url) as ws:
                await _answer(ws, ROUNDS + number)
                new.append(time.perf_counter() - since)
    return held, new, rows, size


def main() -> int:
    """Print a line for each size of class; 1 where a goal is missed."""
    missed = 0
    for learners, goal in GOALS.items():
        with class_app(learners) as app:
            held, new, rows, size = asyncio.run(_measure(app))
        for connection, seconds in (("open", held), ("new", new)):
            emit(
                "query",
                learners=learners,
                rows=rows,
                bytes=size,
                connection=connection,
                **milliseconds(seconds),
                goal_p95_ms=goal * 1000,
            )
            missed += percentile(seconds, 95) > goal
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
