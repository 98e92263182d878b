"""Frames that are refused as a whole: the events in them count, or the client has to ask for the count."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest
from ingest_parts import bodies, connect, hear, idle, rejected, running, say, talking, typed, who
from test_acks import STREAM, hear_count, lock

from lo_kernel.settings import Settings

LARGE = "x" * (1 << 20)
SPECIAL = {"event": "lock_fields", "fields": {}}


@pytest.mark.parametrize(
    ("frame", "binary", "reason"),
    [
        (json.dumps([typed(1), {**typed(2), "pad": LARGE}, SPECIAL, 5]), False, "too_large"),
        ("\ufeff [" + json.dumps(LARGE) + ', "\\ud83d", {"event":"x"}]', False, "too_large"),
        (json.dumps([typed(1), typed(2), SPECIAL, "text"]), True, "binary"),
    ],
)
async def test_the_elements_of_a_refused_array_count(
    settings: Settings, frame: str, binary: bool, reason: str
) -> None:
    """Each has its number, and is kept; a client that comes back goes on behind them."""
    async with running(settings) as runtime:
        async with connect(runtime.ingest_url) as ws:
            await say(ws, lock(), who())
            await (ws.send_bytes(frame.encode()) if binary else ws.send_str(frame))
            error = await hear(ws, "error")
            assert error["reason"] == reason
            assert "array of" in error["error"]
            await say(ws, typed(9))
            await hear_count(ws, 5)
        async with connect(runtime.ingest_url) as ws:
            await say(ws, lock())
            await hear_count(ws, 5)
        assert [body.get("number") for body in bodies(runtime)] == [None, 9]
        kept = rejected(runtime.workspace.path)
        assert [entry["s"] for entry in kept if "s" in entry] == [2, 3, 4]
        assert {entry["reason"] for entry in kept} == {reason}


@pytest.mark.parametrize(
    ("frame", "code", "reason"),
    [
        ('[{"event": "x"}, {"event": "y"', 1007, "not_json"),
        ("[" + json.dumps(LARGE), 1009, "too_large"),
        (b"[1, 2", 1003, "binary"),
        (b"\x82\x01\x02", 1003, "binary"),
    ],
)
async def test_where_they_can_not_be_counted_the_client_has_to_ask(
    settings: Settings, frame: Any, code: int, reason: str
) -> None:
    """The connection ends, with a reason; the frame is kept, and has no number."""
    async with running(settings) as runtime:
        async with connect(runtime.ingest_url) as ws:
            await say(ws, lock(), who(), typed(1))
            await hear_count(ws, 2)
            await (ws.send_bytes(frame) if type(frame) is bytes else ws.send_str(frame))
            assert (await hear(ws, "error"))["reason"] == reason
            message = await ws.receive(timeout=5)
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, code)
            assert "send what comes after n" in str(message.extra)
        async with connect(runtime.ingest_url) as ws:
            await say(ws, lock(), who(), typed(2))
            await hear_count(ws, 4)
        (kept,) = rejected(runtime.workspace.path)
        assert kept["reason"] == reason
        assert kept.get("stream") != STREAM


async def test_a_frame_that_can_not_be_counted_is_kept_once(settings: Settings) -> None:
    """However often its stream brings it: told each time, and from the second on what else can be done."""
    broken, other = '[{"event": "x"}, {"event":}]', "[oops"
    reasons = []
    async with running(settings) as runtime:
        for frame in (broken, broken, broken, other, broken):
            async with connect(runtime.ingest_url) as ws:
                await say(ws, lock(user_id="u0"), frame)
                await hear(ws, "error")
                message = await ws.receive(timeout=5)
                assert message.data == 1007
                reasons.append("a new stream" in str(message.extra))
        async with connect(runtime.ingest_url) as ws:
            await say(ws, lock("another", user_id="u0"), broken)
            await hear(ws, "error")
        await idle(runtime)
        kept = [entry["text"] for entry in rejected(runtime.workspace.path)]
        assert kept == [broken, other, broken, broken]
        assert reasons == [False, True, True, False, False]


async def test_what_is_no_array_and_no_json_is_one_event(settings: Settings) -> None:
    """Also a large one; a command that is refused for its size is none."""
    async with talking(settings) as (runtime, ws):
        await say(ws, lock(user_id="u0"), "oops", LARGE + "x")
        await ws.send_bytes(b'{"event": "x"}')
        await say(ws, {"event": "save_blob", "blob": LARGE}, typed(1))
        await hear_count(ws, 4)
        assert [entry.get("s") for entry in rejected(runtime.workspace.path)] == [1, 2, 3, None]
