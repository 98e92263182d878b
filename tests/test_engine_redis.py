"""The engine over a real redis-server, and one that is gone for a while."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from harness import RedisServer, free_port, program
from ingest_parts import connect, count, expect, hear, idle, key_of, running, say, talking, typed, who
from waiting import auntil, until

from lo_kernel.settings import Settings

pytestmark = pytest.mark.redis


class Server:
    """A redis-server that can be ended and started again with what it had, or what it ``keeps``."""

    def __init__(self, folder: Path, *keeps: str) -> None:
        self.folder = folder
        self.keeps = keeps or ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        from redis import Redis
        from redis.exceptions import RedisError

        executable = program("redis-server")
        assert executable is not None
        options = ["--port", str(self.port), "--dir", str(self.folder), *self.keeps]
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen([executable, *options], stdout=log)

        def answers() -> bool:
            try:
                with Redis(port=self.port) as client:
                    return bool(client.ping())
            except RedisError:
                return False

        until(answers, what="redis-server to answer")

    def stop(self, *, kill: bool = False) -> None:
        """End it; with ``kill``, at once, so that nothing more is kept."""
        if self.process is not None:
            self.process.kill() if kill else self.process.terminate()
            self.process.wait(10)
            self.process = None


async def test_states_go_to_redis_under_the_fields_keys(
    settings: Settings, redis_server: RedisServer
) -> None:
    """What a reducer made is there for the field's own tools, and is taken up again after a restart."""
    from redis import Redis

    settings = replace(settings, store=redis_server.url)
    async with running(settings) as runtime:
        await runtime.add_reducer("count", count, module="tests").ready()
        async with connect(runtime.ingest_url) as ws:
            await say(ws, who("u0"), typed(), typed())
            await expect(runtime, key_of("u0"), {"n": 2})
        await idle(runtime)
        with Redis(port=redis_server.port) as client:
            text = client.get(key_of("u0"))
            assert isinstance(text, bytes)
            assert json.loads(text) == {"n": 2}
    async with running(settings) as runtime:
        registration = await runtime.add_reducer("count", count, module="tests").ready()
        assert registration.events == 0
        async with connect(runtime.ingest_url) as ws:
            await say(ws, who("u0"), typed(), who("u1"), typed())
            await expect(runtime, key_of("u0"), {"n": 4})


async def test_a_redis_that_is_gone_for_a_while(settings: Settings, tmp_path: Path) -> None:
    """Events are taken and acknowledged meanwhile, lo.errors says so, and the states catch up."""
    server = Server(tmp_path / "redis-server")
    server.start()
    try:
        settings = replace(settings, store=f"redis://127.0.0.1:{server.port}/0")
        async with talking(settings) as (runtime, ws):
            await runtime.add_reducer("count", count, module="tests").ready()
            ack = {"event": "lock_fields", "fields": {}, "ack": {"stream": "s"}}
            await say(ws, who("u0"), ack, typed())
            await expect(runtime, key_of("u0"), {"n": 1})
            await idle(runtime)
            server.stop()
            await say(ws, *[typed(number) for number in range(40)])
            while (await hear(ws, "ack"))["n"] < 41:
                pass
            await expect(runtime, key_of("u0"), {"n": 41})
            await auntil(lambda: not runtime.pipeline.store_up)
            assert runtime.errors.of("store")
            server.start()
            await auntil(lambda: runtime.pipeline.store_up, timeout=20)
            await idle(runtime)
            await say(ws, typed())
            await expect(runtime, key_of("u0"), {"n": 42})
        async with running(settings) as runtime:
            registration = await runtime.add_reducer("count", count, module="tests").ready()
            await expect(runtime, key_of("u0"), {"n": 42})
            assert registration.events == 0
    finally:
        server.stop()


async def test_a_redis_that_comes_back_with_an_older_dump(settings: Settings, tmp_path: Path) -> None:
    """Nothing is built upon it as if it were whole: lo.errors says so; after a restart nothing is lost."""
    from redis import Redis

    server = Server(tmp_path / "redis-server", "--appendonly", "no", "--save", "3600 1")
    server.start()
    try:
        settings = replace(settings, store=f"redis://127.0.0.1:{server.port}/0")
        async with talking(settings) as (runtime, ws):
            await runtime.add_reducer("count", count, module="tests").ready()
            await say(ws, who("u0"), *[typed(number) for number in range(10)])
            await expect(runtime, key_of("u0"), {"n": 10})
            await idle(runtime)
            with Redis(port=server.port) as client:
                client.save()
            await say(ws, *[typed(number) for number in range(30)])
            await expect(runtime, key_of("u0"), {"n": 40})
            await idle(runtime)
            server.stop(kill=True)
            server.start()
            await say(ws, typed())
            await auntil(lambda: "older dump" in str(runtime.errors.of("store")))
            assert not runtime.pipeline.store_up
            with Redis(port=server.port) as client:
                assert client.get(key_of("u0")) == b'{"n":10}'
        async with running(settings) as runtime:
            await runtime.add_reducer("count", count, module="tests").ready()
            await expect(runtime, key_of("u0"), {"n": 41})
            assert not runtime.errors.of("store")
    finally:
        server.stop()
