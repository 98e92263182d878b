"""What `lo.errors` has of a reducer: as long as the code that failed is the one that answers."""

from __future__ import annotations

import json
from typing import Any

from ingest_parts import SOURCE, idle, running
from waiting import auntil

from lo_kernel.engine.events import Sender, identify
from lo_kernel.engine.reducers import kvs_pipeline
from lo_kernel.settings import Settings


def fragile(step: int) -> Any:
    """A counter that fails at one event; each step is other code."""

    def count(event: Any, state: Any) -> Any:
        if event["client"]["number"] == 2 and step == 1:
            raise KeyError("second")
        return {"n": state["n"] + step}, None

    return kvs_pipeline({"n": 0}, module_override="tests", qualname_override="count")(count)


async def test_the_same_cell_again_forgets_nothing(settings: Settings) -> None:
    """Where the same code goes on, what it failed at is still told; other code begins with a clean sheet."""
    sender = Sender(identify({"user_id": "u0"}), SOURCE)  # type: ignore[arg-type]
    async with running(settings) as runtime:
        await runtime.add_reducer("count", fragile(1), module="tests").ready()
        for number in range(4):
            body = {"event": "x", "number": number}
            runtime.pipeline.take(sender, body, json.dumps(body).encode(), 1.5)
        await idle(runtime)
        for _ in range(2):
            again = runtime.add_reducer("count", fragile(1), module="tests")
            await again.ready()
            assert again.errors == 1
            (entry,) = runtime.errors.of("reducer 'count'")
            assert entry.message == "'second'"
        await runtime.add_reducer("count", fragile(2), module="tests").ready()
        assert runtime.errors.of("reducer 'count'") == []


async def test_code_on_its_way_out_is_no_news(settings: Settings) -> None:
    """What the old code fails at while the new one goes through the past isn't told; where the new one is
    given up, the old one's failures are told again.
    """
    sender = Sender(identify({"user_id": "u0"}), SOURCE)  # type: ignore[arg-type]
    body = {"event": "x", "number": 2}
    async with running(settings) as runtime:

        def send(count: int = 1) -> None:
            for _ in range(count):
                runtime.pipeline.take(sender, dict(body), json.dumps(body).encode(), 1.5)

        await runtime.add_reducer("count", fragile(1), module="tests").ready()
        send(2000)
        assert len(runtime.errors.of("reducer 'count'")) == 1
        new = runtime.add_reducer("count", fragile(2), module="tests")
        send()
        await new.ready()
        await idle(runtime)
        assert runtime.errors.of("reducer 'count'") == []
        await runtime.add_reducer("count", fragile(1), module="tests").ready()
        runtime.errors.clear()
        given_up = runtime.add_reducer("count", fragile(2), module="tests")
        given_up.cancel()
        await auntil(lambda: given_up.status == "cancelled", what="the new one to be given up")
        send()
        assert len(runtime.errors.of("reducer 'count'")) == 1
