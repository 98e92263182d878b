"""Acknowledgements: how many events of a stream are on disk, across connections and crashes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from ingest_parts import (
    SOURCE,
    Faulty,
    bodies,
    connect,
    count,
    expect,
    hear,
    idle,
    key_of,
    rejected,
    running,
    say,
    talking,
    typed,
    who,
)
from waiting import auntil

from lo_kernel.settings import Settings

STREAM = "5d9c1f0e-0000-4000-8000-000000000001"


def lock(stream: str = STREAM, **fields: Any) -> dict[str, Any]:
    """What a client sends that wants acknowledgements."""
    return {"event": "lock_fields", "fields": {"source": SOURCE, **fields}, "ack": {"stream": stream}}


async def hear_count(ws: aiohttp.ClientWebSocketResponse, n: int, stream: str = STREAM) -> None:
    """Wait until so many events are acknowledged."""
    while True:
        message = await hear(ws, "ack")
        assert message["stream"] == stream
        assert message["n"] <= n
        if message["n"] == n:
            return


async def test_a_client_is_told_at_once_and_then_as_events_get_to_disk(settings: Settings) -> None:
    """The first answer is 0 for a new stream; each later one has no more than was sent, the last one all."""
    async with talking(settings) as (_, ws):
        await say(ws, lock())
        assert await hear(ws, "ack") == {"status": "ack", "stream": STREAM, "n": 0}
        await say(ws, who(), *[typed(number) for number in range(99)])
        await hear_count(ws, 100)


async def test_one_that_comes_back_while_the_disk_fails_is_told_all_that_is_there(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another's try, which had these events too, takes them along; what is told is what is on disk."""
    async with talking(settings) as (runtime, ws):
        await say(ws, lock(), who())
        await hear_count(ws, 1)
        real, go, waits = runtime.archive._sync, threading.Event(), threading.Event()

        def failing(files: Any) -> None:
            monkeypatch.setattr(runtime.archive, "_sync", real)
            waits.set()
            go.wait(5)
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(runtime.archive, "_sync", failing)
        await say(ws, *[typed(number) for number in range(10)])
        await auntil(lambda: waits.is_set() and runtime.archive.last == 11)
        async with connect(runtime.ingest_url) as again:
            await say(again, lock())
            while (await ws.receive()).type is not aiohttp.WSMsgType.CLOSE:
                pass
            go.set()
            assert (await hear(again, "ack"))["n"] == 11


async def test_acknowledgements_come_at_most_every_50_ms(settings: Settings) -> None:
    """Under a steady stream of events, two answers are never closer together than that."""
    async with talking(settings) as (_, ws):
        await say(ws, lock(), who())
        times: list[float] = []
        counts: list[int] = []

        async def listen() -> None:
            while not counts or counts[-1] < 301:
                counts.append((await hear(ws, "ack"))["n"])
                times.append(time.monotonic())

        listener = asyncio.create_task(listen())
        for number in range(300):
            await say(ws, typed(number))
            await asyncio.sleep(0.001)
        await listener
        gaps = [later - sooner for sooner, later in itertools.pairwise(times[1:])]
        assert len(gaps) >= 3
        assert min(gaps) > 0.03  # what is heard jitters; what is sent doesn't
        assert counts == sorted(set(counts))


async def test_who_asks_for_none_gets_none(settings: Settings) -> None:
    """A client of the field sees what it always saw."""
    async with talking(settings) as (runtime, ws):
        await say(ws, {"event": "lock_fields", "fields": {"source": SOURCE}}, who(), typed())
        await hear(ws, "auth")
        await idle(runtime)
        with pytest.raises(TimeoutError):
            await ws.receive(timeout=0.15)


async def test_rejected_and_identifying_events_count_and_commands_do_not(settings: Settings) -> None:
    """What comes after the lock_fields is counted, bad or good, by frame or in an array; commands aren't."""
    async with talking(settings) as (runtime, ws):
        await say(ws, who("u0"), typed(), lock())
        await hear_count(ws, 0)
        blob = {"activity": "a", "blob": 1}
        await say(ws, "nonsense", [typed(), 5, typed()], {"no": "event"}, {"event": "save_blob", **blob})
        await say(ws, {"event": "lock_fields", "fields": {"doc_id": "d"}}, typed())
        await hear_count(ws, 6)
        assert [(entry["stream"], entry["s"]) for entry in rejected(runtime.workspace.path)] == [
            (STREAM, 1),
            (STREAM, 3),
            (STREAM, 5),
        ]


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_the_count_goes_on_after_reconnects_and_restarts(settings: Settings, store: str) -> None:
    """A client that comes back is told how many are there, goes on from there, and nothing is there twice."""
    settings = replace(settings, store=store)
    sent = 0
    for _ in range(3):
        async with running(settings) as runtime:
            for _ in range(2):
                async with connect(runtime.ingest_url) as ws:
                    await say(ws, who("u0"), lock())
                    await hear_count(ws, sent)
                    await say(ws, *[typed(number) for number in range(sent, sent + 5)], "nonsense")
                    sent += 6
                    await hear_count(ws, sent)
            if store == "memory":  # nothing is known but what the archive has
                await idle(runtime)
    async with running(settings) as runtime:
        numbers = [body["number"] for body in bodies(runtime) if body["event"] == "keystroke"]
        assert numbers == [number for number in range(sent) if number % 6 != 5]


