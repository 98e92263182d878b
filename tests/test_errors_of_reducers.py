"""What `lo.errors` has of a reducer: as long as the code that failed is the one that answers."""

from __future__ import annotations

import json
from typing import Any

from ingest_parts import SOURCE, idle, running

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
