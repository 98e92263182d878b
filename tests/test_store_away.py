"""A store that is gone, for a while or from the start: events are archived, and states catch up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from ingest_parts import SOURCE, Faulty, count, idle, key_of, running
from waiting import auntil

from lo_kernel.engine.events import Sender, identify
from lo_kernel.runtime import Runtime
from lo_kernel.settings import Settings


class Counting(Faulty):
    """A store behind a network: how often it was asked, and by how many at once."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.asked = self.now = self.most = 0

    def __getattr__(self, name: str) -> Any:
        if name == "get_now":
            raise AttributeError(name)
        return super().__getattr__(name)

    async def get_many(self, *args: Any) -> Any:
        """One question."""
        self.asked += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0.01)  # a way there and back
            self._check()
            return await self._inner.get_many(*args)
        finally:
            self.now -= 1


def typed_by(runtime: Runtime, users: range) -> None:
    """An event of each of them."""
    for user in users:
        sender = Sender(identify({"user_id": f"u{user}"}), SOURCE)  # type: ignore[arg-type]
        body = {"event": "keystroke", "number": user}
        runtime.pipeline.take(sender, body, json.dumps(body).encode(), 1.5)


async def test_one_asks_for_all(settings: Settings) -> None:
    """However many states wait for a store that is gone, a reducer asks for them once at a time."""
    async with running(settings) as runtime:
        store = Counting(runtime.store)
        runtime.store = runtime.pipeline.store = runtime.registry.store = store
        runtime.registry.live_states = 50
        await runtime.add_reducer("count", count, module="tests").ready()
        typed_by(runtime, range(400))
        await idle(runtime)
        store.down, store.most, store.asked = True, 0, 0
        for start in range(0, 400, 10):  # in 40 steps of the loop
            typed_by(runtime, range(start, start + 10))
            await asyncio.sleep(0.005)
        assert store.asked < 15
        assert store.most == 1
        store.down = False
        await auntil(lambda: runtime.registry.get("count").run.pending == set())  # type: ignore[union-attr]
        states = await runtime.registry.read([key_of(f"u{user}") for user in range(400)])
        assert states == [{"n": 2}] * 400