async def test_a_start_reads_the_tail_alone(settings: Settings) -> None:
    """With the counts in the store, the events of before are not read again."""
    settings = replace(settings, store="sqlite")
    async with talking(settings) as (_, ws):
        await say(ws, lock(), who(), *[typed(number) for number in range(50)])
        await hear_count(ws, 51)
    segment = next((Path(settings.workspace) / "archive").glob("events-*.jsonl"))
    segment.write_bytes(b"".join(segment.read_bytes().splitlines(keepends=True)[-1:]))
    async with talking(settings) as (_, ws):
        await say(ws, lock())
        await hear_count(ws, 51)


async def test_an_event_before_the_identity_is_acknowledged_when_it_is_kept(settings: Settings) -> None:
    """Held events count in the order they came, and not before they are on disk."""
    async with talking(settings) as (runtime, ws):
        await say(ws, lock())
        await hear_count(ws, 0)
        await say(ws, typed(1), "nonsense", typed(2))
        await hear(ws, "error")
        await idle(runtime)
        with pytest.raises(TimeoutError):
            await hear(ws, "ack", timeout=0.12)
        await say(ws, who())
        await hear_count(ws, 4)


async def test_a_newer_connection_takes_the_stream_over(settings: Settings) -> None:
    """What the old connection has still on its way isn't taken, so the resent events are there once."""
    async with running(settings) as runtime, connect(runtime.ingest_url) as old:
        await say(old, who("u0"), lock(), *[typed(number) for number in range(10)])
        await hear_count(old, 10)
        async with connect(runtime.ingest_url) as new:
            await say(new, who("u0"), lock())
            told = (await hear(new, "ack"))["n"]
            assert told == 10
            with contextlib.suppress(ConnectionError):  # it was closed
                await say(old, *[typed(number) for number in range(10, 20)])
            message = await old.receive(timeout=5)
            assert (message.data, message.extra) == (1000, "the stream goes on by a newer connection")
            await say(new, *[typed(number) for number in range(10, 20)])
            await hear_count(new, 20)
        numbers = [body["number"] for body in bodies(runtime) if body["event"] == "keystroke"]
        assert numbers == list(range(20))


async def test_nothing_is_acknowledged_that_the_disk_has_not(settings: Settings, monkeypatch: Any) -> None:
    """While the disk takes nothing no count goes out; sources are held back, and nothing is lost."""
    monkeypatch.setattr("lo_kernel.engine.commits._ROOM", 200)
    async with talking(settings) as (runtime, ws):
        runtime.add_reducer("count", count, module="tests")
        await say(ws, lock(), who("u0"))
        await hear_count(ws, 1)
        write = runtime.archive._write_events

        def full() -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(runtime.archive, "_write_events", full)
        await say(ws, *[typed(number) for number in range(1000)])
        await auntil(lambda: runtime.pipeline.full)
        await auntil(lambda: runtime.errors.of("archive"))
        assert "No space left" in str(runtime.errors.of("archive")[0])
        assert runtime.archive.last < 500
        with pytest.raises(TimeoutError):
            await hear(ws, "ack", timeout=0.2)
        monkeypatch.setattr(runtime.archive, "_write_events", write)
        await hear_count(ws, 1001)
        await expect(runtime, key_of("u0"), {"n": 1000})
        assert len(bodies(runtime)) == 1001


async def test_acknowledgements_go_on_while_the_store_is_gone(settings: Settings) -> None:
    """Events are archived and acknowledged; states are read from memory, and are in the store afterwards."""
    async with talking(settings) as (runtime, ws):
        runtime.add_reducer("count", count, module="tests")
        await say(ws, lock(), who("u0"))
        await hear_count(ws, 1)
        registration = runtime.registry.get("count")
        assert registration.run is not None
        store = Faulty(runtime.store)
        runtime.store = runtime.pipeline.store = runtime.registry.store = registration.run.store = store
        store.down = True
        await say(ws, *[typed(number) for number in range(50)])
        await hear_count(ws, 51)
        await expect(runtime, key_of("u0"), {"n": 50})
        await auntil(lambda: not runtime.pipeline.store_up)
        assert any("gone for a while" in entry.message for entry in runtime.errors.of("store"))
        store.down = False
        await auntil(lambda: runtime.pipeline.store_up)
        await idle(runtime)
        text = (await runtime.store.get_many(registration.run.generation, [key_of("u0")]))[0]
        assert json.loads(text or b"") == {"n": 50}
        assert any(entry.kind == "Notice" for entry in runtime.errors.of("store"))


@pytest.mark.parametrize("ack", [5, {}, {"stream": ""}, {"stream": 5}, {"stream": "x" * 201}])
async def test_a_bad_wish_for_acknowledgements_is_told(settings: Settings, ack: Any) -> None:
    """The client hears what was expected."""
    async with talking(settings) as (_, ws):
        await say(ws, {"event": "lock_fields", "fields": {}, "ack": ack})
        error = await hear(ws, "error")
        assert error["reason"] == "bad_ack"
        assert "'stream'" in error["error"]


async def test_streams_that_nobody_uses_take_no_memory(settings: Settings) -> None:
    """Whether a stream brought events or none, and each time it is asked for; its count stays."""
    async with running(settings) as runtime:
        for round_ in range(2):
            for name in ("empty", "full"):
                async with connect(runtime.ingest_url) as ws:
                    await say(ws, lock(name))
                    await hear_count(ws, 2 if round_ and name == "full" else 0, name)
                    if not round_ and name == "full":
                        await say(ws, who(), typed())
                        await hear_count(ws, 2, name)
            await auntil(lambda: not runtime.sources)
            await runtime.pipeline.commit()
            assert not runtime.pipeline.streams._streams
            assert not runtime.pipeline.streams._stored
