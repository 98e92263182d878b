"""A store that is gone, for a while or from the start: events are archived, and states catch up."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness import free_port
from ingest_parts import SOURCE, Faulty, connect, count, hear, idle, key_of, running, say, typed, who
from test_engine_redis import Server
from waiting import auntil

from lo_kernel.engine.events import Sender, identify
from lo_kernel.engine.reducers import kvs_pipeline
from lo_kernel.errors import StoreAwayError
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


@kvs_pipeline(null_state={"n": 0}, module_override="tests", qualname_override="left")
async def left(event: Any, state: Any) -> Any:
    """A reducer that nobody registers again."""
    return {"n": state["n"] + 1}, False


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


@pytest.mark.redis
async def test_an_app_starts_without_its_redis(settings: Settings, tmp_path: Path) -> None:
    """It takes events in; when Redis answers, old states go on, and nothing is missing or counted twice."""
    server = Server(tmp_path / "redis")
    server.start()
    settings = replace(settings, store=f"redis://127.0.0.1:{server.port}/0")
    try:
        async with running(settings) as runtime:
            await runtime.add_reducer("count", count, module="tests").ready()
            await runtime.add_reducer("left", left, module="tests").ready()
            typed_by(runtime, range(3))
            await say_in_stream(runtime, 0, 3)
            await idle(runtime)
        server.stop()
        async with running(settings) as runtime:
            assert runtime.errors.of("store")[0].kind == "StoreAwayError"
            assert not runtime.pipeline.store_up
            registration = runtime.add_reducer("count", count, module="tests")
            typed_by(runtime, range(2, 5))
            streaming = asyncio.ensure_future(say_in_stream(runtime, 3, 5))
            await auntil(lambda: runtime.pipeline.synced >= 10)
            assert registration.status == "waiting"
            with pytest.raises(StoreAwayError, match="catch up"):
                await runtime.registry.keys()
            server.start()
            await registration.ready()
            await streaming
            await idle(runtime)
            states = await runtime.registry.read([key_of(f"u{user}") for user in range(5)])
            assert [state["n"] for state in states] == [1 + 5, 1, 2, 1, 1]
            assert registration.events < 12  # it went on from where it was
            seen = [runtime.learners[f"tc-testcase-u{user}"].events for user in range(5)]
            assert seen == [1 + 1 + 5 + 1, 1, 2, 1, 1]
            assert runtime.registry.get("left").status == "paused"
            assert await runtime.registry.read([key_of("u1", "tests.left")]) == [{"n": 1}]
            assert any(entry.kind == "Notice" for entry in runtime.errors.of("store"))
        async with running(settings) as runtime:  # and what was committed then is whole
            registration = runtime.add_reducer("count", count, module="tests")
            await registration.ready()
            assert registration.events == 0
            states = await runtime.registry.read([key_of(f"u{user}") for user in range(5)])
            assert [state["n"] for state in states] == [1 + 5, 1, 2, 1, 1]
    finally:
        server.stop()


@pytest.mark.redis
async def test_an_app_ends_without_having_seen_its_redis(settings: Settings) -> None:
    """Nothing hangs where the store never answers, and the next start has all events."""
    away = replace(settings, store=f"redis://127.0.0.1:{free_port()}/0")
    async with running(away) as runtime:
        registration = runtime.add_reducer("count", count, module="tests")
        typed_by(runtime, range(3))
    assert registration.status == "cancelled"
    async with running(settings) as runtime:
        await runtime.add_reducer("count", count, module="tests").ready()
        assert await runtime.registry.read([key_of("u0")]) == [{"n": 1}]


async def say_in_stream(runtime: Runtime, start: int, end: int) -> None:
    """Events of u0 that are to be acknowledged, after those that are."""
    async with connect(runtime.ingest_url) as ws:
        lock = {"event": "lock_fields", "fields": {"source": SOURCE}, "ack": {"stream": "s"}}
        await say(ws, lock)
        held = (await hear(ws, "ack", timeout=20))["n"]
        assert held == (start + 1 if start else 0)
        await say(ws, who("u0"), *[typed(number) for number in range(start, end)])
        while (await hear(ws, "ack"))["n"] < held + 1 + end - start:
            pass
