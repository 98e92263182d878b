"""What watches a reducer's query while another reducer takes its place."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from query_parts import Parts, Reducer

from lo_kernel.query.subscription import Subscription


def counting() -> Parts:
    """Two learners, one counting reducer, and its query."""
    parts = Parts(Reducer("counter", default={"count": 0}), people=2)
    parts.catalog.add_reducer(parts.reducers.get("counter"), "m")
    return parts


def replace(parts: Parts, reducer: Reducer, module: str = "m") -> None:
    """Register another reducer under its id, as running a cell again does."""
    parts.reducers.all[reducer.id] = reducer
    parts.catalog.add_reducer(reducer, module)
    parts.live.reducers_changed()


async def soon(subscription: Subscription) -> list[dict[str, Any]]:
    """The messages of the next update."""
    update = await asyncio.wait_for(anext(subscription), 5)
    return [message for frame in update.frames for message in json.loads(frame)]


async def test_who_watches_by_a_bare_name_hears_no_error_when_the_reducer_is_replaced() -> None:
    """A query, by its bare name, its whole one or its DAG, goes on with what replaces its reducer."""
    for query, exports in (("counter", None), ("m.counter", None), ("m", ["counter"])):
        parts = counting()
        async with parts.live.subscribe(query, exports) as subscription:
            assert {message["op"] for message in await soon(subscription)} == {"update"}
            replace(parts, Reducer("counter", default={"count": 7}))
            messages = await soon(subscription)
            assert {message["op"] for message in messages} == {"update"}
            assert [message["value"]["count"] for message in messages] == [7, 7]
            parts.set("counter", "tc-u1", {"count": 8})
            assert [message["value"]["count"] for message in await soon(subscription)] == [8]
        parts.live.close()


async def test_who_watches_by_a_bare_name_follows_a_reducer_into_another_module() -> None:
    """A name means what it means now: a reducer that is registered under another module is found there."""
    parts = counting()
    async with parts.live.subscribe("counter") as subscription:
        await soon(subscription)
        parts.catalog.remove_reducer("counter", "m")
        replace(parts, Reducer("counter", default={"count": 7}), "other")
        messages = await soon(subscription)
        assert [(message["op"], message["value"]["count"]) for message in messages] == [("update", 7)] * 2
    parts.live.close()
